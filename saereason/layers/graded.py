"""What changing each layer does to answers that the model writes itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from saereason.effects import Trial, right, share_of, sweep
from saereason.model import Model
from saereason.runs import Run
from saereason.saes import SAE
from saereason.tasks import Outcome
from saereason.tasks.task import Kind

from .localise import Curve
from .operators import ByIntervention

NO_ANSWER = (Outcome.UNPARSABLE, Outcome.TRUNCATED, Outcome.LOOPING)


@dataclass(frozen=True, eq=False)
class GradedCurve:
    """Right answers lost with each layer changed, and answers that are none."""

    curve: Curve
    """`drop` is 1 where an item was right and no longer is, −1 the other way round."""

    no_answer: Float[np.ndarray, "layer"]
    """Share of items that are unparsable, truncated or looping with the layer changed."""

    no_answer_clean: float


def graded(
    model: Model,
    saes: Mapping[int, SAE] | None,
    trial: Trial,
    operator: ByIntervention,
    *,
    name: str,
    kind: Kind,
    run: Run,
    layers: Sequence[int] | None = None,
    rows_at_once: int = 96,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> GradedCurve:
    """Greedy answers to a trial with each layer changed in turn, the whole answer long; layers share batches.

    Kept in the run as `sweep` keeps it.
    """
    saes = saes or {}
    asked = list(operator.layers(model, saes)) if layers is None else list(layers)
    arms = [operator.intervention(layer) for layer in asked]
    found = sweep(model, saes, trial, arms, run=run, rows_at_once=rows_at_once, progress=progress)
    clean, *changed = (found.of(arm) for arm in found.arms)
    was = right(clean).astype(np.float64)
    drop = np.stack([was - right(table) for table in changed], axis=1)
    told = f"{operator.name}, graded answers"
    curve = Curve(name, kind, told, tuple(asked), model.n_layers, drop, was, "share of right answers")
    shares = np.array([share_of(table, *NO_ANSWER) for table in changed])
    return GradedCurve(curve, shares, share_of(clean, *NO_ANSWER))
