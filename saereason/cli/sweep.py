"""Many doses, planned in a file."""

from pathlib import Path
from typing import Annotated

import typer

from .shell import Out, check_own, out, plain_errors, show_table


def sweep(
    plan: Annotated[Path, typer.Argument(help="A YAML file of settings, such as docs/dose.yaml.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="A setting and its value, such as n=50; may be given again.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Print the work units and how long they might take, and stop.")] = False,
    folder: Out = Path("runs/sweep"),
) -> None:
    """Answer a task under every dose of a plan, and plot what each does and the damage beside it."""
    with plain_errors():
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
        run = Run.open(folder) if folder.exists() or not dry_run else None
        if dry_run:
            units = planned.units(run)
            rows = [(u.arm, u.work, u.unit, "done" if u.done else "to do") for u in units.itertuples()]
            left = int((~units["done"]).sum())
            show_table(("arm", "work", "unit", ""), rows, f"{len(rows)} work units, {left} to do")
            told = (
                f"at most about {planned.seconds(units) / 60:.1f} minutes on this machine" if left else "nothing to do"
            )
            out.print(f"{len(planned.trial)} items an arm; {told}.", highlight=False)
            return
        with claimed(folder), steps() as bars:
            Run.open(folder).write_manifest(command=sys.argv, plan=asdict(wanted), model=model.hash)
            found = planned.run(Run.open(folder), bars)
        show_table(SHORT_HEADER, short_rows(found), f"{len(planned.trial)} items an arm")
        out.print(folder / "report.html", highlight=False)
