"""Shares and paired differences of shares: score intervals, and the exact test."""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Shaped

from .estimate import Estimate, check_level, paired


def wilson(successes: int | np.integer, n: int | np.integer, *, level: float = 0.95) -> Estimate:
    """The share `successes / n` with Wilson's score interval (Wilson 1927; Newcombe 1998, method 3).

    Raises ValueError unless `n` is at least 1, `0 <= successes <= n` and `0 < level < 1`.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n}; give n of at least 1 and successes from 0 to n")
    z, n, share = _two_sided_z(level), int(n), int(successes) / int(n)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2) / (1 + z * z / n)
    low = centre - half if successes > 0 else 0.0
    high = centre + half if successes < n else 1.0
    return Estimate(share, low, high)


def paired_difference(a: Shaped[np.ndarray, "item"], b: Shaped[np.ndarray, "item"], *, level: float = 0.95) -> Estimate:
    """The difference of two paired proportions, `mean(a) - mean(b)`, with Tango's score interval.

    `a` and `b` are booleans (or 0 and 1), one per item, in the same order. The limits are the differences at
    which the score statistic equals the normal quantile (Tango 1998, Statistics in Medicine 17:891), so 0 of
    50 against 0 of 50 has a width. Raises ValueError for other values, for other shapes and for no items.
    """
    n, only_a, only_b = _discordant(a, b)
    z = _two_sided_z(level)
    low, high = _tango_low(only_a, only_b, n, z), -_tango_low(only_b, only_a, n, z)
    return Estimate((only_a - only_b) / n, low, high)


def _tango_low(only_a: int, only_b: int, n: int, z: float) -> float:
    """The lower limit, by bisection from -1 to the estimate; the upper is minus that of the swapped pair."""
    low, high = -1.0, (only_a - only_b) / n
    for _ in range(64):
        delta = (low + high) / 2
        # p: the most likely share of only_b if this is the difference, a root of 2n p² + linear p + constant
        linear = (2 * n - only_a + only_b) * delta - only_a - only_b
        constant = -only_b * delta * (1 - delta)
        root = math.sqrt(max(linear * linear - 8 * n * constant, 0.0))
        p = (root - linear) / (4 * n)
        variance = n * max(2 * p + delta * (1 - delta), 0.0)
        if only_a - only_b - n * delta > z * math.sqrt(variance):
            low = delta
        else:
            high = delta
    return low


def mcnemar(a: Shaped[np.ndarray, "item"], b: Shaped[np.ndarray, "item"]) -> float:
    """The exact two-sided p-value of McNemar's test (1947): is an item right in one alone as often in either?

    `a` and `b` are booleans (or 0 and 1), one per item. Without discordant items it is 1. Raises ValueError
    as `paired_difference` does.
    """
    _, only_a, only_b = _discordant(a, b)
    discordant, term, tail = only_a + only_b, 1, 0
    for k in range(min(only_a, only_b) + 1):
        tail += term
        term = term * (discordant - k) // (k + 1)
    return min(1.0, 2 * tail / 2**discordant)


def _two_sided_z(level: float) -> float:
    check_level(level)
    return -NormalDist().inv_cdf((1 - level) / 2)


def _discordant(a: Shaped[np.ndarray, "..."], b: Shaped[np.ndarray, "..."]) -> tuple[int, int, int]:
    """How many items there are, how many are true in `a` alone, and how many in `b` alone."""
    a, b = paired(a, b)
    for array in (a, b):
        if array.ndim != 1:
            raise ValueError(f"outcomes have shape {array.shape}; give one boolean, or 0 or 1, per item")
        other = array[~np.isin(array, (0, 1))]
        if other.size:
            raise ValueError(f"outcomes hold {other[0]}; give one boolean, or 0 or 1, per item")
    return len(a), int((a > b).sum()), int((b > a).sum())
