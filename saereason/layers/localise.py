"""What each layer contributes to a family of items: the causal battery."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from saereason.executors import WorkUnit, inline, work_unit
from saereason.hooks import check_layers
from saereason.metrics import Metric
from saereason.model import Model
from saereason.runs import Run
from saereason.saes import SAE
from saereason.steering import Intervention, ScaleBlock, steered
from saereason.tasks.task import Kind


@dataclass(frozen=True, eq=False)
class Family:
    """Items of one kind with the metric that is read from them."""

    name: str
    kind: Kind
    metric: Metric
    fingerprint: str
    """A text that decides the items and the metric; it names results on disk."""


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

    @property
    def depth(self) -> Float[np.ndarray, "layer"]:
        """`layer / (n_layers − 1)`, layers counted from 0."""
        return np.array(self.layers) / max(1, self.n_layers - 1)


@dataclass(frozen=True)
class SkipBlock:
    """The operator that skips the contribution of a block."""

    name: str = "skip block"

    def __call__(self, layer: int) -> Intervention:
        return ScaleBlock(layer, 0.0)


Operator = SkipBlock


def localise(
    model: Model,
    saes: Mapping[int, SAE] | None,
    families: Sequence[Family],
    *,
    run: Run,
    operator: Operator = SkipBlock(),
    layers: Sequence[int] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Curve]:
    """The curve of every family. One work unit a family and layer: what the run holds is not computed again.

    Raises ValueError for layers that are not there, or are there twice.
    """
    layers = tuple(layers if layers is not None else range(model.n_layers))
    check_layers(model, layers)
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers are {list(layers)}; give at least one, each once.")
    total = len(families) * (len(layers) + 1)
    curves = []
    for n, family in enumerate(families):
        rows = []
        for _, table in inline(run, _units(model, family, operator, layers), _compute(model, saes, family, operator)):
            rows.append(table["value"].to_numpy(dtype=np.float64))
            progress(n * (len(layers) + 1) + len(rows), total)
        clean, edited = rows[0], np.stack(rows[1:], axis=1)
        curves.append(
            Curve(family.name, family.kind, operator.name, layers, model.n_layers, clean[:, None] - edited, clean)
        )
    return curves


def _units(model: Model, family: Family, operator: Operator, layers: Sequence[int]) -> Iterator[WorkUnit]:
    for layer in (None, *layers):
        yield work_unit(
            model, "layer", family=family.name, items=family.fingerprint, operator=operator.name, layer=layer
        )


def _compute(model: Model, saes: Mapping[int, SAE] | None, family: Family, operator: Operator):
    def compute(unit: WorkUnit) -> list[dict[str, float]]:
        layer = unit.argument("layer")
        with steered(model, saes, *([operator(layer)] if layer is not None else [])):
            return [{"value": value} for value in family.metric(model).tolist()]

    return compute
