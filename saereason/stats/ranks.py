"""How often one of some values is above one of others, with intervals."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from .estimate import Estimate, check_draws

Sides = tuple[Float[np.ndarray, "on"], Float[np.ndarray, "off"]]


def above(on: Float[np.ndarray, "on"], off: Float[np.ndarray, "off"]) -> float:
    """The probability that one of `on` is above one of `off`, ties counted half: the area under the ROC curve."""
    off = np.sort(off)
    return float((np.searchsorted(off, on, "left") + np.searchsorted(off, on, "right")).mean() / 2 / len(off))


def auroc_interval(sides: Sides, *, paired: bool = False, n_resamples: int = 1000, seed: int = 0) -> Estimate:
    """`above` with its 95% percentile bootstrap interval: pairs are drawn together, else each side anew.

    Where all of one side are above all of the other no draw varies; the far end is then Newcombe's (2006, Statistics in
    Medicine 25:559, method 5), which has a width. Raises ValueError for an empty side, and pairs of other numbers.
    """
    found = _bootstrapped(lambda on, off: above(sides[0][on], sides[1][off]), sides, paired, n_resamples, seed)
    room = 1 - _least(len(sides[0]), len(sides[1]))
    if found.value == 1:
        return Estimate(1.0, min(found.low, 1 - room), 1.0)
    return Estimate(0.0, 0.0, max(found.high, room)) if found.value == 0 else found


def auroc_lead(
    first: Sides, second: Sides, *, paired: bool = False, n_resamples: int = 1000, seed: int = 0
) -> Estimate:
    """`above` of the first less that of the second, of the same items, with its interval as in `auroc_interval`.

    Where no draw varies since one or both separate the sides wholly, both ways as far as Newcombe's interval reaches.
    """

    def lead(on: np.ndarray, off: np.ndarray) -> float:
        return above(first[0][on], first[1][off]) - above(second[0][on], second[1][off])

    found = _bootstrapped(lead, first, paired, n_resamples, seed)
    if found.low < found.high or {above(*first), above(*second)}.isdisjoint({0.0, 1.0}):
        return found
    room = 1 - _least(len(first[0]), len(first[1]))
    return Estimate(found.value, max(-1.0, found.value - room), min(1.0, found.value + room))


def _least(n_on: int, n_off: int) -> float:
    """The lower limit of an area that was observed as 1: where its distance is 1.96 of its own standard errors."""
    from scipy.optimize import root_scalar

    pairs, half = n_on * n_off, (n_on + n_off) / 2 - 1

    def over(area: float) -> float:
        spread = area * (1 + half * ((1 - area) / (2 - area) + area / (1 + area)))
        return (1 - area) * pairs - 1.959964**2 * spread

    return float(root_scalar(over, bracket=(0.0, 1.0)).root)


def _bootstrapped(
    statistic: Callable[[np.ndarray, np.ndarray], float], sides: Sides, paired: bool, n_resamples: int, seed: int
) -> Estimate:
    """A statistic of the numbers of the items on both sides."""
    check_draws(n_resamples)
    n_on, n_off = map(len, sides)
    if not n_on or not n_off or (paired and n_on != n_off):
        raise ValueError(f"there are {n_on} values on and {n_off} off; give some of each, and of pairs as many.")
    rng, draws = np.random.default_rng(seed), np.empty(n_resamples)
    for n in range(n_resamples):
        first = rng.integers(n_on, size=n_on)
        draws[n] = statistic(first, first if paired else rng.integers(n_off, size=n_off))
    low, high = np.quantile(draws, [0.025, 0.975])
    value = statistic(np.arange(n_on), np.arange(n_off))
    return Estimate(value, float(min(low, value)), float(max(high, value)))
