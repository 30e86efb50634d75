"""p-values for many features at once: max-T by permutation, and false discovery rates."""

import math
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from .estimate import check_draws, finite


@runtime_checkable
class Columns(Protocol):
    """An array, or what is read like one: `[prompt, feature]`, some columns at a time."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, place: Any, /) -> Any: ...


def max_t(differences: Columns, *, n_permutations: int = 1000, seed: int = 0) -> Float[np.ndarray, "feature"]:
    """Two-sided p-values per feature, adjusted for the whole family by sign flips (single-step max-T).

    A permutation flips whole prompts, which keeps the correlation of features; p is `(1 + count) /
    (1 + n_permutations)`, counting permutations whose largest statistic reaches the feature's own (Westfall
    and Young 1993; Phipson and Smyth 2010). The statistic is |mean| / root mean square: it rises with
    |mean| / se, is finite without variance, and no flip changes its denominator. A column of zeros has p = 1.
    Columns that no flip could make the largest, such as those of features that seldom fire, cost nothing but a look.
    `differences` may be a memory map: it is read in pieces. Raises ValueError if it is not finite.
    """
    n, n_features = differences.shape
    check_draws(n_permutations)
    signs = 2.0 * np.random.default_rng(seed).integers(2, size=(n_permutations, n), dtype=np.int8) - 1.0
    observed, largest = np.zeros(n_features), np.zeros(n_permutations)
    for columns in _column_chunks(n_features, max(n, n_permutations)):
        block = _scaled(differences[:, columns])
        size = np.sqrt(n * (block**2).sum(axis=0))
        block /= np.where(size > 0, size, 1.0)
        observed[columns] = np.abs(block.sum(axis=0))
        most = np.abs(block).sum(axis=0)  # with the signs that suit a column best
        flipped = signs @ block[:, most > largest.min()]
        np.maximum(largest, np.abs(flipped, out=flipped).max(axis=1, initial=0.0), out=largest)
    # rounding must not hide a tie: with few prompts or discrete values many flips give the same statistic
    below = np.searchsorted(np.sort(largest), observed * (1 - 1e-9))
    return (1.0 + n_permutations - below) / (1.0 + n_permutations)


def max_t_groups(
    values: Columns, label: Bool[np.ndarray, "prompt"], *, n_permutations: int = 1000, seed: int = 0
) -> Float[np.ndarray, "feature"]:
    """Two-sided p-values per feature, adjusted for the whole family by shuffles of the labels (single-step max-T).

    For prompts that are not paired; otherwise as `max_t`. The statistic is |difference of means| over the standard
    deviation of all prompts, which no shuffle changes, and which rises with Student's |t|. Raises ValueError for
    values that are not finite and unless there are prompts of both labels.
    """
    n, n_features = values.shape
    check_draws(n_permutations)
    label = np.asarray(label, dtype=bool)
    n_on = int(label.sum())
    if len(label) != n or not 0 < n_on < n:
        raise ValueError(f"{n_on} of {len(label)} labels are true, for {n} prompts; give a label each, some of both.")
    rng = np.random.default_rng(seed)
    weights = np.where(label, 1 / n_on, -1 / (n - n_on))
    shuffled = np.stack([rng.permutation(weights) for _ in range(n_permutations)])
    observed, largest = np.zeros(n_features), np.zeros(n_permutations)
    for columns in _column_chunks(n_features, max(n, n_permutations)):
        block = _scaled(values[:, columns])
        block -= block.mean(axis=0)
        sd = block.std(axis=0)
        block /= np.where(sd > 1e-12, sd, np.inf)
        observed[columns] = np.abs(weights @ block)
        largest = np.maximum(largest, np.abs(shuffled @ block).max(axis=1))
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


def _scaled(block: Float[np.ndarray, "prompt feature"]) -> Float[np.ndarray, "prompt feature"]:
    """A copy whose columns' largest magnitude is 1 (or 0), so that squares neither overflow nor vanish."""
    block = finite(block, "differences")
    largest = np.abs(block).max(axis=0)
    return block / np.where(largest > 0, largest, 1.0)


def _column_chunks(n_columns: int, rows: int) -> Iterator[slice]:
    """Slices over all columns, each of at most 16 MB in float64 with this many rows."""
    width = max(1, 2**21 // rows)
    return (slice(start, start + width) for start in range(0, n_columns, width))
