"""Two families' items made alike in length and difficulty, and effects with those taken out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from .finding import Finding, check_same_layers, compare_depth, finding_of, kept_layers, shares_of
from .localise import Curve, Family

COVARIATES = (
    "prompt tokens",
    "scored tokens",
    "tokens before the last scored",
    "answer is a number",
    "clean log-probability",
)
MIDDLE = (0.05, 0.95)
"""Quantiles between which a family's items are taken to lie, outliers aside."""

FEWEST_KEPT = 0.5
"""Share of the smaller family below which matched items no longer stand for it."""


@dataclass(frozen=True, eq=False)
class Match:
    """Pairs of items, one of each family, that are alike."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    kept: float
    """Share of the smaller family that found a partner."""

    before: Mapping[str, float]
    """Standardised mean difference of each covariate before matching, first less second."""

    after: Mapping[str, float]


def covariates(family: Family, curve: Curve) -> Float[np.ndarray, "item covariate"]:
    """Of each item: tokens of its prompt, scored tokens, tokens of the answer up to the last scored one, whether what
    is scored is a number (NaN where nobody looked), and the clean log-probability per scored token.
    """
    _check(family, curve)
    items = family.metric.items
    lasts = [max(n for n, scored in enumerate(item.scored) if scored) + 1 for item in items]
    numeric = family.numeric or (np.nan,) * len(items)
    columns = ([len(item.prompt) for item in items], [sum(item.scored) for item in items], lasts, numeric, curve.clean)
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def matched(first: tuple[Family, Curve], second: tuple[Family, Curve], *, caliper: float = 0.5) -> Match:
    """Items of two families in pairs that differ little: the pairing of least total distance, without replacement.

    Distance is that of covariates in pooled standard deviations; no pair differs by more than `caliper` of them in any
    one. Matching keeps the easy tail of the harder family, so show the unmatched result and that of `compare_adjusted`
    beside it. Raises ValueError where less than half of the smaller family is kept.
    """
    from scipy.optimize import linear_sum_assignment

    a, b, names_of = _known(first, second)
    spread = np.sqrt((a.var(0) + b.var(0)) / 2)
    spread[spread == 0] = 1.0
    apart = np.abs(a[:, None] - b[None]) / spread
    near = (apart <= caliper).all(-1)
    cost = np.where(near, apart.sum(-1), 1e6)
    rows, columns = linear_sum_assignment(cost)
    pairs = [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if near[i, j]]
    kept = len(pairs) / min(len(a), len(b))
    names = (first[0].name, second[0].name)
    if kept < FEWEST_KEPT:
        raise ValueError(
            f"{len(pairs)} items of {names[0]} and {names[1]} are alike, {kept:.0%} of the smaller family; under "
            f"{FEWEST_KEPT:.0%} they do not stand for it. Compare the unmatched families, or `compare_adjusted`."
        )
    one, other = [i for i, _ in pairs], [j for _, j in pairs]
    before, after = ((x.mean(0) - y.mean(0)) / spread for x, y in ((a, b), (a[one], b[other])))
    balance = (dict(zip(names_of, values.tolist(), strict=True)) for values in (before, after))
    return Match(tuple(one), tuple(other), kept, *balance)


def take(curve: Curve, rows: Sequence[int]) -> Curve:
    """The curve of some items."""
    chosen = list(rows)
    return replace(curve, drop=curve.drop[chosen], clean=curve.clean[chosen])


def compare_adjusted(
    first: tuple[Family, Curve],
    second: tuple[Family, Curve],
    *,
    neutral: Curve | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Finding:
    """`compare_depth` of both curves as they would be if all items had the same covariates, linearly.

    Slopes are one for both families, fitted within them by least squares, layer by layer, and fitted anew in every
    resample of items. Where the families do not meet (`unshared`) this extrapolates to items that neither has, and says
    little.
    """
    check_same_layers(first[1], second[1])
    keep = kept_layers(first[1], neutral)
    drops = [np.where(keep, curve.drop, 0.0) for _, curve in (first, second)]
    *values, _ = _known(first, second)
    if not all(np.isfinite(array).all() for array in (*values, *drops)):
        return compare_depth(first[1], second[1], neutral=neutral, level=level, seed=seed)  # says what is amiss
    rng = np.random.default_rng(seed)

    def resampled() -> Float[np.ndarray, "side layer"]:
        rows = [rng.integers(len(drop), size=len(drop)) for drop in drops]
        return _alike(*([array[at] for array, at in zip(arrays, rows, strict=True)] for arrays in (values, drops)))

    means = np.stack([resampled() for _ in range(n_resamples)])
    found = [shares_of(mean, means[:, n]) for n, mean in enumerate(_alike(values, drops))]
    return finding_of((first[1], second[1]), (found[0], found[1]), keep, level=level)


def _alike(
    values: Sequence[Float[np.ndarray, "_ covariate"]], drops: Sequence[Float[np.ndarray, "_ layer"]]
) -> Float[np.ndarray, "side layer"]:
    """Both mean effects at the mean of the two mean covariates."""
    means, effects = ([array.mean(0) for array in arrays] for arrays in (values, drops))
    within, rest = (np.concatenate([each - each.mean(0) for each in arrays]) for arrays in (values, drops))
    half = (means[0] - means[1]) / 2 @ np.linalg.lstsq(within, rest, rcond=None)[0]
    return np.stack([effects[0] - half, effects[1] + half])


def unshared(first: tuple[Family, Curve], second: tuple[Family, Curve]) -> tuple[str, ...]:
    """Covariates in which the families do not meet: under half of either's items lie among the middle nine tenths of
    the other's.
    """
    found = []
    one, other, names = _known(first, second)
    for name, *sides in zip(names, one.T, other.T, strict=True):
        a, b = (side[np.isfinite(side)] for side in sides)
        among = [
            np.mean((x >= low) & (x <= high))
            for x, (low, high) in ((a, np.quantile(b, MIDDLE)), (b, np.quantile(a, MIDDLE)))
        ]
        found += [name] if max(among) < FEWEST_KEPT else []
    return tuple(found)


def _known(
    first: tuple[Family, Curve], second: tuple[Family, Curve]
) -> tuple[Float[np.ndarray, "_ covariate"], Float[np.ndarray, "_ covariate"], tuple[str, ...]]:
    """The covariates of both that are known of both, and their names."""
    a, b = covariates(*first), covariates(*second)
    known = [n for n in range(len(COVARIATES)) if not (np.isnan(a[:, n]).all() or np.isnan(b[:, n]).all())]
    return a[:, known], b[:, known], tuple(COVARIATES[n] for n in known)


def _check(family: Family, curve: Curve) -> None:
    if (family.name, len(family.metric)) != (curve.family, len(curve.clean)):
        raise ValueError(
            f"the curve is of {len(curve.clean)} items of {curve.family} and the family is {family.name} with "
            f"{len(family.metric)}; give the curve that `localise` made of it."
        )
