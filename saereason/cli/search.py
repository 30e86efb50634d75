"""Find features, and try to prove them wrong."""

from pathlib import Path
from typing import Annotated

import typer

from .shell import Adapter, Gguf, ModelName, Saes, TaskFile, plain_errors, show_table


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
    with plain_errors():
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
        show_table(("feature", *columns), rows, f"{len(table)} features, {len(problems)} pairs of prompts")
