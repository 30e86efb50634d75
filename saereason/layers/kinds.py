"""Whether reasoning and knowledge differ in depth as kinds, beyond how families of one kind differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float

from .finding import kept_layers, shares, trouble_of
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
    With `neutral`, layers whose change costs that family over `VITAL` nats a token are left out (`kept_layers`). Raises
    ValueError for no curves, curves of several operators or over different layers, and a family that is there twice.
    """
    curves = [curve for curve in curves if curve.kind != "neutral"]
    _check(curves)
    keep = kept_layers(curves[0], neutral)
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
    sums = _splits(n, n_first, seed) @ values
    differences = np.abs(sums / n_first - (values.sum() - sums) / (n - n_first))
    observed = abs(values[:n_first].mean() - values[n_first:].mean())
    return float(np.mean(differences >= observed * (1 - 1e-9) - 1e-15))


def joint_p(findings: Sequence[KindFinding], *, seed: int = 0) -> dict[str, float]:
    """Of each operator whose finding has a p: p for the largest of all their differences (max-T, Westfall and Young
    1993), so that one among many operators does not pass by chance. Never under the operator's own.

    Kinds are assigned to the families anew for all operators at once, and each difference is counted in standard
    errors under that assignment; one under which an operator has families of one kind only is none for it.
    """
    able = [found for found in findings if np.isfinite(found.p)]
    if not able:
        return {}
    kinds = {name: kind for found in able for name, kind in found.kinds.items()}
    names = sorted(kinds, key=lambda name: (kinds[name] != "reasoning", name))
    n_first = sum(kind == "reasoning" for kind in kinds.values())
    splits = _splits(len(names), n_first, seed)
    largest, observed = np.zeros(len(splits)), []
    for found in able:
        at = [names.index(name) for name in found.centroids]
        values = np.array([centroid for centroid, _, _ in found.centroids.values()])
        chosen = splits[:, at]
        size = _standardised(chosen, values)
        observed.append(float(_standardised((np.array(at) < n_first)[None], values)[0]))
        largest = np.maximum(largest, size)
    return {
        found.operator: max(found.p, float(np.mean(largest >= own * (1 - 1e-9) - 1e-15)))
        for found, own in zip(able, observed, strict=True)
    }


def _standardised(chosen: Bool[np.ndarray, "split family"], values: Float[np.ndarray, "family"]) -> np.ndarray:
    """Difference of the means of the chosen and the rest, in standard errors by the spread of all; 0 without either."""
    n, (first, all_) = chosen.sum(1), (chosen @ values, values.sum())
    rest = len(values) - n
    error = values.std() * np.sqrt(1 / np.maximum(n, 1) + 1 / np.maximum(rest, 1))
    difference = np.abs(first / np.maximum(n, 1) - (all_ - first) / np.maximum(rest, 1))
    return np.where((n > 0) & (rest > 0) & (error > 0), difference / np.where(error > 0, error, 1.0), 0.0)


def _splits(n: int, n_first: int, seed: int) -> Bool[np.ndarray, "split family"]:
    """Every way to choose so many of `n`; where there are over `MOST_SPLITS`, as many drawn, and the first ones."""
    if comb(n, n_first) <= MOST_SPLITS:
        places = np.array(list(combinations(range(n), n_first)))
        found = np.zeros((len(places), n), dtype=bool)
        found[np.arange(len(places))[:, None], places] = True
        return found
    first = np.arange(n) < n_first
    drawn = np.random.default_rng(seed).permuted(np.tile(first, (MOST_SPLITS, 1)), axis=1)
    return np.concatenate([drawn, first[None]])


def _check(curves: Sequence[Curve]) -> None:
    operators = sorted({curve.operator for curve in curves})
    names = [curve.family for curve in curves]
    if not names or len(operators) != 1 or len(set(names)) < len(names):
        raise ValueError(
            f"there are curves of the families {names} under {operators}; give each family once, under one operator."
        )
    if len({(curve.layers, curve.n_layers) for curve in curves}) > 1:
        raise ValueError("the curves are over different layers; compare curves over the same ones.")


def _statement(
    counts: Sequence[int], difference: float, interval: tuple[float, float], p: float, alpha: float, operator: str
) -> str:
    told = f"{counts[0]} reasoning and {counts[1]} knowledge families"
    if min(counts) < FEWEST:
        return (
            f"Inconclusive about kinds under {operator}: {told} have an effect to share out; {FEWEST} of each needed. "
            "More of them would change that."
        )
    figures = (
        f"difference of mean depth centroids {difference:+.3f} [{interval[0]:+.3f}, {interval[1]:+.3f}] for these "
        f"families, exact permutation p = {p:.3f}, {told}"
    )
    if p > alpha:
        said = f"Reasoning and knowledge are not shown to differ in depth under {operator} ({figures})."
        return f"{said} More families may change that."
    where = "deeper" if difference > 0 else "shallower"
    said = f"Reasoning depends on {where} layers than knowledge under {operator} ({figures})."
    return f"{said} Families that lie elsewhere, or other layers left out, may change that."
