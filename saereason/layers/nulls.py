"""What a difference between two families looks like where there is none. These describe; none is a test of depth."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from .finding import check_same_layers, kept_layers, shares_of
from .localise import Curve


@dataclass(frozen=True, eq=False)
class Null:
    """A value, and what it is where nothing could make it large; NaN where there is no effect to share out."""

    value: float
    draws: Float[np.ndarray, "draw"]

    @property
    def reached(self) -> float:
        """Share of the draws that are as far from zero as the value, a billionth of it aside."""
        if not np.isfinite(self.value):
            return float("nan")
        return float(np.mean(np.abs(self.draws) >= abs(self.value) * (1 - 1e-9)))

    @property
    def usual(self) -> float:
        """Distance from zero under which 95% of the draws lie."""
        known = self.draws[np.isfinite(self.draws)]
        return float(np.quantile(np.abs(known), 0.95)) if len(known) else float("nan")


def shifted(first: Curve, second: Curve, *, neutral: Curve | None = None) -> Null:
    """Correlation over layers of two families' mean effects; draws: with the second's moved along depth by every number
    of layers but none, the last ones coming in in front.

    Tells whether the families need the same layers more than two curves as smooth as theirs would. Raises ValueError
    for curves over different layers.
    """
    check_same_layers(first, second)
    keep = kept_layers(first, neutral)
    a, b = (curve.drop[:, keep].mean(0) for curve in (first, second))
    if len(a) < 3 or not (np.ptp(a) > 0 and np.ptp(b) > 0):
        return Null(float("nan"), np.full(max(len(a) - 1, 0), np.nan))
    found = np.array([np.corrcoef(a, np.roll(b, n))[0, 1] for n in range(len(a))])
    return Null(float(found[0]), found[1:])


def swapped(first: Curve, second: Curve, *, neutral: Curve | None = None, n: int = 2000, seed: int = 0) -> Null:
    """Difference of depth centroids of curves whose rows are pairs; draws: with each pair's items swapped between the
    families or not, at random.

    Raises ValueError for curves over different layers or of different numbers of items.
    """
    check_same_layers(first, second)
    if len(first.drop) != len(second.drop):
        raise ValueError(
            f"there are {len(first.drop)} items of {first.family} and {len(second.drop)} of {second.family}; give "
            "curves of matched pairs, row by row, as `take` makes them of a `Match`."
        )
    stay = np.random.default_rng(seed).integers(2, size=(n + 1, len(first.drop)))
    stay[0] = 1
    drop = np.concatenate([first.drop, second.drop])
    return _apart(drop, np.hstack([stay, 1 - stay]) == 1, first.depth, kept_layers(first, neutral))


def halved(curve: Curve, *, neutral: Curve | None = None, n: int = 2000, seed: int = 0) -> Null:
    """Difference of depth centroids of the first half of a family's items and the rest; draws: of random halves.

    How far apart two families of half as many items lie that are one and the same.
    """
    rng, half = np.random.default_rng(seed), np.arange(len(curve.drop)) < len(curve.drop) // 2
    chosen = np.stack([half, *(rng.permutation(half) for _ in range(n))])
    return _apart(curve.drop, chosen, curve.depth, kept_layers(curve, neutral))


def _apart(
    drop: Float[np.ndarray, "item layer"],
    chosen: Bool[np.ndarray, "draw item"],
    depth: Float[np.ndarray, "layer"],
    keep: Bool[np.ndarray, "layer"],
) -> Null:
    """Centroid of the chosen items less that of the others; the first choice is what there is."""
    effects = np.where(keep, drop, 0.0)
    means = [side @ effects / side.sum(1, keepdims=True) for side in (chosen, ~chosen)]
    first, second = (shares_of(mean[0], mean).draws @ depth for mean in means)
    apart = first - second
    return Null(float(apart[0]), apart[1:])
