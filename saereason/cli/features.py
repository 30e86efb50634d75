"""Look at features: the best of a table, and all that is known of one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .card import Passage, card_document, card_parts, passages
from .quality import held_out
from .rows import Rows, plain
from .shell import Adapter, Data, Gguf, Json, ModelName, Saes, Seed, example_of, numbers, out, plain_errors

features = typer.Typer(no_args_is_help=True, help="Look at features: the best of a table, and the card of one.")

View = Annotated[str | None, typer.Option(help="Which table of a run, by the name of its file.")]


@features.command(epilog=example_of('features top runs/search.parquet --where "rate_on > 0.5"'))
def top(
    table: Annotated[Path, typer.Argument(help="A Parquet file, such as search --out writes, or the folder of a run.")],
    by: Annotated[str, typer.Option(help="The column to rank by.")] = "studentised",
    k: Annotated[int, typer.Option(help="Features to show.")] = 20,
    layer: Annotated[str | None, typer.Option(help="These layers alone, such as 14 or 14,24.")] = None,
    where: Annotated[str, typer.Option(help="A condition in SQL, such as 'rate_on > 0.5'.", show_default=False)] = "",
    lowest: Annotated[bool, typer.Option("--lowest", help="The lowest values first, as for p.")] = False,
    view: View = None,
    as_json: Json = False,
) -> None:
    """The best features of a table on disk."""
    with plain_errors(as_json) as show:
        from saereason.stored import ranked

        layers = numbers(layer, "layers") if layer else ()
        found, n = ranked(table, by, k, layers=layers, where=where, lowest=lowest, view=view)
        names = [by, *(name for name in found.columns if name not in (by, "layer", "index"))]
        columns = [found[name].tolist() for name in names]
        rows = [(feature, *values) for feature, *values in zip(found, *columns, strict=True)]
        shown = Rows(("feature", *names), rows, f"{len(rows)} of {n:,} features of {table}")
        show({"table": table, "by": by, "n_features": n, "features": shown}, shown)


@features.command("show", epilog=example_of("features show L14/3021 --saes smollm2-135m"))
def show_feature(
    feature: Annotated[str, typer.Argument(help="Layer and index, such as L19/3374.")],
    saes: Saes,
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    data: Data = None,
    table: Annotated[Path | None, typer.Option(help="Its scores are here: a Parquet file or a run.")] = None,
    view: View = None,
    contexts: Annotated[int, typer.Option(help="Contexts of each kind.")] = 3,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The card of one feature: what it writes, how often it fires, where, and which features are like it.

    Contexts are from the given texts, or from those that the default training holds out.
    """
    with plain_errors(as_json) as show:
        from saereason.features import Feature
        from saereason.loading import load_model
        from saereason.saes import sae_at, saes_of
        from saereason.stored import scores_of

        wanted = Feature.parse(feature)
        scores = {} if table is None else scores_of(table, wanted, view=view)
        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = saes_of(saes, device=lm.device)
        sae_at(loaded, wanted)
        card, read = _read(lm, loaded, wanted, held_out(lm, data), contexts, seed)
        show(card_document(card, read, plain(scores)), *card_parts(card, read, scores, out.width))


def _read(lm: Any, loaded: Any, wanted: Any, rows: list[Any], n_each: int, seed: int) -> tuple[Any, list[Passage]]:
    """The card, and its contexts as text."""
    from saereason.progress import steps
    from saereason.search import feature_card, feature_contexts

    if n_each < 1:
        raise ValueError(f"contexts are {n_each}; show at least 1 of each kind.")
    with steps() as bars, bars.step("read contexts") as bar:
        layer = {wanted.layer: loaded[wanted.layer]}
        contexts = feature_contexts(lm, layer, rows, n_top=n_each, seed=seed, progress=bar)
    card = feature_card(lm, loaded, wanted, contexts, n_each=n_each)
    return card, passages(lm, rows, card)
