"""The effect of interventions on a metric."""

from collections.abc import Callable, Iterable, Mapping

from saereason.metrics import Effect, Metric
from saereason.model import Model
from saereason.saes import SAE
from saereason.steering import Intervention, steered


def measure(
    model: Model,
    saes: Mapping[int, SAE] | None,
    metric: Metric,
    interventions: Iterable[Intervention],
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Effect]:
    """The effect of each intervention on its own, against the model as it stands; the clean run is computed once."""
    clean = metric(model)
    effects = []
    for done, intervention in enumerate(interventions, 1):
        with steered(model, saes, intervention):
            effects.append(Effect(str(intervention), intervention.layer, clean, metric(model)))
        progress(done)
    return effects
