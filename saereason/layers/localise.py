"""What each layer contributes to a family of items: the causal battery."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from saereason.executors import WorkUnit, inline, work_unit
from saereason.hooks import check_layers
from saereason.metrics import LogProb
from saereason.model import Model
from saereason.runs import Run
from saereason.saes import SAE
from saereason.tasks.task import Kind

from .operators import Operator, SkipBlock


@dataclass(frozen=True, eq=False)
class Family:
    """Items of one kind, and what of them is scored."""

    name: str
    kind: Kind
    metric: LogProb
    numeric: tuple[bool, ...] = ()
    """Of each item, whether what is scored is a number; empty where nobody looked."""

    def __post_init__(self) -> None:
        if len(self.numeric) not in (0, len(self.metric)):
            raise ValueError(f"numeric has {len(self.numeric)} values for {len(self.metric)} items; give one for each.")


class UnsuitedError(ValueError):
    """A family has not what a measurement needs; others may."""


@dataclass(frozen=True, eq=False)
class Curve:
    """What one operator costs one family, layer by layer and item by item."""

    family: str
    kind: Kind
    operator: str
    layers: tuple[int, ...]
    n_layers: int

    drop: Float[np.ndarray, "item layer"]
    """Clean metric less the metric with the layer changed: positive where the layer helps."""

    clean: Float[np.ndarray, "item"]
    unit: str = "log-probability, nats per token"
    """What the metric is counted in."""

    @property
    def depth(self) -> Float[np.ndarray, "layer"]:
        """`layer / (n_layers − 1)`, layers counted from 0."""
        return np.array(self.layers) / max(1, self.n_layers - 1)


def localise(
    model: Model,
    saes: Mapping[int, SAE] | None,
    families: Sequence[Family],
    operators: Sequence[Operator] = (SkipBlock(),),
    *,
    run: Run,
    layers: Sequence[int] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Curve]:
    """The curve of every family under every operator, operator by operator, at all layers where it can act.

    A changed layer leaves what is before it as it was, so a pass resumes from the clean residual stream, which is kept
    for one batch of items: memory, layers × tokens × `d_model`. One work unit an operator, family and batch: what the
    run holds is not computed again. Raises ValueError for layers that are not there, or are there twice, and for
    two families or operators of one name.
    """
    saes = saes or {}
    asked = [(operator, _layers(model, saes, operator, layers)) for operator in operators]
    for what, names in (("families", [f.name for f in families]), ("operators", [o.name for o in operators])):
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"the {what} are {names}; give at least one, each once.")
    total = sum(len(family.metric) * len(at) for _, at in asked for family in families)
    done, curves = 0, []
    for operator, at in asked:
        for family in families:
            battery = Battery(model, saes, family, operator, at)
            values = np.full((len(family.metric), len(at) + 1), np.nan)
            for rows, table in battery.parts(run):
                values[rows] = table.to_numpy(dtype=np.float64)
                done += len(rows) * len(at)
                progress(done, total)
            clean, edited = values[:, 0], values[:, 1:]
            drop = clean[:, None] - edited
            curves.append(Curve(family.name, family.kind, operator.name, at, model.n_layers, drop, clean))
    return curves


@dataclass(frozen=True, eq=False)
class Battery:
    """One operator on one family, batch by batch."""

    model: Model
    saes: Mapping[int, SAE]
    family: Family
    operator: Operator
    layers: tuple[int, ...]

    def parts(self, run: Run) -> Iterator[tuple[list[int], Any]]:
        """The items of each batch, and a table of their metric: clean, then with each layer changed."""
        batches = self.family.metric.batches()
        units = {self.unit(rows): rows for rows in batches}
        for unit, table in inline(run, units, lambda unit: self.compute(units[unit])):
            yield units[unit], table

    def unit(self, rows: Sequence[int]) -> WorkUnit:
        items = [self.family.metric.items[n] for n in rows]
        return work_unit(
            self.model,
            "layer",
            saes={layer: self.saes[layer] for layer in self.layers if layer in self.saes},
            family=self.family.name,
            items=[(item.prompt, item.continuation, item.scored) for item in items],
            operator=self.operator,
            layers=self.layers,
        )

    def compute(self, rows: Sequence[int]) -> list[dict[str, float]]:
        items = [self.family.metric.items[n] for n in rows]
        clean, changed = self.operator.measure(self.model, self.saes, items, self.layers)
        values = {"clean": clean, **{f"L{layer}": value for layer, value in changed.items()}}
        return [{name: float(value[n]) for name, value in values.items()} for n in range(len(items))]


def _layers(model: Model, saes: Mapping[int, SAE], operator: Operator, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The layers asked for at which the operator can act."""
    able = list(operator.layers(model, saes))
    asked = able if layers is None else list(layers)
    check_layers(model, asked)
    there = tuple(layer for layer in asked if layer in able)
    if not there or len(set(there)) < len(there):
        raise ValueError(
            f"layers are {asked} and {operator.name} can act at {able}; give at least one of these, each once."
        )
    return there
