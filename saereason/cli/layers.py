"""Where in depth families of items are served."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .rows import Rows
from .shell import (
    PACKS,
    Adapter,
    Gguf,
    Json,
    ModelName,
    Out,
    Seed,
    TaskFile,
    check_own,
    one_of,
    out,
    plain_errors,
)

CHOICES = ("default", "all")


def layers(
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    task: TaskFile = None,
    operators: Annotated[
        str,
        typer.Option(
            help="`default` (skip, gradient), `all`, or names with commas between, of operators and of what there is "
            "beside them (graded answers, patching, ...).",
            autocompletion=one_of(CHOICES),
        ),
    ] = "default",
    families: Annotated[
        str,
        typer.Option(
            help="`default` (one of each kind and plain text), `all`, or names of families with commas between; "
            "plain text is always there.",
            autocompletion=one_of(CHOICES),
        ),
    ] = "default",
    data: Annotated[
        Path | None,
        typer.Option(help="A folder with published benchmarks in their public formats, for families from there."),
    ] = None,
    saes: Annotated[
        str | None,
        typer.Option(help="SAEs, named as elsewhere, to splice in for `all`.", autocompletion=one_of(PACKS)),
    ] = None,
    n: Annotated[int, typer.Option(help="Items of a family.")] = 200,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print how long it might take, and stop.")] = False,
    folder: Out = Path("runs/layers"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Change every layer in turn, and say what that costs reasoning, knowledge and plain text, with intervals."""
    with plain_errors(as_json) as show:
        from saereason.loading import load_model
        from saereason.saes import saes_of
        from saereason.study import lab
        from saereason.study.lab.tables import finding_table
        from saereason.tasks import load_task
        from saereason.training import plain_texts

        check_own(folder, "layers")
        _check(families, data, n)
        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = saes_of(saes, device=lm.device) if saes else {}
        texts = [text for text in plain_texts() if lm.fits(text, spare=1)]
        own = load_task(task) if task is not None else None
        asked = lab.subjects_of(lm, texts, n, families, task=own, data=data, seed=seed)
        able = lab.battery(lm, loaded, texts, operators)
        parts = lab.parts_of(operators, loaded)
        show(_told(lm, loaded, asked, able, parts))
        if dry_run:
            return
        found = _found(lm, loaded, asked, able, parts, texts=texts, folder=folder, seed=seed)
        sentences, report = lab.sentences(found), folder / "report.html"
        table = Rows(lab.FINDING_HEADER, lab.finding_rows(found), f"{len(asked)} families")
        whole = {"sentences": sentences, "findings": finding_table(found), "report": report}
        show(whole, table, *(f"- {sentence}" for sentence in sentences), report)


def _told(
    lm: Any, loaded: Mapping[int, Any], asked: Sequence[Any], able: Sequence[Any], parts: Sequence[str]
) -> dict[str, Any]:
    """What is going to be done, and about how long that takes; said at once."""
    from saereason.study import lab

    counts = {subject.name: len(subject.family.metric) for subject in asked}
    out.print(f"Families: {', '.join(f'{name} ({n})' for name, n in counts.items())}.", markup=False, highlight=False)
    minutes = lab.estimate(lm, loaded, asked, able, parts) / 60
    operators = len(able) + (lab.FEATURE_OPERATORS if lab.FEATURES in parts else 0)
    named = ", ".join([*(operator.name for operator in able), *parts])
    out.print(
        f"Asked for: {named}. This takes about {minutes:.1f} minutes.", markup=False, highlight=False, soft_wrap=True
    )
    return {"families": counts, "operators": operators, "minutes": minutes}


def _found(
    lm: Any,
    loaded: Mapping[int, Any],
    asked: Sequence[Any],
    able: Sequence[Any],
    parts: Sequence[str],
    *,
    texts: Sequence[str],
    folder: Path,
    seed: int,
) -> Any:
    from saereason.progress import steps
    from saereason.runs import Run, claimed
    from saereason.study import lab

    with claimed(folder), steps() as bars:
        run = Run.open(folder)
        run.write_manifest(command=sys.argv, model=lm.hash, families=[subject.name for subject in asked])
        more = lab.feature_operators(lm, loaded, texts, bars, seed=seed) if lab.FEATURES in parts else []
        return lab.run_lab(lm, loaded, asked, [*able, *more], run, bars, parts)


def _check(families: str, data: Path | None, n: int) -> None:
    if families == "all" and data is None:
        raise ValueError(
            "families are 'all', of which the published ones are read from files, and --data names no folder; "
            "give one, or `--families default`."
        )
    if n < 2:
        raise ValueError(f"n is {n}; a family has at least 2 items.")
