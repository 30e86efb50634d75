"""Tokens in their surroundings, as text with activations."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from .dashboard import Excerpt
from .firings import Firings


def chosen(
    row: np.ndarray, act: np.ndarray, bins: np.ndarray, n_top: int, n_each: int, lot: np.random.Generator
) -> Iterator[tuple[int, int | None]]:
    """The numbers of firings to show, each with its bin; the strongest, of one row each, without."""
    falling = np.argsort(-act, kind="stable")
    _, first = np.unique(row[falling], return_index=True)
    yield from ((int(n), None) for n in falling[np.sort(first)[:n_top]])
    for bin in np.unique(bins)[::-1]:
        there = np.flatnonzero(bins == bin)
        yield from ((int(n), int(bin)) for n in np.sort(lot.permutation(there)[:n_each]))


def excerpt(
    show: Callable[[int], str],
    row: Sequence[int] | np.ndarray,
    acts: Mapping[int, float],
    at: int,
    band: tuple[float, float, float] | None,
    *,
    around: tuple[int, int],
    skipped: int = 1,
) -> Excerpt:
    """A token of a row with what stands before and after it; `skipped` tokens at the row's beginning are left out."""
    before, after = around
    where = range(max(skipped, at - before), min(len(row), at + after + 1))
    tokens = tuple(show(int(row[pos])) for pos in where)
    return Excerpt(tokens, tuple(acts.get(pos, 0.0) for pos in where), at - where[0], band)


def by_row(firings: Firings, index: int) -> dict[int, dict[int, float]]:
    """The activations of a feature, by row and position."""
    found: dict[int, dict[int, float]] = {}
    for row, pos, act in zip(*(column.tolist() for column in firings.of(index)), strict=True):
        found.setdefault(row, {})[pos] = act
    return found
