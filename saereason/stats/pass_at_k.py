"""How often at least one of k samples is right."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from .estimate import Estimate
from .resampling import mean_interval


def pass_at_k(
    right: Int[np.ndarray, "item"], n: int, ks: Sequence[int], *, level: float = 0.95, seed: int = 0
) -> dict[int, Estimate]:
    """The chance that one of k samples is right, from how many of each item's n were (Chen et al., arXiv 2107.03374).

    Unbiased: the mean over items of `1 − C(n − c, k) / C(n, k)`, with a bootstrap interval over items. Raises
    ValueError for counts beyond n and for k beyond n.
    """
    if n < 1 or not ((right >= 0) & (right <= n)).all():
        raise ValueError(f"counts of right samples run from {right.min()} to {right.max()} of {n}; give 0 to n.")
    if not ks or min(ks) < 1 or max(ks) > n:
        raise ValueError(f"k is {list(ks)} and there are {n} samples of an item; k must be from 1 to that.")
    return {k: mean_interval(_one_of(right, n, k), level=level, seed=seed) for k in ks}


def _one_of(right: Int[np.ndarray, "item"], n: int, k: int) -> np.ndarray:
    """`C(n − c, k) / C(n, k)` as the product of `1 − c / m` over m from n − k + 1 to n, where no term is below 0."""
    terms = 1 - right[:, None] / np.arange(n - k + 1, n + 1)
    return 1 - np.clip(terms, 0, None).prod(axis=1)
