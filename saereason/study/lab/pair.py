"""One reasoning family against one knowledge family, with length and difficulty taken out, and a screen checked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from saereason.layers import (
    Curve,
    Family,
    Finding,
    Match,
    Null,
    SkipBlock,
    SkipByGradient,
    compare_adjusted,
    compare_depth,
    halved,
    matched,
    shifted,
    swapped,
    take,
    unshared,
)

Side = tuple[Family, Curve]


@dataclass(frozen=True)
class Alike:
    """What two families' depth differs by as they are, between items that are alike, and with covariates taken out."""

    as_they_are: Finding
    adjusted: Finding
    matched: Finding | None
    match: Match | None
    unshared: tuple[str, ...]
    """Covariates in which the two do not meet, so that `adjusted` extrapolates."""

    refused: str
    """Why there are no matched items, if so."""

    nulls: Mapping[str, Null]
    """By what was made at random: each family's halves, shifts along depth, and swaps within matched pairs."""


def alike(first: Side, second: Side, neutral: Curve | None = None) -> Alike:
    """All three, under one operator; too few items that are alike make no matched finding."""
    whole, apart = compare_depth(first[1], second[1], neutral=neutral), unshared(first, second)
    without = compare_adjusted(first, second, neutral=neutral)
    nulls = {f"halves of {curve.family}": halved(curve, neutral=neutral) for _, curve in (first, second)}
    nulls["shifts along depth"] = shifted(first[1], second[1], neutral=neutral)
    try:
        match = matched(first, second)
    except ValueError as error:
        return Alike(whole, without, None, None, apart, str(error), nulls)
    pairs = (take(first[1], match.first), take(second[1], match.second))
    nulls["swaps within matched pairs"] = swapped(*pairs, neutral=neutral)
    return Alike(whole, without, compare_depth(*pairs, neutral=neutral), match, apart, "", nulls)


def screened(curves: Sequence[Curve]) -> dict[str, float]:
    """Of each family, the rank correlation over layers of what the gradient foretells with what skipping costs."""
    from scipy.stats import rankdata

    mean = {(curve.family, curve.operator): (curve.layers, curve.drop.mean(0)) for curve in curves}
    found = {}
    for family in dict.fromkeys(curve.family for curve in curves):
        pair = [mean[key] for op in (SkipByGradient(), SkipBlock()) if (key := (family, op.name)) in mean]
        if len(pair) < 2 or pair[0][0] != pair[1][0] or len(pair[0][0]) < 3:
            continue
        values = [drop for _, drop in pair]
        if all(map(np.ptp, values)):
            found[family] = float(np.corrcoef([rankdata(drop) for drop in values])[0, 1])
    return found
