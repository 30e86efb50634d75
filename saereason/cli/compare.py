"""Mechanisms side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .rows import Rows
from .shell import SUITES, Json, ModelName, Out, Show, check_own, one_of, plain_errors

if TYPE_CHECKING:
    from saereason.model import Model
    from saereason.saes import SAE
    from saereason.study.suite import Compared, Sizes


def compare(
    suite: Annotated[
        str,
        typer.Option(
            help="`demo`, or `quick`: a look at how it works, not at what it finds.", autocompletion=one_of(SUITES)
        ),
    ] = "demo",
    model: ModelName = "smollm2-135m",
    adapter: Annotated[str, typer.Option(help="A PEFT folder, or `taught`: the sibling that is compared as well.")] = (
        "taught"
    ),
    saes: Annotated[str, typer.Option(help="SAEs of the model, named as elsewhere.")] = "smollm2-135m",
    n: Annotated[int | None, typer.Option(help="Items of each task.")] = None,
    folder: Out = Path("runs/compare"),
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Every way of making a model reason, on it and on a sibling with an adapter: do they find the same switch?"""
    with plain_errors(as_json) as show:
        import sys

        from saereason.executors import describe
        from saereason.loading import load_model
        from saereason.progress import steps
        from saereason.runs import Run, claimed
        from saereason.saes import check_saes, saes_of
        from saereason.study.suite import Ground, run_suite

        check_own(folder, "compare")
        sizes = _sizes(suite, n)

        def fresh(adapted: str | None = None) -> "tuple[Model, Mapping[int, SAE]]":
            found = load_model(model, adapter=adapted)
            return found, saes_of(saes, device=found.device)

        base, of_base = fresh()
        check_saes(base, of_base)
        changed = load_model(model, adapter=adapter)
        with claimed(folder), steps() as bars:
            run = Run.open(folder)
            run.write_manifest(
                command=sys.argv, models=[base.hash, changed.hash], sizes=describe(sizes), seed=seed, suite=suite
            )
            same = (run, bars, sizes, seed)

            grounds = [
                Ground(Path(adapter).name, *fresh(adapter), *same),
                Ground("base", base, of_base, *same, changed),
            ]
            again = Ground("base", *fresh(), *same, load_model(model, adapter=adapter))
            found = run_suite(grounds, [again])
        _show(show, found, suite, sizes.n, folder)


def _sizes(suite: str, n: int | None) -> "Sizes":
    from dataclasses import replace

    from saereason.study.suite import QUICK, Sizes

    suites = {"demo": Sizes(), "quick": QUICK}
    if suite not in suites:
        raise ValueError(f"no suite {suite!r}; there are {', '.join(suites)}.")
    return suites[suite] if n is None else replace(suites[suite], n=n)


def _show(show: Show, found: "Sequence[Compared]", suite: str, n: int, folder: Path) -> None:
    """The answers of every model as a table, and what they say together."""
    from saereason.study.suite import answer_table, verdict

    tables = {each.ground.name: each.comparison.summary() for each in found}
    parts = []
    for each in found:
        name = each.ground.name
        told = answer_table(each, tables[name].set_index(["mechanism", "task"]))
        parts.append(Rows(told.header, list(told.rows), f"{name}: {n} items of each task"))
    files = {"summary": folder / "summary.json", "report": folder / "report.html"}
    said = {"suite": suite, "n": n, "verdict": verdict(found), "models": tables, "files": files}
    show(said, *parts, said["verdict"], *files.values())
