"""How much a feature goes with a behaviour: pure functions of sums over prompts or tokens, or of one value a prompt."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .moments import Moments
from .pooled import TokenSums

TINY = torch.finfo(torch.float64).tiny


def cohens_d(on: Moments, off: Moments) -> Float[Tensor, "d_sae"]:
    """Difference of means over the pooled standard deviation, which Ma et al. (arXiv 2601.05679) rank features by.

    0 where nothing varies and the means are equal; a deviation counts as at least 1e-9 of the difference.
    """
    difference = on.mean - off.mean
    freedom = on.count + off.count - 2
    if freedom < 1:
        raise ValueError(f"{on.count} prompts on and {off.count} off have no spread; give at least three in all.")
    pooled = ((on.deviations + off.deviations) / freedom).clamp(min=0).sqrt()
    return difference / torch.maximum(pooled, 1e-9 * difference.abs()).clamp(min=TINY)


def welch_t(on: Moments, off: Moments) -> Float[Tensor, "d_sae"]:
    """Difference of means over its standard error, variances not taken as equal (Welch 1947); always finite."""
    if min(on.count, off.count) < 2:
        raise ValueError(f"{on.count} prompts on and {off.count} off have no standard error; give two of each.")
    difference = on.mean - off.mean
    square = sum(m.deviations.clamp(min=0) / (m.count - 1) / m.count for m in (on, off))
    error = torch.maximum(torch.as_tensor(square).sqrt(), 1e-9 * difference.abs())
    return difference / error.clamp(min=TINY)


def point_biserial(on: Moments, off: Moments) -> Float[Tensor, "d_sae"]:
    """Pearson's correlation of one activation a prompt with its label, such as being right (CorrSteer, 2508.12535).

    0 for a feature that does not vary.
    """
    whole = on + off
    spread = (whole.deviations / whole.count).clamp(min=0).sqrt()
    weight = (on.count * off.count) ** 0.5 / whole.count
    return torch.where(spread > 0, (on.mean - off.mean) * weight / spread.clamp(min=TINY), 0.0)


def pearson(sums: TokenSums) -> Float[Tensor, "d_sae"]:
    """Pearson's correlation of activation and label (any number) over tokens; 0 for what does not vary."""
    n = sums.count
    together = sums.product - sums.total * sums.label / n
    spread = _spread(sums.square, sums.total, n) * _spread(sums.label_square, sums.label, n)
    return torch.where(spread > 0, together / spread.sqrt().clamp(min=TINY), 0.0)


def _spread(square: Tensor, total: Tensor, n: Tensor) -> Tensor:
    """Sum of squared deviations; 0 where it is but the rounding of the sums."""
    found = square - total.square() / n
    return torch.where(found > 1e-12 * square, found, 0.0)


def auroc(
    values: Float[np.ndarray, "observation feature"], label: Bool[np.ndarray, "observation"]
) -> Float[np.ndarray, "feature"]:
    """The probability that a prompt on has the higher activation, ties counted half (Mann and Whitney 1947)."""
    off = np.sort(values[~label], axis=0)
    on = values[label]
    if not len(on) or not len(off):
        raise ValueError(f"{len(on)} prompts on and {len(off)} off; both are needed.")
    found = np.empty(values.shape[1])
    for n in range(values.shape[1]):
        below = np.searchsorted(off[:, n], on[:, n], side="left") + np.searchsorted(off[:, n], on[:, n], side="right")
        found[n] = below.mean() / 2 / len(off)
    return found
