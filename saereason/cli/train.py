"""Train SAEs, and teach a model to reason on request."""

import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from .quality import figures, quality_rows
from .shell import Adapter, Data, Gguf, Json, Layers, ModelName, Out, Seed, numbers, one_of, out, plain_errors

ARCHITECTURES = ("topk", "batchtopk", "matryoshka_batchtopk", "jumprelu", "standard")


def teach(
    folder: Out = Path("runs/taught"),
    model: ModelName = "smollm2-135m",
    problems: Annotated[
        int | None, typer.Option(help="Training problems, each seen once.", show_default="4800")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a LoRA adapter that works in steps on one instruction and answers directly on another, and examine it."""
    with plain_errors(as_json) as show:
        from rich.json import JSON

        from saereason.loading import load_model
        from saereason.mechanisms.exam import write_card
        from saereason.mechanisms.lessons import Recipe
        from saereason.mechanisms.teach import teach as train_adapter
        from saereason.progress import steps
        from saereason.runs import claimed

        with claimed(folder), steps() as bars:
            pupil = load_model(model)
            with bars.step("teach") as bar:
                recipe = Recipe(seed=seed) if problems is None else Recipe(n_problems=problems, seed=seed)
                train_adapter(pupil, folder, recipe=recipe, progress=lambda done, total, loss: bar(done, total))
            with bars.step("examine") as bar:
                card = write_card(folder, load_model(model), load_model(model, adapter=folder), progress=bar)
        show(card, JSON.from_data(card))


def train(
    layers: Layers,
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    data: Data = None,
    problems: Annotated[int, typer.Option(help="Generated word problems to train on as well.")] = 0,
    own: Annotated[int, typer.Option(help="Continuations by the model itself to train on as well.")] = 0,
    length: Annotated[int, typer.Option(help="Longest row, in tokens.")] = 128,
    packed: Annotated[
        bool, typer.Option("--packed", help="Documents end to end; without it a row is from one document.")
    ] = False,
    bos: Annotated[
        bool | None,
        typer.Option("--bos/--no-bos", help="BOS before every row, or none.", show_default="the tokenizer's"),
    ] = None,
    special: Annotated[bool, typer.Option(help="Train on special tokens too (never on a row's first token).")] = True,
    n_tokens: Annotated[
        int | None, typer.Option(help="Stop there; the texts are gone through again if need be.")
    ] = None,
    architecture: Annotated[
        str,
        typer.Option(
            help="topk, batchtopk, matryoshka_batchtopk, jumprelu or standard.", autocompletion=one_of(ARCHITECTURES)
        ),
    ] = "topk",
    d_sae: Annotated[
        str, typer.Option(help="Features; several widths, with commas between, train in one pass.")
    ] = "4608",
    k: Annotated[int, typer.Option(help="Active features a token, for the Top-K family.")] = 32,
    penalty: Annotated[float | None, typer.Option(help="Sparsity penalty, for jumprelu and standard.")] = None,
    frozen: Annotated[
        str | None, typer.Option(help="Control: keep a random `decoder` or `encoder` as it was drawn.")
    ] = None,
    random_model: Annotated[
        bool, typer.Option("--random-model", help="Control: train on a copy of the model with random weights.")
    ] = False,
    lr: Annotated[float, typer.Option(help="Learning rate, at its peak.")] = 1.5e-3,
    seed: Annotated[str, typer.Option(help="Several seeds, with commas between, train in one pass.")] = "0",
    batch_size: Annotated[int, typer.Option(help="Tokens in a step.")] = 512,
    buffer_tokens: Annotated[int, typer.Option(help="Activations that are shuffled together.")] = 32_768,
    dtype: Annotated[str | None, typer.Option(help="Precision of activations: bfloat16 or float32.")] = None,
    device: Annotated[str | None, typer.Option(help="Of the model; the fastest there is.")] = None,
    sae_device: Annotated[str | None, typer.Option(help="Of the SAEs; the model's.")] = None,
    folder: Out = Path("runs/train"),
    as_json: Json = False,
) -> None:
    """Train SAEs on some layers from one forward pass, and say how good they are."""
    with plain_errors(as_json) as show:
        from saereason.hooks import check_layers
        from saereason.loading import load_model, random_copy
        from saereason.machine import as_dtype
        from saereason.training import Design, Framing, Material

        seeds, places = numbers(seed, "seeds"), numbers(layers, "layers")
        designs = [
            Design(architecture, width, k, penalty, frozen, lr, seed=each)
            for width, each in product(numbers(d_sae, "widths"), seeds)
        ]
        material = Material(tuple(data or ()), problems, own, Framing(length, packed, bos))
        lm = load_model(model, adapter=adapter, gguf=gguf, device=device)
        lm = random_copy(lm, seed=seeds[0]) if random_model else lm
        check_layers(lm, places)
        options: dict[str, Any] = {
            "n_tokens": n_tokens,
            "batch_size": batch_size,
            "buffer_tokens": buffer_tokens,
            "dtype": as_dtype(dtype) if dtype else None,
            "device": sae_device,
            "left_out": () if special else tuple(lm.tokenizer.all_special_ids),
        }
        said, found = _trained(lm, material, places, designs, options, folder)
        saes = {name: [figures(each) for each in qualities] for name, qualities in found.items()}
        report = folder / "training.html"
        parts = [quality_rows(qualities, str(folder / name)) for name, qualities in found.items()]
        show({"plan": said, "saes": saes, "folder": folder, "training": report}, *parts)


def _trained(
    lm: Any, material: Any, places: Sequence[int], designs: Sequence[Any], options: Mapping[str, Any], folder: Path
) -> tuple[str, dict[str, list[Any]]]:
    """What was planned, and the quality of all SAEs by the folder that each design's are saved to."""
    from saereason.plots import plot_training, save_page
    from saereason.progress import steps
    from saereason.quality import carded, evaluate_saes
    from saereason.runs import Run, claimed
    from saereason.saes import save_saes
    from saereason.training import plan, read_log, split_rows

    found: dict[str, list[Any]] = {}
    seeds = list(dict.fromkeys(design.seed for design in designs))
    with claimed(folder), steps() as bars:
        run = Run.open(folder)
        with bars.step("texts") as bar:
            train_on, held_out = split_rows(material.rows(lm, run, seed=seeds[0], progress=bar))
        planned = plan(lm, train_on, places, designs, **options)
        out.print(str(planned), markup=False, highlight=False, soft_wrap=True)
        run.write_manifest(command=sys.argv, plan=str(planned), seed=seeds)
        trained = _saes(lm, train_on, places, designs, options, folder, bars)
        save_page(plot_training(read_log(folder)), folder / "training.html")
        for design, saes in zip(designs, trained, strict=True):
            name = "saes" if len(designs) == 1 else f"saes-{design.d_sae}-seed{design.seed}"
            with bars.step(f"evaluate {name}") as bar:
                found[name] = evaluate_saes(lm, saes, held_out, progress=bar)
            save_saes(carded(saes, found[name]), folder / name)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return str(planned), found


def _saes(
    lm: Any,
    rows: Sequence[Any],
    places: Sequence[int],
    designs: Sequence[Any],
    options: Mapping[str, Any],
    folder: Path,
    bars: Any,
) -> Sequence[Any]:
    """The SAEs of each design, with a log and a checkpoint in the folder on the way."""
    from saereason.training import journal, train_saes

    with bars.step("train SAEs") as bar, journal(folder) as notes:

        def progress(log: Any) -> None:
            notes.note(log)
            bar(log.tokens, log.n_tokens)

        checkpoint = folder / "checkpoint.safetensors"
        return train_saes(lm, rows, places, designs, **options, checkpoint=checkpoint, progress=progress)
