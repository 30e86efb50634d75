"""How alike what two mechanisms change is, against chance, and which features they share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from saereason.features import Feature

from .fingerprints import Items, States

TOP, FEWEST = 50, 8
"""Features of a layer that an overlap of ranks is of, and items that an overlap needs."""

UNMOVED = 2.0
"""The t below which a feature does not count as changed."""

Orders = Int[np.ndarray, "order _"]


@dataclass(frozen=True)
class Overlap:
    """How alike what two mechanisms change is, means over layers, each with the 95th percentile of chance.

    The two changes are measured on different halves of the items, both ways, so that the noise of the direct answers,
    which both are taken from, has no part in it. Chance: the features (or dimensions) of one of them change places with
    others of about the same activation in the direct answers, within a layer.
    """

    cosine: float
    """Of the mean change of the features."""

    cosine_by_chance: float
    p: float
    """Share of such orders with as large a cosine of features, the true one among them."""

    resid_cosine: float
    """Of the mean change of the residual stream."""

    resid_cosine_by_chance: float
    top: float
    """Share in common of the features of a layer whose change is the surest (|t|): fifty of them, or a twentieth."""

    top_by_chance: float

    cka: float
    """Linear CKA of what the residual stream changes by, item by item: are the same items moved alike?

    Over all items, and both changes are from the same direct answers, which makes any two somewhat alike; look at what
    random features and directions give. Chance: one's items change places.
    """

    cka_by_chance: float


def overlap(direct: States, one: States, other: States, *, n_orders: int = 500, seed: int = 0) -> Overlap:
    """How alike the changes from the direct answers to two others are, on the same items in the same order.

    Raises ValueError for fewer than eight items that all three have.
    """
    return overlaps(direct, {"one": one, "other": other}, n_orders=n_orders, seed=seed)["one", "other"]


def overlaps(
    direct: States, others: Mapping[str, States], *, n_orders: int = 500, seed: int = 0
) -> dict[tuple[str, str], Overlap]:
    """The same of every two, over the items that all have; chance is of the same orders for all."""
    there = np.isfinite([next(iter(each.resid.values()))[:, 0] for each in (direct, *others.values())]).all(0)
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(np.flatnonzero(there))
    if len(drawn) < FEWEST:
        raise ValueError(f"{len(drawn)} items have answers under all of them; an overlap needs at least {FEWEST}.")
    shuffles = np.stack([np.arange(len(drawn)), *(rng.permutation(len(drawn)) for _ in range(n_orders))])
    layers, totals = list(direct.acts), dict.fromkeys(combinations(others, 2), np.zeros(0))
    for layer in layers:
        acts, resid = direct.acts[layer][drawn], direct.resid[layer][drawn]
        changes = {
            name: _Change.of(each.acts[layer][drawn] - acts, each.resid[layer][drawn] - resid)
            for name, each in others.items()
        }
        orders = [_orders(np.abs(states).mean(0), n_orders, rng) for states in (acts, resid)]
        for place, (name, change) in enumerate(changes.items()):
            shuffled = change.shuffled(orders, shuffles)
            for other in list(changes)[:place]:
                found = shuffled.likeness(changes[other]) / len(layers)
                totals[other, name] = found if not len(totals[other, name]) else totals[other, name] + found
    return {pair: _overlap_of(values) for pair, values in totals.items()}


def _overlap_of(values: Float[np.ndarray, "measure order"]) -> Overlap:
    """From the four measures, first as the features and items are, then in other orders."""
    acts, resid, top, cka = [(float(each[0]), float(np.quantile(each[1:], 0.95))) for each in values]
    p = float(np.mean(values[0] >= values[0, 0] - 1e-12))
    return Overlap(*acts, p, *resid, *top, *cka)


@dataclass(frozen=True, eq=False)
class _Change:
    """What one mechanism changes at one layer: means and surest features of the two halves, and items against items."""

    acts: tuple[np.ndarray, ...]
    resid: tuple[np.ndarray, ...]
    surest: tuple[np.ndarray, ...]
    gram: np.ndarray

    @classmethod
    def of(cls, acts: Items, resid: Items) -> "_Change":
        half = len(acts) // 2
        parts = slice(None, half), slice(half, None)
        return cls(
            tuple(_unit(acts[part].mean(0)) for part in parts),
            tuple(_unit(resid[part].mean(0)) for part in parts),
            tuple(_surest(acts[part]) for part in parts),
            _unit(_gram(resid.astype(np.float64))),
        )

    def shuffled(self, orders: Sequence[Orders], items: Orders) -> "_Change":
        """In all orders of the features, of the dimensions, and of the items."""
        return _Change(
            tuple(each[orders[0]] for each in self.acts),
            tuple(each[orders[1]] for each in self.resid),
            tuple(each[orders[0]] for each in self.surest),
            self.gram[items[:, :, None], items[:, None, :]],
        )

    def likeness(self, other: "_Change") -> Float[np.ndarray, "measure order"]:
        """Of a shuffled change with another: cosine of features and of dimensions, surest in common, CKA.

        The first three between different halves of the items, mean of both ways.
        """
        ways = ((0, 1), (1, 0))
        return np.stack(
            [
                np.mean([self.acts[x] @ other.acts[y] for x, y in ways], axis=0),
                np.mean([self.resid[x] @ other.resid[y] for x, y in ways], axis=0),
                np.mean([(self.surest[x] & other.surest[y]).sum(1) / other.surest[y].sum() for x, y in ways], axis=0),
                np.tensordot(self.gram, other.gram, 2),
            ]
        )


def _unit(values: np.ndarray) -> np.ndarray:
    """Of length 1, or 0 where there is nothing."""
    size = np.linalg.norm(values)
    return values / size if size else values


def _gram(change: Items) -> Float[np.ndarray, "item item"]:
    centred = change - change.mean(0)
    return centred @ centred.T


def sureness(change: Items) -> Float[np.ndarray, "_"]:
    """The t of each feature's mean change over items, two at least; 0 where nothing changes.

    The deviation counts as at least 1e-9 of the mean's size, so that a constant ranks high but finite.
    """
    mean = change.mean(0, dtype=np.float64)
    error = np.maximum(change.std(0, ddof=1, dtype=np.float64), 1e-9 * np.abs(mean)) / np.sqrt(len(change))
    return np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)


def raised(direct: States, one: States, other: States, n: int) -> tuple[list[Feature], list[Feature]]:
    """The `n` features that two mechanisms both raise the most surely, and the `n` that the first raises alone.

    Shared: the largest of the smaller t of the two. Its own: the largest t among those that the other does not raise or
    lower at |t| of 2. Over the items that all three have; raises ValueError for fewer than two.
    """
    there = np.isfinite([next(iter(each.resid.values()))[:, 0] for each in (direct, one, other)]).all(0)
    if there.sum() < 2:
        raise ValueError(f"{there.sum()} items have states under all three; features are sure from two items on.")
    shared: list[tuple[float, Feature]] = []
    own: list[tuple[float, Feature]] = []
    for layer in one.acts:
        a, b = (sureness((each.acts[layer] - direct.acts[layer])[there]) for each in (one, other))
        both, alone = np.minimum(a, b), np.where(np.abs(b) < UNMOVED, a, 0.0)
        for values, into in ((both, shared), (alone, own)):
            best = np.argsort(-values, kind="stable")[:n]
            into += [(float(values[index]), Feature(layer, int(index))) for index in best if values[index] > UNMOVED]
    first, second = ([f for _, f in sorted(found, key=lambda each: -each[0])[:n]] for found in (shared, own))
    return first, second


def _surest(change: Items) -> Bool[np.ndarray, "_"]:
    """The features of the largest |t|: fifty, or a twentieth of a small SAE's."""
    t = np.abs(sureness(change))
    n = min(TOP, max(1, len(t) // 20))
    found = np.zeros(len(t), dtype=bool)
    found[np.argsort(-t, kind="stable")[:n]] = True
    return found


def _orders(size: Float[np.ndarray, "_"], n: int, rng: Any) -> Orders:
    """The order there is, and `n` in which every place has another of about the same size: one of the same tenth."""
    tenths = np.array_split(np.argsort(size, kind="stable"), min(10, len(size)))
    found = np.tile(np.arange(len(size)), (n + 1, 1))
    for row in found[1:]:
        for tenth in tenths:
            row[tenth] = rng.permutation(tenth)
    return found
