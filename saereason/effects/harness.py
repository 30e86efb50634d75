"""A model under interventions as EleutherAI's lm-evaluation-harness wants it."""

from collections.abc import Mapping, Sequence
from typing import Any

from saereason.model import Model
from saereason.saes import SAE
from saereason.steering import Intervention


def harness_model(
    model: Model,
    saes: Mapping[int, SAE] | None = None,
    interventions: Sequence[Intervention] = (),
    *,
    batch_size: int = 32,
    seed: int = 0,
) -> Any:
    """An `lm_eval.api.model.LM` for `lm_eval.simple_evaluate`, which runs the model with interventions in force.

    A request's context is the prompt, and what is scored or written after it is generated, for every `when`. Sampling
    is saereason's, by `seed`. Results name the interventions and the model's hash. lm_eval's own cache (`use_cache`)
    knows neither: give each set of interventions a file of its own.

    Raises ValueError where lm_eval is not there, and for interventions that differ by row. A run raises ValueError for
    a request that does not fit the model's context (nothing is cut off) and for settings of generation that saereason
    lacks, and SilentEditError for an intervention that never fired in the requests of one kind.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1.")
    apart = next((each for each in interventions if each.by_row), None)
    if apart is not None:
        raise ValueError(
            f"{apart} differs by row and the harness puts requests into rows as it likes; give an intervention that is "
            "the same in all rows."
        )
    try:
        import lm_eval  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError("lm_eval is not there; install it with `pip install 'lm-eval>=0.4.13'`.") from error
    from .harness_lm import HarnessLM

    return HarnessLM(model, saes, tuple(interventions), batch_size=batch_size, seed=seed)
