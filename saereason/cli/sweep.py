"""Many doses, planned in a file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .rows import Rows
from .shell import Json, Out, Show, check_own, plain_errors


def sweep(
    plan: Annotated[Path, typer.Argument(help="A YAML file of settings, such as docs/dose.yaml.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="A setting and its value, such as n=50; may be given again.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the work units and how long they might take, and stop.")
    ] = False,
    folder: Out = Path("runs/sweep"),
    as_json: Json = False,
) -> None:
    """Answer a task under every dose of a plan, and plot what each does and the damage beside it."""
    with plain_errors(as_json) as show:
        import sys
        from dataclasses import asdict

        from saereason.progress import steps
        from saereason.runs import Run, claimed
        from saereason.saes import saes_of
        from saereason.study import Plan, Planned
        from saereason.study.dose import SHORT_HEADER, short_rows

        if not plan.is_file():
            raise ValueError(f"no file {plan}; give a YAML file with features and sizes.")
        check_own(folder, "sweep")
        wanted = Plan.read(plan, changes or ())
        model = wanted.load_model()
        planned = Planned.of(wanted, model, saes_of(wanted.saes, device=model.device))
        if dry_run:
            _tell(planned, Run.open(folder) if folder.exists() else None, show)
            return
        with claimed(folder), steps() as bars:
            Run.open(folder).write_manifest(command=sys.argv, plan=asdict(wanted), model=model.hash)
            found = planned.run(Run.open(folder), bars)
        n, report = len(planned.trial), folder / "report.html"
        rows = Rows(SHORT_HEADER, short_rows(found), f"{n} items an arm")
        show({"n": n, "arms": found.summary(), "report": report}, rows, report)


def _tell(planned: Any, run: Any, show: Show) -> None:
    """The work units, and how long what is left of them might take."""
    units, n = planned.units(run), len(planned.trial)
    rows = [(u.arm, u.work, u.unit, "done" if u.done else "to do") for u in units.itertuples()]
    left = int((~units["done"]).sum())
    minutes = planned.seconds(units) / 60 if left else 0.0
    told = f"at most about {minutes:.1f} minutes on this machine" if left else "nothing to do"
    table = Rows(("arm", "work", "unit", ""), rows, f"{len(rows)} work units, {left} to do")
    show({"n": n, "units": units, "left": left, "minutes": minutes}, table, f"{n} items an arm; {told}.")
