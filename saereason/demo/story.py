"""The demo, step by step: load, train, search, steer, layers, report. What the run already holds is not done again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saereason.executors import describe, inline, work_unit
from saereason.hooks import check_layers
from saereason.layers import Curve, compare_depth, localise
from saereason.loading import load_model
from saereason.mechanisms.exam import capitals
from saereason.model import Model
from saereason.progress import Steps, steps
from saereason.quality import Quality, evaluate_saes
from saereason.runs import Run, claimed, write_json
from saereason.saes import SAE, hashes, load_saes, save_saes
from saereason.training import Design, Log, train_saes

from .arms import measure_arms
from .choose import choose, find
from .material import Splits, families, splits, training_rows
from .settings import Settings
from .stage import Stage
from .summary import Results, summarise
from .write import HEADER, accuracy_rows, write_page


@dataclass(frozen=True)
class Told:
    """What the demo leaves: the content of `summary.json`, and the table of arms."""

    summary: dict[str, Any]
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def run_demo(settings: Settings = Settings(), *, command: Sequence[str] = ()) -> Told:
    """Tell the whole story on one model, into `summary.json` and `report.html`.

    Everything lands in `settings.out`; a second run goes on from what is there.
    """
    parts = splits(settings)
    run = Run.open(settings.out)
    with claimed(run.folder), steps() as bars:
        model, known = _load(run, settings, parts, bars)
        saes = _train(run, settings, parts, model, bars)
        stage = Stage(settings, run, bars, model, saes)
        qualities = _evaluate(stage, parts)
        table, directions = find(stage, parts.discovery, qualities)
        choice = choose(stage, parts.discovery, table, directions)
        arms = measure_arms(stage, parts.discovery, parts.confirmation, choice)
        curves = _layers(stage, parts)
        results = Results(
            parts=parts,
            known=known,
            qualities=qualities,
            choice=choice,
            arms=arms,
            curves=curves,
            finding=compare_depth(curves[0], curves[1]),
            without_vital=compare_depth(curves[0], curves[1], neutral=curves[2]),
        )
        run.write_manifest(
            command=command,
            model={"name": model.name, "adapter": model.adapter, "hash": model.hash, "dtype": str(model.dtype)},
            saes=dict(stage.hashes),
            seeds={"demo": settings.seed},
            settings=describe(settings),
            discovery=[item.id for item in parts.discovery.items],
            confirmation=[item.id for item in parts.confirmation.items],
            rendered=describe(parts.confirmation.prompts(model, parts.confirmation.direct)[0]),
        )
        with bars.step("write the report"):
            summary = summarise(stage, results)
            write_page(stage, results, summary)
    return Told(summary, HEADER, list(accuracy_rows(results)))


def _load(run: Run, settings: Settings, parts: Splits, bars: Steps) -> tuple[Model, list[Any]]:
    """The model under study, and what it and (where there is an adapter) its base know of capitals."""
    with bars.step("load the model"):
        model = load_model(settings.model, adapter=settings.adapter, gguf=settings.gguf)
        _check(model, settings, parts)
        base = load_model(settings.model, gguf=settings.gguf) if settings.adapter else None
    known = []
    for each in [base, model] if base is not None else [model]:
        with bars.step("ask every capital") as show:
            [(_, table)] = inline(run, [work_unit(each, "capitals")], lambda unit, m=each, s=show: capitals(m, s))
            known.append(table)
    return model, known


def _check(model: Model, settings: Settings, parts: Splits) -> None:
    """Raises ValueError before any work is done for layers that are not there and questions that are too long."""
    check_layers(model, settings.layers)
    for task in (parts.discovery, parts.confirmation):
        for instruction in (task.direct, task.cot):
            for item, prompt in zip(task.items, task.prompts(model, instruction), strict=True):
                gold = len(model.encode(item.solution or item.answer))
                n = len(model.encode(prompt)) + max(settings.sizes.max_new_tokens, gold)
                if n > model.n_ctx:
                    raise ValueError(
                        f"item {item.id} of {task.name} may take {n} tokens with its answer; the context of "
                        f"{model.name} is {model.n_ctx}. Shorten it or leave it out."
                    )


def _train(run: Run, settings: Settings, parts: Splits, model: Model, bars: Steps) -> dict[int, SAE]:
    """SAEs on several layers in one pass, or those that the same work has left in the run."""
    folder, sizes = run.folder / "saes", settings.sizes
    with bars.step("train SAEs") as show:
        rows, _ = training_rows(model, settings, parts.discovery)
        design = Design(d_sae=sizes.d_sae, k=sizes.k, seed=settings.seed)
        unit = work_unit(model, "saes", rows=rows, layers=settings.layers, design=design)
        made = run.folder / "saes.json"
        if made.is_file() and folder.is_dir():
            there, saes = json.loads(made.read_text(encoding="utf8")), load_saes(folder, device=model.device)
            if there == {"id": unit.id, "hashes": describe(hashes(saes))}:
                return saes

        def progress(log: Log) -> None:
            show(log.tokens, log.n_tokens)

        checkpoint = run.folder / f"saes-{unit.id}.checkpoint.safetensors"
        saes = train_saes(model, rows, settings.layers, design, checkpoint=checkpoint, progress=progress)
        made.unlink(missing_ok=True)
        save_saes(saes, folder)
        checkpoint.unlink(missing_ok=True)
        saes = load_saes(folder, device=model.device)
        write_json(made, {"id": unit.id, "hashes": describe(hashes(saes))})
        return saes


def _evaluate(stage: Stage, parts: Splits) -> list[Quality]:
    """Quality on rows the SAEs were not trained on."""
    with stage.steps.step("evaluate SAEs") as show:
        _, rows = training_rows(stage.model, stage.settings, parts.discovery)

        def compute() -> list[dict[str, Any]]:
            found = evaluate_saes(stage.model, stage.saes, rows, progress=show)
            return [{**vars(quality), "firing_rate": quality.firing_rate.tolist()} for quality in found]

        table = stage.table("quality", compute, rows=rows)
    records = table.to_dict("records")
    return [Quality(**{**record, "firing_rate": np.asarray(record["firing_rate"])}) for record in records]


def _layers(stage: Stage, parts: Splits) -> list[Curve]:
    with stage.steps.step("skip every layer in turn") as show:
        kinds = families(stage.model, stage.settings, parts.confirmation)
        return localise(stage.model, None, kinds, run=stage.run, progress=show)
