"""Sizes at which an edit moves what the model says next by so many nats."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from saereason.saes import SAE

from .directions import AddVector
from .interventions import Intervention
from .kl import Divergence
from .on_features import Add

QUADRATIC, FAR = 1e-2, 3.0
"""Up to how many nats KL grows as the squared size, and by what factor a size may then differ from Fisher's."""


def at_kl(
    divergence: Divergence,
    saes: Mapping[int, SAE] | None,
    sized: Callable[[float], Intervention],
    target: float,
    *,
    start: float | None = None,
    tolerance: float = 0.1,
    most: int = 12,
) -> tuple[Intervention, float]:
    """An intervention of the size at which its mean KL is within `tolerance` of the target, and that KL as measured.

    Secant steps in logarithms from `start`, the best of `most` tries; where no size gets there, the nearest, so look at
    the KL. Without a start it is `fisher_size`, which is for what adds. Raises ValueError unless target and start are
    positive, for a target that rounding hides (`Divergence.least`; at most about 0.01 nats in bfloat16), and for a
    small one that what adds seems to reach at a size far from Fisher's.
    """
    if not 0 < target < math.inf or not (start is None or 0 < start < math.inf):
        raise ValueError(f"the target is {target} nats and the first size {start}; both must be positive and finite.")
    if most < 1:
        raise ValueError(f"most is {most}; at least 1 size must be tried.")
    one = sized(1.0)
    _check_above_rounding(divergence, saes, one, target)
    known = start is None or (adds(one) and target <= QUADRATIC)
    fisher = fisher_size(divergence, saes, one, target) if known else math.nan
    tried: list[tuple[float, float]] = []
    size = fisher if start is None else start
    for _ in range(most):
        tried.append((size, float(divergence(saes, sized(size)).mean())))
        if abs(tried[-1][1] / target - 1) <= tolerance:
            break
        size = math.exp(_next([(math.log(s), _log(kl)) for s, kl in tried], math.log(target)))
    size, kl = min(tried, key=lambda pair: abs(_log(pair[1]) - math.log(target)))
    if target <= QUADRATIC and abs(math.log(size / fisher)) > math.log(FAR) and abs(kl / target - 1) <= tolerance:
        raise ValueError(
            f"{sized(size)} was measured to move the next token by {kl:.3g} nats and the derivative says that takes a "
            f"size {fisher / size:.3g} times that; load the model in float32, or ask for more nats."
        )
    return sized(size), kl


def fisher_size(
    divergence: Divergence, saes: Mapping[int, SAE] | None, intervention: Intervention, target: float
) -> float:
    """By what to multiply an additive intervention for a mean KL of `target` nats: `√(2 · target / mean Var_p(Jv))`.

    To second order in the size. Raises ValueError for an intervention that does not add or does not fit, for a target
    that is not positive, and where no size would do.
    """
    _check_adds(intervention, target)
    variance = float(divergence.fisher(saes, intervention).mean())
    if not variance > 0:
        raise ValueError(f"{intervention} does not move what the model says next; there is no size for it.")
    return math.sqrt(2 * target / variance)


def asc_size(
    divergence: Divergence,
    saes: Mapping[int, SAE] | None,
    intervention: Intervention,
    target: float,
    *,
    step: float = 1.0,
) -> float:
    """ASC's bound, for comparison: the size s at which `¼(a·s + ½L·s²)²` is the target (arXiv 2507.04742).

    That is `(√(a² + 4L√target) − a) / L`; `a = ‖Jv‖` and L, the curvature over a `step` of the size, are means over the
    prompts. It takes norms over the whole vocabulary where KL weighs tokens by probability, so it allows far less than
    the target. Raises ValueError as `fisher_size`.
    """
    _check_adds(intervention, target)
    speeds, curves = divergence.curvature(saes, intervention, step=step)
    a, bend = float(speeds.mean()), float(curves.mean())
    if not a > 0:
        raise ValueError(f"{intervention} does not move what the model says next; there is no size for it.")
    if bend == 0:
        return 2 * math.sqrt(target) / a
    return (math.sqrt(a * a + 4 * bend * math.sqrt(target)) - a) / bend


def adds(intervention: Intervention) -> bool:
    """True for what adds the same vector whatever is there."""
    return isinstance(intervention, Add | AddVector) and not intervention.keep_norm


def _check_adds(intervention: Intervention, target: float) -> None:
    if not adds(intervention):
        raise ValueError(f"{intervention} does not add; give an Add or an AddVector, or a first size for `at_kl`.")
    if not 0 < target < math.inf:
        raise ValueError(f"the target is {target} nats; it must be positive and finite.")


def _check_above_rounding(
    divergence: Divergence, saes: Mapping[int, SAE] | None, intervention: Intervention, target: float
) -> None:
    least, dtype = divergence.least(saes, intervention), divergence.model.dtype
    if target < least:
        finer = "load the model in float32, or " if torch.finfo(dtype).eps > torch.finfo(torch.float32).eps else ""
        raise ValueError(
            f"the target is {target:g} nats and rounding in {str(dtype).removeprefix('torch.')} hides what is below "
            f"{least:.2g} nats there; {finer}ask for more."
        )


def _log(kl: float) -> float:
    """Of a KL, which rounding may make zero or less."""
    return math.log(max(kl, 1e-12))


def _next(tried: Sequence[tuple[float, float]], wanted: float) -> float:
    """Where to try next, in logarithms; between the nearest on either side once there are both."""
    size, kl = tried[-1]
    slope = 2.0
    if len(tried) > 1 and tried[-2][0] != size:
        slope = min(max((kl - tried[-2][1]) / (size - tried[-2][0]), 0.5), 8.0)
    guess = size + min(max((wanted - kl) / slope, -3.0), 3.0)
    below = max((s for s, k in tried if k < wanted), default=-math.inf)
    above = min((s for s, k in tried if k > wanted), default=math.inf)
    if below < above and not below < guess < above:
        return (below + above) / 2 if math.isfinite(below + above) else guess
    return guess
