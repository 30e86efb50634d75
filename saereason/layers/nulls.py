"""What a difference between two families looks like where there is none. These describe; none is a test of depth."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from .finding import check_same_layers, kept_layers, shares, shares_of, trouble_of
from .localise import Curve

NAN = float("nan")


@dataclass(frozen=True, eq=False)
class Null:
    """A value, and what it is where nothing could make it large; NaN, and without draws, where a family has no total
    effect that `compare_depth` would share out.
    """

    value: float
    draws: Float[np.ndarray, "draw"]
    reached: float
    """Share of the draws that are as large, but for a billionth."""

    @property
    def usual(self) -> float:
        """Distance from zero within which 95% of the draws lie."""
        return float(np.quantile(np.abs(self.draws), 0.95)) if len(self.draws) else NAN


NOTHING = Null(NAN, np.zeros(0), NAN)


def shifted(first: Curve, second: Curve, *, neutral: Curve | None = None) -> Null:
    """Correlation over layers of two families' mean effects; draws: with the second's moved along by every number of
    places but none among the layers that are kept, the last coming in in front. Negative draws do not reach it.

    Tells whether the families need the same layers more than curves of their shapes in another place. Two that both
    rise towards the end agree by that alone. Raises ValueError for curves over different layers.
    """
    check_same_layers(first, second)
    keep = kept_layers(first, neutral)
    order = [n for n in np.argsort(first.layers) if keep[n]]
    a, b = (curve.drop[:, order].mean(0) for curve in (first, second))
    if not _sharable(first, keep) or not _sharable(second, keep) or not (np.ptp(a) > 0 and np.ptp(b) > 0):
        return NOTHING
    found = np.array([np.corrcoef(a, np.roll(b, n))[0, 1] for n in range(len(a))])
    return _null(float(found[0]), found[1:], either_way=False)


def swapped(first: Curve, second: Curve, *, neutral: Curve | None = None, n: int = 2000, seed: int = 0) -> Null:
    """Difference of depth centroids (as a share of the depth) of curves whose rows are pairs; `n` draws: with each
    pair's items swapped between the families or not, at random, their effects as shares of their family's mean total.

    Raises ValueError for curves over different layers or of different numbers of items.
    """
    check_same_layers(first, second)
    if len(first.drop) != len(second.drop):
        raise ValueError(
            f"there are {len(first.drop)} items of {first.family} and {len(second.drop)} of {second.family}; give "
            "curves of matched pairs, row by row, as `take` makes them of a `Match`."
        )
    keep = kept_layers(first, neutral)
    if not _sharable(first, keep) or not _sharable(second, keep):
        return NOTHING
    stay = np.random.default_rng(seed).integers(2, size=(n + 1, len(first.drop)))
    stay[0] = 1
    effects = [np.where(keep, curve.drop, 0.0) for curve in (first, second)]
    shared = np.concatenate([each / each.sum(1).mean() for each in effects])
    return _apart(shared, np.hstack([stay, 1 - stay]) == 1, first.depth)


def halved(curve: Curve, *, neutral: Curve | None = None, n: int = 2000, seed: int = 0) -> Null:
    """Difference of depth centroids (as a share of the depth) of the first half of a family's items and the rest; `n`
    draws: of random halves.

    How far apart two families of half as many items lie that are one and the same.
    """
    keep = kept_layers(curve, neutral)
    if not _sharable(curve, keep):
        return NOTHING
    rng, half = np.random.default_rng(seed), np.arange(len(curve.drop)) < len(curve.drop) // 2
    chosen = np.stack([half, *(rng.permutation(half) for _ in range(n))])
    return _apart(np.where(keep, curve.drop, 0.0), chosen, curve.depth)


def _sharable(curve: Curve, keep: Bool[np.ndarray, "layer"]) -> bool:
    return trouble_of(curve, shares(curve, keep=keep), keep) is None


def _apart(
    effects: Float[np.ndarray, "item layer"],
    chosen: Bool[np.ndarray, "draw item"],
    depth: Float[np.ndarray, "layer"],
) -> Null:
    """Centroid of the chosen items less that of the others; the first choice is what there is."""
    means = [side @ effects / side.sum(1, keepdims=True) for side in (chosen, ~chosen)]
    first, second = (shares_of(mean[0], mean).draws @ depth for mean in means)
    apart = first - second
    return _null(float(apart[0]), apart[1:], either_way=True)


def _null(value: float, draws: Float[np.ndarray, "draw"], *, either_way: bool) -> Null:
    sizes, size = (np.abs(draws), abs(value)) if either_way else (draws, value)
    return Null(value, draws, float(np.mean(sizes >= size - 1e-9 * abs(value))))
