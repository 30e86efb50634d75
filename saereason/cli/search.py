"""Find features, and try to prove them wrong."""

from pathlib import Path
from typing import Annotated

import typer

from .shell import (
    Adapter,
    Gguf,
    Layers,
    ModelName,
    Out,
    Saes,
    TaskFile,
    check_own,
    numbers,
    out,
    plain_errors,
    show_table,
)


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
        from saereason.saes import saes_of
        from saereason.search import search as score
        from saereason.tasks import discovery_task

        if folder is not None and folder.is_dir():
            raise ValueError(f"{folder} is a folder; give the name of a Parquet file.")
        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = saes_of(saes, device=lm.device)
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


def challenge(
    behaviour: Annotated[str, typer.Argument(help="cot-mode or step-words.")],
    saes: Saes = "smollm2-135m",
    layers: Layers | None = None,
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    others: Annotated[list[str] | None, typer.Option(help="SAEs of another seed; may be given again.")] = None,
    frozen: Annotated[str | None, typer.Option(help="SAEs whose decoder was never trained.")] = None,
    top: Annotated[int, typer.Option(help="Features that each score proposes.")] = 3,
    n: Annotated[int | None, typer.Option(help="Prompts to confirm on: 100 of cot-mode, 60 of step-words.")] = None,
    draws: Annotated[int, typer.Option(help="Random controls of each kind.")] = 10,
    tokens: Annotated[int | None, typer.Option(help="Longest answer in cot-mode: 96.")] = None,
    seed: int = 0,
    folder: Out = Path("runs/challenge"),
) -> None:
    """Let every score propose features for a behaviour, and try to prove each one wrong."""
    with plain_errors():
        from saereason.behaviours import cot_mode, step_words
        from saereason.controls import Rivals
        from saereason.controls.ladder import check_draws
        from saereason.loading import load_model
        from saereason.progress import steps
        from saereason.runs import Run, claimed
        from saereason.saes import saes_of
        from saereason.study import run_study

        check_own(folder, "challenge")
        if behaviour not in ("cot-mode", "step-words"):
            raise ValueError(f"no behaviour {behaviour!r}; there are cot-mode and step-words.")
        if behaviour == "step-words" and tokens is not None:
            raise ValueError(f"tokens are {tokens} and nothing is written for step-words; leave --tokens out.")
        check_draws(draws)
        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = saes_of(saes, device=lm.device)
        wanted = numbers(layers, "layers") if layers else tuple(loaded)
        missing = [layer for layer in wanted if layer not in loaded]
        if missing:
            raise ValueError(f"no SAE at layer {missing[0]}; {saes} has layers {sorted(loaded)}.")
        chosen = {layer: loaded[layer] for layer in wanted}
        rivals = Rivals(tuple(saes_of(path) for path in others or ()), saes_of(frozen) if frozen else None)
        with claimed(folder), steps() as bars:
            given = {"n_confirmation": n, "max_new_tokens": tokens}
            given = {name: value for name, value in given.items() if value is not None}
            made = cot_mode(lm, seed=seed, **given) if behaviour == "cot-mode" else step_words(lm, **given)
            study = run_study(
                lm, chosen, made, Run.open(folder), bars, n_per_score=top, n_draws=draws, rivals=rivals, seed=seed
            )
        for verdict in sorted(study.verdicts, key=lambda verdict: -verdict.height):
            out.print(f"- {verdict}", markup=False, highlight=False, soft_wrap=True)
        out.print(folder / "report.html", highlight=False)
