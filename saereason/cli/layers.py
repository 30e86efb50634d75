"""Where in depth families of items are served."""

from pathlib import Path
from typing import Annotated

import typer

from .shell import Adapter, Gguf, ModelName, Out, TaskFile, check_own, out, plain_errors, show_table


def layers(
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    task: TaskFile = None,
    operators: Annotated[str, typer.Option(help="`default` (skip, gradient) or `all`.")] = "default",
    families: Annotated[str, typer.Option(help="`default` (one of each kind and plain text) or `all`.")] = "default",
    data: Annotated[
        Path | None, typer.Option(help="A folder with published benchmarks in their public formats, for `all`.")
    ] = None,
    saes: Annotated[str | None, typer.Option(help="SAEs, named as elsewhere, to splice in for `all`.")] = None,
    n: Annotated[int, typer.Option(help="Items of a family.")] = 200,
    dry_run: Annotated[bool, typer.Option(help="Print how long it might take, and stop.")] = False,
    folder: Out = Path("runs/layers"),
    seed: int = 0,
) -> None:
    """Change every layer in turn, and say what that costs reasoning, knowledge and plain text, with intervals."""
    with plain_errors():
        import sys

        from saereason.loading import load_model
        from saereason.progress import steps
        from saereason.runs import Run, claimed
        from saereason.saes import saes_of
        from saereason.study import lab
        from saereason.tasks import load_task
        from saereason.training import plain_texts

        check_own(folder, "layers")
        _check(operators, families, data, n)
        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = saes_of(saes, device=lm.device) if saes else {}
        texts = [text for text in plain_texts() if lm.fits(text, spare=1)]
        own = load_task(task) if task is not None else None
        asked = lab.subjects_of(lm, texts, n, task=own, data=data if families == "all" else None, seed=seed)
        whole, sizes = operators == "all", lab.Sizes() if operators == "all" else None
        able = lab.battery(lm, loaded, texts, whole=whole)
        told = ", ".join(f"{subject.name} ({len(subject.family.metric)})" for subject in asked)
        out.print(f"Families: {told}.", markup=False, highlight=False)
        minutes = lab.estimate(lm, loaded, asked, able, sizes) / 60
        on_features = lab.FEATURE_OPERATORS if whole and loaded else 0
        out.print(f"{len(able) + on_features} operators: about {minutes:.1f} minutes.", highlight=False)
        if dry_run:
            return
        with claimed(folder), steps() as bars:
            run = Run.open(folder)
            run.write_manifest(command=sys.argv, model=lm.hash, families=[subject.name for subject in asked])
            able += lab.feature_operators(lm, loaded, texts, bars, seed=seed) if whole else []
            found = lab.run_lab(lm, loaded, asked, able, run, bars, sizes)
        show_table(lab.FINDING_HEADER, lab.finding_rows(found), f"{len(asked)} families")
        for sentence in lab.sentences(found):
            out.print(f"- {sentence}", markup=False, highlight=False, soft_wrap=True)
        out.print(folder / "report.html", highlight=False)


def _check(operators: str, families: str, data: Path | None, n: int) -> None:
    for name, value in (("operators", operators), ("families", families)):
        if value not in ("default", "all"):
            raise ValueError(f"{name} is {value!r}; it must be default or all.")
    if families == "all" and data is None:
        raise ValueError("the published families are read from files, and --data names no folder; give one.")
    if n < 2:
        raise ValueError(f"n is {n}; a family has at least 2 items.")
