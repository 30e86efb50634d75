"""Intervals, tests and corrections for paired items: pure functions over numpy arrays.

The unit is the item (a prompt, a question), never a token. Random draws come from local generators alone.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval, all three in the unit of the value."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:z.3f} [{self.low:z.3f}, {self.high:z.3f}]"


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


def bootstrap(
    statistic: Callable[..., float],
    *arrays: Shaped[np.ndarray, "item ..."],
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    method: Literal["percentile", "bca"] = "percentile",
) -> Estimate:
    """`statistic(*arrays)` with a paired bootstrap interval: items are drawn, the same rows in every array.

    `"bca"` corrects for bias and skew (Efron 1987; Efron and Tibshirani 1993, equations 14.9 to 14.15) at one
    more call per item, and falls back to the percentile interval where the correction is undefined. Constant
    data has its value and no width; nor has a single item, which tells nothing of its spread. Raises
    ValueError for empty arrays, and where the data or the statistic are not finite.
    """
    if method not in ("percentile", "bca"):
        raise ValueError(f"unknown bootstrap method {method!r}; there are 'percentile' and 'bca'")
    _check_level(level)
    _check_draws(n_resamples)
    arrays = _paired(*arrays)
    n, rng = len(arrays[0]), np.random.default_rng(seed)
    tails = [(1 - level) / 2, (1 + level) / 2]
    value = float(statistic(*arrays))
    draws = _evaluated(statistic, arrays, (rng.integers(n, size=n) for _ in range(n_resamples)))
    bad = n_resamples - int(np.isfinite(draws).sum())
    if bad or not math.isfinite(value):
        raise ValueError(
            f"the statistic is {value} on the data and not finite on {bad} of {n_resamples} resamples; "
            "give one that is finite on any choice of items"
        )
    if method == "bca" and n > 1:
        without = _evaluated(statistic, arrays, (np.delete(np.arange(n), i) for i in range(n)))
        tails = _bca_tails(draws, without, value, tails)
    low, high = np.quantile(draws, tails)
    return Estimate(value, float(low), float(high))


def _evaluated(
    statistic: Callable[..., float], arrays: tuple[np.ndarray, ...], choices: Iterable[np.ndarray]
) -> Float[np.ndarray, "choice"]:
    return np.array([float(statistic(*(array[rows] for array in arrays))) for rows in choices])


def _bca_tails(
    draws: Float[np.ndarray, "resample"],
    without: Float[np.ndarray, "item"],
    value: float,
    tails: list[float],
) -> list[float]:
    """The quantiles to read in place of `tails`; `tails` where bias or acceleration is undefined."""
    below = float((draws < value).mean() + (draws <= value).mean()) / 2
    if not 0 < below < 1 or not np.isfinite(without).all() or (without == without[0]).all():
        return tails
    gaps = without.mean() - without
    gaps /= np.abs(gaps).max()
    acceleration = float((gaps**3).sum() / (6 * (gaps**2).sum() ** 1.5))
    bias = NORMAL.inv_cdf(below)
    shifted = [bias + NORMAL.inv_cdf(tail) for tail in tails]
    if max(acceleration * shift for shift in shifted) >= 1:
        return tails
    return [NORMAL.cdf(bias + shift / (1 - acceleration * shift)) for shift in shifted]


def bootstrap_bands(
    values: Float[np.ndarray, "item point"], *, n_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[Float[np.ndarray, "point"], Float[np.ndarray, "point"]]:
    """The low and high ends of bands that hold the whole mean curve at once with probability `level`.

    Half the width is each point's standard error times one quantile of the largest |t| over points, from a
    studentised bootstrap of items (Efron and Tibshirani 1993, section 12.5; sup-t bands: Montiel Olea and
    Plagborg-Møller 2019). Where a resample has no variance the data's standard error stands in. A constant
    point has no width. Raises ValueError for fewer than two items and for values that are not finite.
    """
    _check_level(level)
    _check_draws(n_resamples)
    values = _finite(values, "values")
    n, rng = len(values), np.random.default_rng(seed)
    if n < 2:
        raise ValueError(f"bands need the spread over items and there is {n}; give at least 2")
    constant = (values == values[0]).all(axis=0)
    mean = np.where(constant, values[0], values.mean(axis=0))
    sd = np.where(constant, 0.0, values.std(axis=0))
    unit = (values - mean) / np.where(sd > 0, sd, 1.0)
    largest = np.zeros(n_resamples)
    for start in range(0, n_resamples, 256):
        part = largest[start : start + 256]
        counts = rng.multinomial(n, np.full(n, 1 / n), size=len(part)).astype(np.float64)
        means = counts @ unit / n
        sds = np.sqrt(np.maximum(counts @ unit**2 / n - means**2, 0.0))
        part[:] = np.abs(means / np.where(sds > 1e-6, sds, 1.0)).max(axis=1)
    half = np.quantile(largest, level, method="higher") * sd
    return mean - half, mean + half


def max_t(
    differences: Float[np.ndarray, "prompt feature"], *, n_permutations: int = 1000, seed: int = 0
) -> Float[np.ndarray, "feature"]:
    """Two-sided p-values per feature, adjusted for the whole family by sign flips (single-step max-T).

    A permutation flips whole prompts, which keeps the correlation of features; p is `(1 + count) /
    (1 + n_permutations)`, counting permutations whose largest statistic reaches the feature's own (Westfall
    and Young 1993; Phipson and Smyth 2010). The statistic is |mean| / root mean square: it rises with
    |mean| / se, is finite without variance, and no flip changes its denominator. A column of zeros has p = 1.
    `differences` may be a memory map: it is read in pieces. Raises ValueError if it is not finite.
    """
    n, n_features = differences.shape
    _check_draws(n_permutations)
    signs = 2.0 * np.random.default_rng(seed).integers(2, size=(n_permutations, n), dtype=np.int8) - 1.0
    observed, largest = np.zeros(n_features), np.zeros(n_permutations)
    for columns in _column_chunks(n_features, max(n, n_permutations)):
        block = _scaled(differences[:, columns])
        size = np.sqrt(n * (block**2).sum(axis=0))
        block /= np.where(size > 0, size, 1.0)
        observed[columns] = np.abs(block.sum(axis=0))
        flipped = signs @ block
        np.maximum(largest, np.abs(flipped, out=flipped).max(axis=1), out=largest)
    # rounding must not hide a tie: with few prompts or discrete values many flips give the same statistic
    below = np.searchsorted(np.sort(largest), observed * (1 - 1e-9))
    return (1.0 + n_permutations - below) / (1.0 + n_permutations)


def studentised(differences: Float[np.ndarray, "prompt feature"]) -> Float[np.ndarray, "feature"]:
    """Mean over standard error per column (Student's paired t), to rank features by; always finite.

    A column of zeros has 0. The standard deviation counts as at least 1e-9 of |mean|, so a constant column
    has ±1e9 · √prompts. Raises ValueError for fewer than two prompts and if `differences` is not finite.
    """
    n, n_features = differences.shape
    if n < 2:
        raise ValueError(f"a standard error needs at least 2 prompts; there is {n}")
    t = np.zeros(n_features)
    for columns in _column_chunks(n_features, n):
        block = _scaled(differences[:, columns])
        mean = block.mean(axis=0)
        sd = np.maximum(block.std(axis=0, ddof=1), 1e-9 * np.abs(mean))
        t[columns] = math.sqrt(n) * mean / np.where(sd > 0, sd, 1.0)
    return t


def benjamini_hochberg(p: Float[np.ndarray, "test"]) -> Float[np.ndarray, "test"]:
    """p-values adjusted for the false discovery rate under independence or positive dependence.

    Benjamini and Hochberg 1995, the step-up procedure. Raises ValueError for values outside 0 to 1.
    """
    return _step_up(p, 1.0)


def benjamini_yekutieli(p: Float[np.ndarray, "test"]) -> Float[np.ndarray, "test"]:
    """p-values adjusted for the false discovery rate under any dependence.

    Benjamini and Yekutieli 2001, theorem 1.3. Raises ValueError for values outside 0 to 1.
    """
    return _step_up(p, float((1 / np.arange(1, len(p) + 1)).sum()))


def _step_up(p: Float[np.ndarray, "test"], factor: float) -> Float[np.ndarray, "test"]:
    p = np.asarray(p, dtype=np.float64)
    wrong = p[~((p >= 0) & (p <= 1))]
    if wrong.size:
        raise ValueError(f"{wrong[0]} is no p-value; give numbers from 0 to 1")
    falling = np.argsort(-p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[falling] = np.minimum.accumulate(p[falling] * (factor * len(p) / np.arange(len(p), 0, -1)))
    return np.minimum(adjusted, 1.0)


def _two_sided_z(level: float) -> float:
    _check_level(level)
    return -NORMAL.inv_cdf((1 - level) / 2)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a probability between 0 and 1, such as 0.95")


def _check_draws(n_draws: int) -> None:
    if n_draws < 1:
        raise ValueError(f"asked for {n_draws} random draws; give at least 1")


def _discordant(a: Shaped[np.ndarray, "..."], b: Shaped[np.ndarray, "..."]) -> tuple[int, int, int]:
    """How many items there are, how many are true in `a` alone, and how many in `b` alone."""
    a, b = _paired(a, b)
    for array in (a, b):
        if array.ndim != 1:
            raise ValueError(f"outcomes have shape {array.shape}; give one boolean, or 0 or 1, per item")
        other = array[~np.isin(array, (0, 1))]
        if other.size:
            raise ValueError(f"outcomes hold {other[0]}; give one boolean, or 0 or 1, per item")
    return len(a), int((a > b).sum()), int((b > a).sum())


def _paired(*arrays: Shaped[np.ndarray, "..."]) -> tuple[np.ndarray, ...]:
    """The arrays, finite and of the same length, which is at least 1."""
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) != 1:
        raise ValueError(f"paired arrays have {lengths} items; give arrays of one length, at least one array")
    return tuple(_finite(array, f"array {i}") for i, array in enumerate(arrays))


def _finite(values: Shaped[np.ndarray, "..."], name: str) -> np.ndarray:
    """`values`, neither empty nor infinite, with floating numbers in float64 and other dtypes as they are."""
    if values.size == 0:
        raise ValueError(f"{name} is empty, of shape {values.shape}; give at least one item")
    if values.dtype.kind != "f":
        return values
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ValueError(f"{name} has {bad} values that are not finite; give finite numbers only")
    return values.astype(np.float64, copy=False)


def _scaled(block: Float[np.ndarray, "prompt feature"]) -> Float[np.ndarray, "prompt feature"]:
    """A copy whose columns' largest magnitude is 1 (or 0), so that squares neither overflow nor vanish."""
    block = _finite(block, "differences")
    largest = np.abs(block).max(axis=0)
    return block / np.where(largest > 0, largest, 1.0)


def _column_chunks(n_columns: int, rows: int) -> Iterator[slice]:
    """Slices over all columns, each of at most 16 MB in float64 with this many rows."""
    width = max(1, 2**21 // rows)
    return (slice(start, start + width) for start in range(0, n_columns, width))
