"""Effect sizes of several treatments of the same items, with what is left after picking the largest."""

import numpy as np
from jaxtyping import Float, Shaped

from .estimate import Estimate, check_draws, check_level, paired

Values = Float[np.ndarray, "item treatment"]
MISSED = 0.1
"""A draw with less than this share of the data's deviation or error has missed what varies: the data's stands in."""


def cohens_d(treated: Values, base: Values) -> Float[np.ndarray, "treatment"]:
    """Difference of means over the pooled standard deviation, `sqrt((s₁² + s₀²) / 2)`, as of unpaired groups.

    Cohen 1988; for groups of one size. It reads as he meant: at 0.8, 79% of treated values exceed the base's median.
    The deviation counts as at least 1e-9 of the difference, so the size of a constant difference is ±1e9. Raises
    ValueError for fewer than two items and for values that are not finite.
    """
    treated, base = _checked(treated, base)
    variance = (treated.var(axis=0, ddof=1) + base.var(axis=0, ddof=1)) / 2
    return _over(treated.mean(axis=0) - base.mean(axis=0), variance)


def cohens_dz(treated: Values, base: Values) -> Float[np.ndarray, "treatment"]:
    """Mean difference over the standard deviation of the items' own differences, as of paired groups (Cohen 1988).

    Otherwise as `cohens_d`.
    """
    treated, base = _checked(treated, base)
    difference = treated - base
    return _over(difference.mean(axis=0), difference.var(axis=0, ddof=1))


def largest_d(treated: Values, base: Values, *, n_permutations: int = 2000, seed: int = 0) -> tuple[np.ndarray, float]:
    """One-sided p-values `[treatment]` of `cohens_d`, adjusted for taking the largest, and what chance gives it.

    A permutation swaps an item's treated and base values, in all treatments at once, which keeps their correlation;
    p is `(1 + count) / (1 + n_permutations)`, counting permutations whose largest d reaches the treatment's own
    (Westfall and Young 1993). The second value is the 95% quantile of that largest d. Raises ValueError as `cohens_d`.
    """
    check_draws(n_permutations)
    treated, base = _checked(treated, base)
    observed = cohens_d(treated, base)
    n = len(treated)
    centre, difference = (treated + base).mean(axis=0) / 2, treated - base
    # swapping keeps the items' squares, so only the means of the two groups have to be found anew
    squares = ((treated - centre) ** 2 + (base - centre) ** 2).mean(axis=0)
    signs = 2.0 * np.random.default_rng(seed).integers(2, size=(n_permutations, n)) - 1
    mean = signs @ difference / n
    variance = np.maximum(squares - mean**2 / 2, 0.0) / 2 * n / (n - 1)
    largest = np.sort(_over(mean, variance).max(axis=1))
    reached = n_permutations - np.searchsorted(largest, observed - 1e-9 * np.abs(observed))
    return (1.0 + reached) / (1.0 + n_permutations), float(np.quantile(largest, 0.95))


def d_intervals(
    treated: Values, base: Values, *, n_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> list[Estimate]:
    """`cohens_d` of each treatment with intervals that hold all of them at once with probability `level`.

    So the largest may be quoted with its own. Half the width is each standard error (by the delta method) times one
    quantile of the largest |t| over treatments, from a studentised bootstrap that draws items with their values in
    every arm (as `bootstrap_bands` for means). A draw has a quarter of the items, at least 20: |t| of few items reaches
    further where tails are long, and hardly so where they are not (m out of n; Bickel, Götze and van Zwet 1997). At
    n = 100 and 95% these cover 94% for lognormal and 96% for normal and for paired binary values, where draws of all
    items cover 91, 94 and 95%, and their percentiles 84% for lognormal ones (`benchmarks/calibration.py`). Constant
    arms give no width. Raises ValueError as `cohens_d`, and for a level outside 0 to 1.
    """
    check_level(level)
    check_draws(n_resamples)
    treated, base = _checked(treated, base)
    value = cohens_d(treated, base)
    n, rng = len(treated), np.random.default_rng(seed)
    n_drawn = min(n, max(n // 4, 20))
    size = np.maximum(np.abs(treated).max(axis=0), np.abs(base).max(axis=0))
    treated, base = (arm / np.where(size > 0, size, 1.0) for arm in (treated, base))
    d, error, deviation = _with_error(treated, base)
    largest = np.zeros(n_resamples)
    for start in range(0, n_resamples, 128):
        rows = rng.integers(n, size=(len(largest[start : start + 128]), n_drawn))
        drawn, its_error, _ = _with_error(treated[rows], base[rows], least=deviation)
        expected = error * np.sqrt(n / n_drawn)
        t = np.abs(drawn - d) / np.where(its_error > MISSED * expected, its_error, np.where(error > 0, expected, 1.0))
        largest[start : start + 128] = np.where(error > 0, t, 0.0).max(axis=1)
    half = np.quantile(largest, level, method="higher") * error
    return [Estimate(float(v), float(v - h), float(v + h)) for v, h in zip(value, half, strict=True)]


def _with_error(treated: np.ndarray, base: np.ndarray, least: np.ndarray | float = 0.0) -> tuple[np.ndarray, ...]:
    """d with its standard error and the pooled deviation, over the second axis from the end.

    A deviation under a tenth of `least`, as of a draw that missed what varies, counts as `least`.
    """
    x, y = (arm - arm.mean(axis=-2, keepdims=True) for arm in (treated, base))
    n, spread = x.shape[-2], (x**2 + y**2) / 2
    deviation = np.sqrt(spread.mean(axis=-2) * n / (n - 1))
    deviation = np.where(deviation > 1e-12, deviation, 0.0)  # rounding, of values up to 1
    deviation = np.where(deviation > MISSED * least, deviation, least)
    scale = np.where(deviation > 0, deviation, 1.0)[..., None, :]
    d = treated.mean(axis=-2) / scale[..., 0, :] - base.mean(axis=-2) / scale[..., 0, :]
    pull = (x - y) / scale - d[..., None, :] / 2 * (spread / scale**2 - 1)
    return d, np.where(deviation > 0, pull.std(axis=-2) / np.sqrt(n - 1), 0.0), deviation


def _over(difference: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Difference over deviation, finite: 0 where there is no difference."""
    deviation = np.maximum(np.sqrt(variance), 1e-9 * np.abs(difference))
    return difference / np.where(deviation > 0, deviation, 1.0)


def _checked(treated: Shaped[np.ndarray, "..."], base: Shaped[np.ndarray, "..."]) -> tuple[np.ndarray, np.ndarray]:
    treated, base = paired(treated, base)
    if treated.shape != base.shape or treated.ndim != 2:
        raise ValueError(f"treated values are {treated.shape} and base values {base.shape}; give [item, treatment].")
    if len(treated) < 2:
        raise ValueError("an effect size needs the spread over items and there is 1; give at least 2.")
    return treated.astype(np.float64), base.astype(np.float64)
