"""Whether reasoning and knowledge differ in depth as kinds, beyond how families of one kind differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float

from .finding import VITAL, shares, trouble_of
from .localise import Curve

FEWEST = 4
"""Families of each kind, below which nothing is said of kinds: with four and four the smallest p is 2/70."""

MOST_SPLITS = 200_000
"""Assignments of kinds to families that are gone through one by one."""


@dataclass(frozen=True)
class KindFinding:
    """What the curves of many families under one operator say of the two kinds."""

    statement: str
    operator: str

    centroids: Mapping[str, tuple[float, float, float]]
    """Depth centroid of each family that counts, with its 95% interval over items; 0 the first layer, 1 the last."""

    kinds: Mapping[str, str]
    difference: float
    """Mean centroid of the reasoning families less that of the knowledge families; positive is deeper."""

    low: float
    high: float
    """95% interval over items of these very families; it does not speak of others."""

    p: float
    """Two-sided, by every assignment of the two kinds to the families; NaN with fewer than four of a kind."""

    layers_left_out: tuple[int, ...]
    families_left_out: Mapping[str, str]
    """With the reason."""


def compare_kinds(
    curves: Sequence[Curve], *, neutral: Curve | None = None, alpha: float = 0.05, seed: int = 0
) -> KindFinding:
    """The difference of the two kinds' mean depth centroids, and how often chance gives as large a one.

    p is the share of assignments of the kinds to the families whose difference is at least as large (an exact
    permutation test, which takes the spread between families of one kind into account); above `alpha` nothing is shown.
    With `neutral`, layers whose change costs that family over `VITAL` nats a token are left out. Raises ValueError for
    no curves, curves of several operators or over different layers, and a family that is there twice.
    """
    curves = [curve for curve in curves if curve.kind != "neutral"]
    _check(curves, neutral)
    keep = np.ones(len(curves[0].layers), dtype=bool) if neutral is None else neutral.drop.mean(0) <= VITAL
    draws: dict[str, np.ndarray] = {}
    values: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for n, curve in enumerate(curves):
        found = shares(curve, keep=keep, seed=seed + n)
        if trouble := trouble_of(curve, found, keep):
            left_out[curve.family] = trouble
            continue
        values[curve.family] = float(found.value @ curve.depth)
        draws[curve.family] = found.draws @ curve.depth
    kinds = {curve.family: curve.kind for curve in curves if curve.family in values}
    sides = [[name for name, kind in kinds.items() if kind == wanted] for wanted in ("reasoning", "knowledge")]
    ends = {name: np.nanquantile(draws[name], [0.025, 0.975]) for name in values}
    centroids = {name: (values[name], float(ends[name][0]), float(ends[name][1])) for name in values}
    layers_left_out = tuple(layer for layer, kept in zip(curves[0].layers, keep, strict=True) if not kept)
    difference = low = high = p = float("nan")
    if all(sides):
        difference = float(np.mean([values[n] for n in sides[0]]) - np.mean([values[n] for n in sides[1]]))
        drawn = np.mean([draws[n] for n in sides[0]], axis=0) - np.mean([draws[n] for n in sides[1]], axis=0)
        low, high = map(float, np.nanquantile(drawn, [0.025, 0.975]))
    if min(map(len, sides)) >= FEWEST:
        p = exact_p(np.array([values[name] for name in (*sides[0], *sides[1])]), len(sides[0]), seed=seed)
    said = _statement([len(side) for side in sides], difference, (low, high), p, alpha, curves[0].operator)
    return KindFinding(said, curves[0].operator, centroids, kinds, difference, low, high, p, layers_left_out, left_out)


def exact_p(values: Float[np.ndarray, "family"], n_first: int, *, seed: int = 0) -> float:
    """Share of the ways to choose `n_first` of the values whose mean differs from that of the rest at least as much.

    All ways are gone through where there are at most 200,000; otherwise as many are drawn.
    """
    n = len(values)
    total, ways = values.sum(), comb(n, n_first)
    if ways <= MOST_SPLITS:
        sums = np.array([values[list(chosen)].sum() for chosen in combinations(range(n), n_first)])
    else:
        rng = np.random.default_rng(seed)
        sums = np.array([values[rng.permutation(n)[:n_first]].sum() for _ in range(MOST_SPLITS)])
        sums = np.append(sums, values[:n_first].sum())
    differences = np.abs(sums / n_first - (total - sums) / (n - n_first))
    observed = abs(values[:n_first].mean() - values[n_first:].mean())
    return float(np.mean(differences >= observed * (1 - 1e-9) - 1e-15))


def _check(curves: Sequence[Curve], neutral: Curve | None) -> None:
    operators = sorted({curve.operator for curve in (*curves, *([neutral] if neutral else []))})
    names = [curve.family for curve in curves]
    if not names or len(operators) != 1 or len(set(names)) < len(names):
        raise ValueError(
            f"there are curves of the families {names} under {operators}; give each family once, under one operator."
        )
    spans = {(curve.layers, curve.n_layers) for curve in (*curves, *([neutral] if neutral else []))}
    if len(spans) > 1:
        raise ValueError("the curves are over different layers; compare curves over the same ones.")


def _statement(
    counts: Sequence[int], difference: float, interval: tuple[float, float], p: float, alpha: float, operator: str
) -> str:
    told = f"{counts[0]} reasoning and {counts[1]} knowledge families"
    if min(counts) < FEWEST:
        return (
            f"Inconclusive about kinds under {operator}: {told} have an effect to share out; {FEWEST} of each needed."
        )
    figures = (
        f"difference of mean depth centroids {difference:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}] for these "
        f"families, exact permutation p = {p:.3f}, {told}"
    )
    if p > alpha:
        return f"Reasoning and knowledge are not shown to differ in depth under {operator} ({figures})."
    where = "deeper" if difference > 0 else "shallower"
    return f"Reasoning depends on {where} layers than knowledge under {operator} ({figures})."
