"""The effect of interventions on a metric."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from saereason.metrics import Metric
from saereason.model import Model
from saereason.saes import SAE
from saereason.steering import Intervention, steered


@dataclass(frozen=True, eq=False)
class Effect:
    """What one intervention does to a metric, item by item, in the metric's unit."""

    intervention: Intervention
    clean: Float[Tensor, "item"]
    edited: Float[Tensor, "item"]

    @property
    def delta(self) -> Float[Tensor, "item"]:
        """Edited less clean."""
        return self.edited - self.clean


def measure(
    model: Model,
    saes: Mapping[int, SAE] | None,
    metric: Metric,
    interventions: Iterable[Intervention],
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Effect]:
    """The effect of each intervention on its own, against the model as it stands; the clean run is computed once.

    Raises ValueError for an intervention that does not fit, and SilentEditError for one that never fired.
    """
    clean = metric(model)
    effects = []
    for done, intervention in enumerate(interventions, 1):
        with steered(model, saes, intervention):
            effects.append(Effect(intervention, clean, metric(model)))
        progress(done)
    return effects
