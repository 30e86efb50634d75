"""Choose one feature and one coefficient, on the discovery split alone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from saereason.examples import Examples
from saereason.features import Feature, FeatureTable
from saereason.generate import generate
from saereason.metrics import LogProb, Scored
from saereason.prefixes import Prefixes
from saereason.quality import Quality
from saereason.search import add_max_t, diff_mean, search
from saereason.steering import Add, LastPromptToken, steered
from saereason.tasks import Task

from .stage import Stage


@dataclass(frozen=True, eq=False)
class Choice:
    """The chosen edit and how it was come by."""

    feature: Feature
    coefficient: float
    direction: Float[Tensor, "d_model"]
    """DiffMean at the feature's layer."""

    gain: float
    """Mean log-probability of the CoT continuation after the direct prompt, nats a token, gained on discovery."""

    n_tried: int
    n_features: int
    tried: Any
    """A pandas table of every candidate and coefficient, best first."""

    table: FeatureTable

    @property
    def intervention(self) -> Add:
        return Add(self.feature, self.coefficient, LastPromptToken())


def find(stage: Stage, discovery: Task, qualities: list[Quality]) -> tuple[FeatureTable, dict[int, Tensor]]:
    """Every feature with its paired difference, adjusted p and firing rate; and DiffMean by layer."""
    model, block = stage.model, stage.run.folder / "block"
    examples = Examples.pair(model, discovery.prompts(model, discovery.cot), discovery.prompts(model, discovery.direct))
    with stage.steps.step("search all features") as show:

        def compute() -> list[dict[str, Any]]:
            found = add_max_t(search(model, stage.saes, examples, block=block, progress=show), block)
            rates = np.concatenate([q.firing_rate for q in qualities])
            return found.with_column("firing_rate", rates).to_pandas().to_dict("records")

        frame = stage.table("search", compute, discovery=discovery)
        directions = diff_mean(model, examples, sorted(stage.saes))
    table = FeatureTable({str(name): frame[name].to_numpy() for name in frame.columns})
    table.save(stage.run.folder / "features.parquet")
    return table, directions


def choose(stage: Stage, discovery: Task, table: FeatureTable, directions: dict[int, Tensor]) -> Choice:
    """Try the best-ranked features of every layer at a few coefficients, once at the last prompt token."""
    sizes = stage.settings.sizes
    scored = discovery.take(sizes.n_scored)
    with stage.steps.step("choose feature and coefficient") as show:
        metric = _continuation(stage, scored)
        candidates = [
            Add(feature, multiple * directions[feature.layer].norm().item(), LastPromptToken())
            for layer in sorted(stage.saes)
            for feature in _ranked(table.at(layer)).top(sizes.n_per_layer, "studentised")
            for multiple in sizes.multiples
        ]
        clean = _score(stage, metric, scored, None)
        rows = []
        for done, edit in enumerate(candidates, 1):
            gain = _score(stage, metric, scored, edit) - clean
            rows.append({"feature": str(edit.feature), "coefficient": edit.coefficient, "gain": gain})
            show(done, len(candidates))
    if not rows:
        raise ValueError("no feature is more active under the CoT prompt than under the direct one; try other layers.")
    import pandas as pd

    tried = pd.DataFrame(rows).sort_values("gain", ascending=False, ignore_index=True)
    first = tried.to_dict("records")[0]
    best = Feature.parse(first["feature"])
    return Choice(
        feature=best,
        coefficient=first["coefficient"],
        direction=directions[best.layer],
        gain=first["gain"],
        n_tried=len(tried),
        n_features=len(table),
        tried=tried,
        table=table,
    )


def _ranked(table: FeatureTable) -> FeatureTable:
    return table.where(table["difference"] > 0)


def _continuation(stage: Stage, task: Task) -> LogProb:
    """The model's own answers to the CoT prompt, to be scored after the direct prompt of the same problem."""
    model, size = stage.model, stage.settings.sizes.max_new_tokens

    def compute() -> list[dict[str, Any]]:
        written = generate(model, task.prompts(model, task.cot), max_new_tokens=size, batch_size=50)
        return [{"tokens": list(tokens)} for tokens in written.tokens]

    continuations = stage.table("continuation", compute, task=task, tokens=size)["tokens"]
    items = [
        Scored(tuple(model.encode(prompt)), tuple(int(t) for t in tokens), (True,) * len(tokens))
        for prompt, tokens in zip(task.prompts(model, task.direct), continuations, strict=True)
        if len(tokens)
    ]
    if not items:
        raise ValueError(f"{model.name} answers the CoT prompt with nothing at all; give another instruction or model.")
    return LogProb(tuple(items), prefixes=Prefixes())


def _score(stage: Stage, metric: LogProb, task: Task, edit: Add | None) -> float:
    def compute() -> list[dict[str, Any]]:
        with steered(stage.model, stage.saes, *([edit] if edit else [])):
            return [{"value": value} for value in metric(stage.model).tolist()]

    size = stage.settings.sizes.max_new_tokens
    return float(np.mean(stage.table("candidate", compute, task=task, edit=edit, tokens=size)["value"].to_numpy()))
