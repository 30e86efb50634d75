"""Find features, and try to prove them wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .rows import Rows
from .shell import (
    BEHAVIOURS,
    PACKS,
    Adapter,
    Cot,
    Direct,
    Gguf,
    Json,
    ModelName,
    Out,
    Saes,
    Seed,
    SomeLayers,
    TaskFile,
    check_own,
    numbers,
    one_of,
    plain_errors,
)

COLUMNS = ("difference", "studentised", "mean_on", "mean_off", "rate_on", "rate_off")


def search(
    saes: Saes,
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    task: TaskFile = None,
    direct: Direct = None,
    cot: Cot = None,
    n: Annotated[int, typer.Option(help="Problems to search on.")] = 96,
    top: Annotated[int, typer.Option(help="Features to show.")] = 15,
    path: Annotated[Path | None, typer.Option("--out", help="Where to write the whole table as Parquet.")] = None,
    as_json: Json = False,
) -> None:
    """Rank every feature by its paired difference between the CoT and the direct prompt of the same problem."""
    with plain_errors(as_json) as show:
        from saereason.examples import Examples
        from saereason.loading import load_model
        from saereason.progress import steps
        from saereason.saes import saes_of
        from saereason.search import search as score
        from saereason.tasks import discovery_task

        if path is not None and path.is_dir():
            raise ValueError(f"{path} is a folder; give the name of a Parquet file.")
        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = saes_of(saes, device=lm.device)
        problems = discovery_task(task, n=n, direct=direct, cot=cot)
        pairs = Examples.pair(lm, problems.prompts(lm, problems.cot), problems.prompts(lm, problems.direct))
        with steps() as bars, bars.step("search all features") as bar:
            table = score(lm, loaded, pairs, progress=bar)
        if path is not None:
            table.save(path)
        best = table.top(top, "studentised")
        rows = [(f, *(float(best[c][i]) for c in COLUMNS)) for i, f in enumerate(best)]
        found = Rows(("feature", *COLUMNS), rows, f"{len(table)} features, {len(problems)} pairs of prompts")
        show({"n_features": len(table), "n_pairs": len(problems), "table": path, "features": found}, found)


def challenge(
    behaviour: Annotated[str, typer.Argument(help="cot-mode or step-words.", autocompletion=one_of(BEHAVIOURS))],
    saes: Saes = "smollm2-135m",
    layers: SomeLayers = None,
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    others: Annotated[
        list[str] | None,
        typer.Option(help="SAEs of another seed; may be given again.", autocompletion=one_of(PACKS)),
    ] = None,
    frozen: Annotated[str | None, typer.Option(help="SAEs whose decoder was never trained.")] = None,
    top: Annotated[int, typer.Option(help="Features that each score proposes.")] = 3,
    n: Annotated[int | None, typer.Option(help="Prompts to confirm on: 100 of cot-mode, 60 of step-words.")] = None,
    draws: Annotated[int, typer.Option(help="Random controls of each kind.")] = 10,
    tokens: Annotated[int | None, typer.Option(help="Longest answer in cot-mode: 96.")] = None,
    seed: Seed = 0,
    folder: Out = Path("runs/challenge"),
    as_json: Json = False,
) -> None:
    """Let every score propose features for a behaviour, and try to prove each one wrong."""
    with plain_errors(as_json) as show:
        from saereason.controls import Rivals
        from saereason.controls.ladder import verdict_rows
        from saereason.loading import load_model
        from saereason.progress import steps
        from saereason.runs import Run, claimed
        from saereason.saes import saes_of
        from saereason.study import EXPLORED, run_study

        _check(behaviour, tokens, draws, folder)
        lm = load_model(model, adapter=adapter, gguf=gguf)
        chosen = _at(saes_of(saes, device=lm.device), layers, saes)
        rivals = Rivals(
            tuple(saes_of(path, device=lm.device) for path in others or ()),
            saes_of(frozen, device=lm.device) if frozen else None,
        )
        with claimed(folder), steps() as bars:
            made, run = _behaviour(lm, behaviour, n, tokens, seed), Run.open(folder)
            study = run_study(lm, chosen, made, run, bars, n_per_score=top, n_draws=draws, rivals=rivals, seed=seed)
        verdicts = sorted(study.verdicts, key=lambda verdict: -verdict.height)
        report, explored = folder / "report.html", folder / EXPLORED
        rungs = [{**row, "details": json.loads(row["details"])} for row in verdict_rows(verdicts)]
        said, left_out = [str(verdict) for verdict in verdicts], study.proposals.left_out
        found = {"behaviour": made.name, "verdicts": said, "rungs": rungs, "left_out": left_out, "report": report}
        show({**found, "explorer": explored}, *(f"- {sentence}" for sentence in said), report, explored)


def _check(behaviour: str, tokens: int | None, draws: int, folder: Path) -> None:
    from saereason.controls.ladder import check_draws

    check_own(folder, "challenge")
    if behaviour not in BEHAVIOURS:
        raise ValueError(f"no behaviour {behaviour!r}; there are {' and '.join(BEHAVIOURS)}.")
    if behaviour == "step-words" and tokens is not None:
        raise ValueError(f"tokens are {tokens} and nothing is written for step-words; leave --tokens out.")
    check_draws(draws)


def _at(loaded: Mapping[int, Any], layers: str | None, name: str) -> dict[int, Any]:
    """The SAEs of the layers that are asked for."""
    wanted = numbers(layers, "layers") if layers else tuple(loaded)
    missing = [layer for layer in wanted if layer not in loaded]
    if missing:
        raise ValueError(f"no SAE at layer {missing[0]}; {name} has layers {sorted(loaded)}.")
    return {layer: loaded[layer] for layer in wanted}


def _behaviour(lm: Any, name: str, n: int | None, tokens: int | None, seed: int) -> Any:
    from saereason.behaviours import cot_mode, step_words

    given = {"n_confirmation": n, "max_new_tokens": tokens}
    given = {key: value for key, value in given.items() if value is not None}
    return cot_mode(lm, seed=seed, **given) if name == "cot-mode" else step_words(lm, **given)
