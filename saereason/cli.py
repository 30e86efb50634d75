"""The command line: a thin layer of calls; whatever is heavy is imported by the command that needs it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Which SAE features does a language model use when it reasons, at which layers, and can you switch them?",
)
out = Console(width=None if sys.stdout.isatty() else 120)

ModelName = Annotated[str, typer.Option("--model", help="smollm2-135m, a hub name, a local folder or a GGUF file.")]
Adapter = Annotated[str | None, typer.Option(help="A PEFT folder to merge, or `taught`, the one that ships.")]
Gguf = Annotated[Path | None, typer.Option(help="A GGUF file with the weights.")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        help="Text, .jsonl, .parquet, .npy or .safetensors (tokens), a folder that `datasets` saved, or "
        "hub:owner/name; may be given again. Without it, problem texts and plain English.",
    ),
]
Layers = Annotated[str, typer.Option(help="Layers, such as 10,14,18.")]
Saes = Annotated[Path, typer.Option(help="Folder of SAEs, such as runs/demo/saes.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
TaskFile = Annotated[Path | None, typer.Option("--task", help="JSON lines with question and answer.")]


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Bad input ends in one sentence and exit code 2; what is a bug keeps its traceback."""
    from saereason.steering import SilentEditError

    try:
        yield
    except (ValueError, SilentEditError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; run the same command again to go on from here.")
        raise typer.Exit(130) from None


def _numbers(text: str, what: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{what} are {text!r}; write numbers with commas between, such as 10,14,18.") from error


def _show(header: tuple[str, ...], rows: list[tuple[Any, ...]], title: str) -> None:
    table = Table(title=Text(title), title_justify="left")
    for n, name in enumerate(header):
        table.add_column(name, justify="left" if n == 0 else "right")
    for row in rows:
        table.add_row(*map(str, row))
    out.print(table)


@app.command()
def demo(
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    task: TaskFile = None,
    direct: Annotated[str | None, typer.Option(help="Instruction of the direct prompt.")] = None,
    cot: Annotated[str | None, typer.Option(help="Instruction of the CoT prompt.")] = None,
    layers: Layers | None = None,
    seed: int = 0,
    quick: Annotated[bool, typer.Option(help="Small sizes: a look at how it works, not at what it finds.")] = False,
    folder: Out = Path("runs/demo"),
) -> None:
    """The whole story: train SAEs, find a reasoning feature, switch it, doubt it, and plot the layers."""
    with _plain_errors():
        from saereason.demo import Settings, run_demo
        from saereason.demo.settings import QUICK, Sizes

        own = model != "smollm2-135m" or gguf is not None or task is not None
        default = Settings()
        settings = Settings(
            out=folder,
            model=model,
            gguf=gguf,
            adapter=adapter or (None if own else "taught"),
            task=task,
            direct=default.direct if direct is None else direct,
            cot=default.cot if cot is None else cot,
            layers=_numbers(layers, "layers") if layers else default.layers,
            seed=seed,
            sizes=QUICK if quick else Sizes(),
        )
        result = run_demo(settings, command=sys.argv)
        saes = result.summary["saes"]
        _show(tuple(saes[0]), [tuple(sae.values()) for sae in saes], "SAEs")
        out.print(
            f"{result.summary['features_searched']} features searched on {result.summary['n_discovery']} discovery "
            f"problems, {result.summary['candidates_tried']} candidates tried; chosen: {result.summary['feature']}",
            highlight=False,
        )
        _show(result.header, result.rows, f"{result.summary['n']} confirmation problems")
        for sentence in result.summary["words"]:
            out.print(f"- {sentence}", markup=False, highlight=False)
        out.print(f"{folder / 'summary.json'}\n{folder / 'report.html'}", highlight=False)


@app.command()
def teach(
    folder: Out = Path("runs/taught"),
    model: ModelName = "smollm2-135m",
    problems: Annotated[
        int | None, typer.Option(help="Training problems, each seen once.", show_default="4800")
    ] = None,
    seed: int = 0,
) -> None:
    """Train a LoRA adapter that works in steps on one instruction and answers directly on another, and examine it."""
    with _plain_errors():
        from saereason.loading import load_model
        from saereason.mechanisms.exam import write_card
        from saereason.mechanisms.lessons import Recipe
        from saereason.mechanisms.teach import teach as train_adapter
        from saereason.progress import steps
        from saereason.runs import claimed

        with claimed(folder), steps() as bars:
            pupil = load_model(model)
            with bars.step("teach") as show:
                recipe = Recipe(seed=seed) if problems is None else Recipe(n_problems=problems, seed=seed)
                train_adapter(pupil, folder, recipe=recipe, progress=lambda done, total, loss: show(done, total))
            with bars.step("examine") as show:
                card = write_card(folder, load_model(model), load_model(model, adapter=folder), progress=show)
        out.print_json(data=card)


@app.command()
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
        str, typer.Option(help="topk, batchtopk, matryoshka_batchtopk, jumprelu or standard.")
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
    lr: float = 1.5e-3,
    seed: Annotated[str, typer.Option(help="Several seeds, with commas between, train in one pass.")] = "0",
    batch_size: int = 512,
    buffer_tokens: Annotated[int, typer.Option(help="Activations that are shuffled together.")] = 32_768,
    dtype: Annotated[str | None, typer.Option(help="Precision of activations: bfloat16 or float32.")] = None,
    device: Annotated[str | None, typer.Option(help="Of the model; the fastest there is.")] = None,
    sae_device: Annotated[str | None, typer.Option(help="Of the SAEs; the model's.")] = None,
    folder: Out = Path("runs/train"),
) -> None:
    """Train SAEs on some layers from one forward pass, and say how good they are."""
    with _plain_errors():
        from itertools import product

        from saereason.hooks import check_layers
        from saereason.loading import as_dtype, load_model, random_copy
        from saereason.plots import plot_training, save_page
        from saereason.progress import steps
        from saereason.quality import carded, evaluate_saes
        from saereason.runs import Run, claimed
        from saereason.saes import save_saes
        from saereason.training import (
            Design,
            Framing,
            Material,
            journal,
            plan,
            read_log,
            split_rows,
            train_saes,
        )

        seeds, places = _numbers(seed, "seeds"), _numbers(layers, "layers")
        designs = [
            Design(architecture, width, k, penalty, frozen, lr, seed=each)
            for width, each in product(_numbers(d_sae, "widths"), seeds)
        ]
        material = Material(tuple(data or ()), problems, own, Framing(length, packed, bos))
        lm = load_model(model, adapter=adapter, gguf=gguf, device=device)
        lm = random_copy(lm, seed=seeds[0]) if random_model else lm
        check_layers(lm, places)
        with claimed(folder), steps() as bars:
            run = Run.open(folder)
            with bars.step("texts") as show:
                train_on, held_out = split_rows(material.rows(lm, run, seed=seeds[0], progress=show))
            sizes: Any = {"n_tokens": n_tokens, "batch_size": batch_size, "buffer_tokens": buffer_tokens}
            place: Any = {"dtype": as_dtype(dtype) if dtype else None, "device": sae_device}
            options = {**sizes, **place, "left_out": () if special else tuple(lm.tokenizer.all_special_ids)}
            planned = plan(lm, train_on, places, designs, **options)
            out.print(str(planned), highlight=False)
            run.write_manifest(command=sys.argv, plan=str(planned), seed=seeds)
            with bars.step("train SAEs") as show, journal(folder) as notes:

                def progress(log: Any) -> None:
                    notes.note(log)
                    show(log.tokens, log.n_tokens)

                trained = train_saes(
                    lm,
                    train_on,
                    places,
                    designs,
                    **options,
                    checkpoint=folder / "checkpoint.safetensors",
                    progress=progress,
                )
            save_page(plot_training(read_log(folder)), folder / "training.html")
            for design, saes in zip(designs, trained, strict=True):
                name = "saes" if len(designs) == 1 else f"saes-{design.d_sae}-seed{design.seed}"
                with bars.step(f"evaluate {name}") as show:
                    found = evaluate_saes(lm, saes, held_out, progress=show)
                save_saes(carded(saes, found), folder / name)
                _show_quality(found, str(folder / name))
            (folder / "checkpoint.safetensors").unlink(missing_ok=True)


@app.command()
def check(
    saes: Saes,
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    data: Data = None,
    quick: Annotated[bool, typer.Option(help="Only whether they fit, not how good they are.")] = False,
) -> None:
    """Do these SAEs belong to this model, and how good are they on it? Ends with exit code 2 if one does not fit."""
    with _plain_errors():
        from saereason.loading import load_model
        from saereason.preflight import preflight
        from saereason.saes import load_saes

        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = load_saes(saes, device=lm.device)
        fits = preflight(lm, loaded, strict=False)
        figures = ("explained_variance", "l0", "mean_norm")
        header = ("layer", "fits", *(f"{name}, here / card" for name in ("explained variance", "L0", "mean norm")))
        rows = [
            (f.layer, "yes" if f.fits else "NO", *(_pair(getattr(f, n), getattr(f, f"card_{n}")) for n in figures))
            for f in fits
        ]
        _show(header, rows, f"Do the SAEs of {saes} belong to {lm.name}? ({fits[0].n_tokens} tokens)")
        for fit in fits:
            for note in fit.notes:
                out.print(f"- layer {fit.layer}: {note}", markup=False, highlight=False, soft_wrap=True)
        unfit = [fit.layer for fit in fits if not fit.fits]
        if unfit:
            raise ValueError(f"the SAEs at layers {unfit} do not fit {lm.name}; the notes say why.")
        if not quick:
            _show_quality(_evaluated(lm, loaded, data), str(saes))


@app.command()
def publish(
    saes: Saes,
    to: Annotated[Path, typer.Option(help="New folder for the SAEs and their model card.")],
    data: Annotated[str, typer.Option(help="What the SAEs were trained on, in words.")],
    licence: Annotated[str, typer.Option(help="Licence of the SAEs, by the hub's short name, such as apache-2.0.")],
    base_model: Annotated[
        str | None, typer.Option(help="The hub's name of the model, if these are its weights.")
    ] = None,
    base_licence: Annotated[str | None, typer.Option(help="Licence of the base model.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Measure on this model; without it, the figures are those on the SAEs' cards.")
    ] = None,
    adapter: Adapter = None,
    push: Annotated[str | None, typer.Option(help="Upload to this repository on the hub, owner/name.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the repository public.")] = False,
) -> None:
    """Write SAEs and a model card to a folder, and push it to the Hugging Face hub if a repository is named."""
    with _plain_errors():
        from saereason.loading import load_model
        from saereason.publish import publishable
        from saereason.publish import push as upload
        from saereason.saes import load_saes

        loaded, qualities = load_saes(saes), []
        if model is not None:
            qualities = _evaluated(load_model(model, adapter=adapter, device="cpu"), loaded, None)
        said: Any = {"data": data, "licence": licence, "base_model": base_model, "base_licence": base_licence}
        out.print(publishable(loaded, to, qualities=qualities, repo_id=push or "owner/name", **said), highlight=False)
        if push is not None:
            out.print(upload(to, push, private=not public), highlight=False)


def _evaluated(lm: Any, saes: Any, data: list[str] | None) -> list[Any]:
    """Quality on given data, or on rows that the default training holds out."""
    from saereason.progress import steps
    from saereason.quality import evaluate_saes
    from saereason.training import default_rows, read_rows, split_rows

    rows = [row for source in data or () for row in read_rows(lm, source)] or split_rows(default_rows(lm))[1]
    with steps() as bars, bars.step("evaluate SAEs") as show:
        return evaluate_saes(lm, saes, rows, progress=show)


def _show_quality(found: list[Any], title: str) -> None:
    columns = ("explained_variance", "l0", "dead", "loss_clean", "loss_spliced", "loss_mean_ablated", "loss_recovered")
    rows = [(q.layer, *(f"{getattr(q, name):.3f}" for name in columns)) for q in found]
    _show(("layer", *(name.replace("_", " ") for name in columns)), rows, title)


def _pair(here: float, card: float | None) -> str:
    return f"{here:.3f} / {'–' if card is None else f'{card:.3f}'}"


@app.command()
def search(
    saes: Saes,
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    task: TaskFile = None,
    direct: str | None = None,
    cot: str | None = None,
    n: Annotated[int, typer.Option(help="Problems to search on.")] = 96,
    top: int = 15,
    folder: Annotated[Path | None, typer.Option("--out", help="Where to write the whole table as Parquet.")] = None,
) -> None:
    """Rank every feature by its paired difference between the CoT and the direct prompt of the same problem."""
    with _plain_errors():
        from saereason.examples import Examples
        from saereason.loading import load_model
        from saereason.progress import steps
        from saereason.saes import load_saes
        from saereason.search import search as score
        from saereason.tasks import discovery_task

        if folder is not None and folder.is_dir():
            raise ValueError(f"{folder} is a folder; give the name of a Parquet file.")
        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = load_saes(saes, device=lm.device)
        problems = discovery_task(task, n=n, direct=direct, cot=cot)
        pairs = Examples.pair(lm, problems.prompts(lm, problems.cot), problems.prompts(lm, problems.direct))
        with steps() as bars, bars.step("search all features") as show:
            table = score(lm, loaded, pairs, progress=show)
        if folder is not None:
            table.save(folder)
        best = table.top(top, "studentised")
        columns = ("difference", "studentised", "mean_on", "mean_off", "rate_on", "rate_off")
        rows = [(f, *(f"{best[c][i]:.3f}" for c in columns)) for i, f in enumerate(best)]
        _show(("feature", *columns), rows, f"{len(table)} features, {len(problems)} pairs of prompts")


@app.command()
def steer(
    prompt: str,
    saes: Saes,
    feature: Annotated[str, typer.Option(help="Such as L19/3374.")],
    add: Annotated[float | None, typer.Option(help="Add this much of the feature.")] = None,
    clamp: Annotated[float | None, typer.Option(help="Hold the feature at this value; 0 ablates.")] = None,
    scale: Annotated[float | None, typer.Option(help="Multiply the feature by this.")] = None,
    when: Annotated[
        str, typer.Option(help="everywhere, prompt, last-prompt-token, generated or steps:2-5.")
    ] = "everywhere",
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    system: str | None = None,
    raw: Annotated[bool, typer.Option(help="No chat format.")] = False,
    tokens: Annotated[int, typer.Option(help="Longest answer.")] = 128,
) -> None:
    """Answer a prompt as the model stands and with one feature changed, with a receipt of what the change did."""
    with _plain_errors():
        from saereason.features import Feature
        from saereason.generate import generate
        from saereason.loading import load_model
        from saereason.saes import load_saes
        from saereason.steering import Add, Clamp, Scale, parse_when, steered

        kinds: dict[Callable[..., Any], float | None] = {Add: add, Clamp: clamp, Scale: scale}
        given = {kind: size for kind, size in kinds.items() if size is not None}
        if len(given) != 1:
            raise ValueError(f"{len(given)} of --add, --clamp and --scale were given; give one.")
        [(kind, size)] = given.items()
        edit = kind(Feature.parse(feature), size, parse_when(when))
        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = load_saes(saes, device=lm.device)
        rendered = lm.render(prompt, system, False if raw else None)
        clean = generate(lm, [rendered], max_new_tokens=tokens)
        with steered(lm, loaded, edit):
            changed = generate(lm, [rendered], max_new_tokens=tokens)
        for name, text in (("clean", clean.texts[0]), ("steered", changed.texts[0]), ("receipt", str(changed.receipt))):
            out.rule(name, align="left")
            out.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


@app.command(name="layers")
def layers_command(
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    task: TaskFile = None,
    folder: Out = Path("runs/layers"),
    seed: int = 0,
) -> None:
    """Skip every layer in turn and plot what it costs reasoning, knowledge and plain text."""
    with _plain_errors():
        from saereason.demo import Settings, run_layers
        from saereason.plots import plot_layers
        from saereason.report import Figure, Page, Text, write_report

        settings = Settings(out=folder, model=model, gguf=gguf, adapter=adapter, task=task, seed=seed)
        curves, finding = run_layers(settings)
        out.print(finding.statement, highlight=False)
        page = Page(
            f"Layers of {model}",
            finding.statement,
            (Figure("What skipping a layer costs", plot_layers(curves)), Text("Finding", (finding.statement,))),
        )
        out.print(write_report(folder, page))
