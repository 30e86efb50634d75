"""From curves to a statement with an interval: shares, depth centroids, what may be claimed."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from .localise import Curve

ENOUGH = 5.0
"""Bootstrap standard errors that the total effect must exceed before it is shared out."""

FEWEST_ITEMS = 8
"""Items of a family below which no bootstrap over them is believed."""

LEAST = 0.5
"""Layers by which two centroids must differ before one family is said to depend on deeper layers than another."""

VITAL = 1.0
"""Nats a token that skipping a layer may cost plain text before the layer counts as one it cannot do without."""


ELSEWISE = "Another metric or operator, or other layers left out, may change that."
"""What would change a finding that there is."""


@dataclass(frozen=True)
class Finding:
    """What two families' curves allow one to say."""

    statement: str
    families: tuple[str, str]
    n_items: tuple[int, int]
    centroids: tuple[float, float]
    """Depth centroid of each family, 0 the first layer and 1 the last."""

    centroid_difference: float
    """First family's centroid less the second's; positive is deeper."""

    low: float
    high: float
    least: float
    """Smallest difference that is called one: half a layer, as a share of the depth."""

    layers_left_out: tuple[int, ...] = ()

    @property
    def differ(self) -> bool:
        """The whole interval lies beyond the smallest difference."""
        return self.low > self.least or self.high < -self.least

    @property
    def alike(self) -> bool:
        """The whole interval lies within the smallest difference."""
        return -self.least <= self.low and self.high <= self.least


@dataclass(frozen=True, eq=False)
class Shares:
    """Signed shares of the total effect, with their bootstrap over items."""

    value: Float[np.ndarray, "layer"]
    draws: Float[np.ndarray, "draw layer"]
    total_in_errors: float
    """The total effect in units of its bootstrap standard error; negative where the family gains by the changes."""


def shares(
    curve: Curve, *, keep: Bool[np.ndarray, "layer"] | None = None, n_resamples: int = 2000, seed: int = 0
) -> Shares:
    """`e_l / Σ e_l`, never clipped; numerator and denominator both recomputed in each resample of items.

    A curve with effects that are not finite has NaN for shares.
    """
    kept = np.ones(len(curve.layers), dtype=bool) if keep is None else keep
    drop = np.where(kept, curve.drop, 0.0)
    n = len(drop)
    if not np.isfinite(drop).all():
        return Shares(np.full(drop.shape[1], np.nan), np.full((n_resamples, drop.shape[1]), np.nan), 0.0)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
    return shares_of(drop.mean(0), counts @ drop / n)


def shares_of(mean: Float[np.ndarray, "layer"], means: Float[np.ndarray, "draw layer"]) -> Shares:
    """Shares of a mean effect by layer, and of the same in each resample."""
    totals, total = means.sum(1), float(mean.sum())
    error = float(totals.std())
    total_in_errors = total / error if error > 0 else total * np.inf if total else 0.0
    value = mean / total if total else np.full_like(mean, np.nan)
    return Shares(value, means / np.where(totals == 0, np.nan, totals)[:, None], total_in_errors)


def kept_layers(curve: Curve, neutral: Curve | None) -> Bool[np.ndarray, "layer"]:
    """Which of a curve's layers the neutral family can do without: those that cost it `VITAL` nats a token at most.

    The neutral curve may be of another operator, as that of skipped blocks. Raises ValueError where it lacks a layer.
    """
    if neutral is None:
        return np.ones(len(curve.layers), dtype=bool)
    finite = neutral.drop[np.isfinite(neutral.drop).all(axis=1)]
    if not len(finite):
        raise ValueError(f"{neutral.family} has no item whose effects are all finite; give another neutral curve.")
    cost = dict(zip(neutral.layers, finite.mean(0).tolist(), strict=True))
    missing = [layer for layer in curve.layers if layer not in cost]
    if missing or neutral.n_layers != curve.n_layers:
        raise ValueError(
            f"{neutral.family} was measured at layers {list(neutral.layers)} of {neutral.n_layers} and {curve.family} "
            f"at {list(curve.layers)} of {curve.n_layers}; give a neutral curve over the same layers."
        )
    return np.array([cost[layer] <= VITAL for layer in curve.layers])


def compare_depth(
    first: Curve, second: Curve, *, neutral: Curve | None = None, level: float = 0.95, seed: int = 0
) -> Finding:
    """The difference of two families' depth centroids with a bootstrap interval over items of both.

    They differ where the whole interval lies beyond half a layer, and are alike where it lies within: with enough items
    any two families differ by a hundredth of a layer. With `neutral`, layers whose skip costs that family over `VITAL`
    nats a token are left out. The statement is about these two families only; a claim about kinds needs four families
    of each. Raises ValueError for curves over different layers.
    """
    check_same_layers(first, second)
    keep = kept_layers(first, neutral)
    sides = (shares(first, keep=keep, seed=seed), shares(second, keep=keep, seed=seed + 1))
    return finding_of((first, second), sides, keep, level=level)


def finding_of(
    curves: tuple[Curve, Curve], sides: tuple[Shares, Shares], keep: Bool[np.ndarray, "layer"], *, level: float = 0.95
) -> Finding:
    """What the shares of two curves at the kept layers allow one to say."""
    (first, second), (a, b) = curves, sides
    names, counts = (first.family, second.family), (len(first.drop), len(second.drop))
    least = LEAST / max(first.n_layers - 1, 1)
    left_out = tuple(layer for layer, kept in zip(first.layers, keep, strict=True) if not kept)
    troubles = [trouble for curve, s in ((first, a), (second, b)) if (trouble := trouble_of(curve, s, keep))]
    if troubles:
        nan, said = float("nan"), f"Inconclusive: {'; '.join(troubles)}. More items or an abler model may change that."
        return Finding(said, names, counts, (nan, nan), nan, nan, nan, least, left_out)
    centroids = (float(a.value @ first.depth), float(b.value @ second.depth))
    draws = a.draws @ first.depth - b.draws @ second.depth
    low, high = map(float, np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2]))
    found = Finding("", names, counts, centroids, centroids[0] - centroids[1], low, high, least, left_out)
    return replace(found, statement=_statement(found))


def share_difference(first: Curve, second: Curve, *, level: float = 0.95, seed: int = 0) -> np.ndarray:
    """Difference of signed shares by layer: `[3, layer]`, value, low and high (pointwise bootstrap over items)."""
    check_same_layers(first, second)
    a, b = shares(first, seed=seed), shares(second, seed=seed + 1)
    draws = a.draws - b.draws
    draws = draws[np.isfinite(draws).all(axis=1)]
    if not len(draws):
        return np.full((3, len(first.layers)), np.nan)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.stack([a.value - b.value, low, high])


def check_same_layers(first: Curve, *others: Curve) -> None:
    """Raises ValueError for curves over different layers, or of models of different depth."""
    for other in others:
        if (other.layers, other.n_layers) != (first.layers, first.n_layers):
            raise ValueError(
                f"{first.family} was measured at layers {list(first.layers)} of {first.n_layers} and {other.family} at "
                f"{list(other.layers)} of {other.n_layers}; compare curves over the same layers."
            )


def trouble_of(curve: Curve, found: Shares, keep: Bool[np.ndarray, "layer"] | None = None) -> str | None:
    """Why a curve has no shares to speak of at the kept layers, if so."""
    keep = np.ones(len(curve.layers), dtype=bool) if keep is None else keep
    bad = int((~np.isfinite(curve.drop[:, keep])).any(axis=1).sum())
    if bad:
        return f"{bad} of {len(curve.drop)} items of {curve.family} have effects that are not finite"
    if len(curve.drop) < FEWEST_ITEMS:
        return f"{curve.family} has {len(curve.drop)} of the {FEWEST_ITEMS} items that an interval needs"
    if found.total_in_errors <= -ENOUGH:
        return f"{curve.family} gains by the changes in all, so there is no loss to share out"
    if found.total_in_errors < ENOUGH:
        return f"{curve.family} has no total effect to share out (under {ENOUGH:g} standard errors)"
    return None


def _statement(found: Finding) -> str:
    first, second = found.families
    figures = (
        f"difference of depth centroids {found.centroid_difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}], half a "
        f"layer is {found.least:.3f}, n = {found.n_items[0]} and {found.n_items[1]}"
    )
    if found.differ:
        where = "deeper" if found.low > 0 else "shallower"
        return f"These two families differ: {first} depends on {where} layers than {second} ({figures}). {ELSEWISE}"
    if found.alike:
        told = f"{first} and {second} ({figures})"
        return f"These two families are alike in depth to within half a layer: {told}. {ELSEWISE}"
    return (
        f"These two families are not shown to differ by half a layer in depth: {first} and {second} ({figures}). More "
        "items may change that."
    )
