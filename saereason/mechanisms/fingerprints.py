"""What a mechanism changes inside the model, against the direct prompt on the same items: its fingerprint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saereason import hooks
from saereason.features import Feature
from saereason.model import Model, pad
from saereason.saes import SAE, Encoder

from .mechanism import Mechanism, Progress, Written, unseen

TOP, FEWEST = 50, 8
"""Features of a layer that an overlap of ranks is of, and items that an overlap needs."""

UNMOVED = 2.0
"""The t below which a feature does not count as changed."""

Items = Float[np.ndarray, "_ _"]
Orders = Int[np.ndarray, "order _"]


@dataclass(frozen=True, eq=False)
class States:
    """Means over the positions that predict an item's answer: the prompt's last, and all of the answer but its last.

    By layer, `[item, ·]`: the residual stream, and the activation of every feature.
    """

    resid: Mapping[int, Items]
    acts: Mapping[int, Items]

    def part(self, items: slice) -> "States":
        """Of some of the items."""
        return States({n: x[items] for n, x in self.resid.items()}, {n: x[items] for n, x in self.acts.items()})

    def less(self, other: "States") -> "States":
        """The difference, item by item."""
        return States(
            {layer: self.resid[layer] - other.resid[layer] for layer in self.resid},
            {layer: self.acts[layer] - other.acts[layer] for layer in self.acts},
        )


def states(
    model: Model,
    saes: Mapping[int, SAE],
    mechanism: Mechanism,
    found: Written,
    *,
    batch_size: int = 16,
    progress: Progress = unseen,
) -> States:
    """The states in which the answers were written, the mechanism in force, at every layer with an SAE.

    What a mechanism spends on other calls or paths is not looked at.
    """
    [whole] = states_at(model, saes, mechanism, found, [(-1, model.n_ctx)], batch_size=batch_size, progress=progress)
    return whole


@torch.no_grad()
def states_at(
    model: Model,
    saes: Mapping[int, SAE],
    mechanism: Mechanism,
    found: Written,
    windows: Sequence[tuple[int, int]],
    *,
    batch_size: int = 16,
    progress: Progress = unseen,
) -> list[States]:
    """The same over windows of decoding steps, each from its first to its last, of which -1 is the prompt's last token.

    NaN for an item that has no step in a window. One pass over the answers.
    """
    layers, n = sorted(saes), len(found.prompts)
    whole = sorted({*layers, model.n_layers - 1})  # to the end, where a mechanism may act after the last SAE
    order = sorted(range(n), key=lambda place: len(found.prompts[place]) + len(found.tokens[place]))
    with mechanism.apply(model, saes) as changed:
        encoders = {layer: Encoder.of(saes[layer], changed.dtype) for layer in layers}
        made = [_empty(n, changed.d_model, encoders) for _ in windows]
        for start in range(0, n, batch_size):
            these = order[start : start + batch_size]
            texts = [[*found.prompts[place], *found.tokens[place][:-1]] for place in these]
            batch = pad(texts, pad_token=changed.pad_token, device=changed.device)
            lengths = torch.tensor([len(found.prompts[place]) for place in these])
            with hooks.prompts(lengths, torch.tensor(these), batch.tokens):
                read = hooks.read(changed, batch, whole)
            step = (batch.mask.cumsum(-1) - 1).cpu() - lengths[:, None]
            for (first, last), into in zip(windows, made, strict=True):
                counts = batch.mask.cpu() & (step >= first) & (step <= last)
                there = counts.any(1).numpy()
                rows = np.array(these)[there]
                for layer in layers if len(rows) else ():
                    into.resid[layer][rows] = _means(read[layer], counts)[there]
                    into.acts[layer][rows] = _mean_acts(encoders[layer], read[layer], counts)[there]
            progress(min(start + batch_size, n), n)
    return made


def _empty(n: int, d_model: int, encoders: Mapping[int, Encoder]) -> States:
    return States(
        {layer: np.full((n, d_model), np.nan, dtype=np.float32) for layer in encoders},
        {layer: np.full((n, encoder.d_sae), np.nan, dtype=np.float32) for layer, encoder in encoders.items()},
    )


def _means(values: Tensor, counts: Tensor) -> np.ndarray:
    at = counts.to(values.device)[..., None]
    return ((values.float() * at).sum(1) / at.sum(1).clamp(min=1)).cpu().numpy()


def _mean_acts(encoder: Encoder, resid: Tensor, counts: Tensor) -> np.ndarray:
    at = counts.to(resid.device)
    active, row = encoder(resid[at]), at.nonzero()[:, 0]
    totals = torch.zeros(len(resid), encoder.d_sae, device=resid.device)
    totals.index_put_((row[active.token], active.index), active.acts, accumulate=True)
    return (totals / at.sum(1, keepdim=True).clamp(min=1)).cpu().numpy()


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
    """The t of each feature's mean change over items; 0 for one that changes by the same everywhere."""
    error = change.std(0, ddof=1) / np.sqrt(len(change))
    return change.mean(0) / np.where(error > 0, error, np.inf)


def raised(direct: States, one: States, other: States, n: int) -> tuple[list[Feature], list[Feature]]:
    """The `n` features that two mechanisms both raise the most surely, and the `n` that the first raises alone.

    Shared: the largest of the smaller t of the two. Its own: the largest t among those that the other does not raise or
    lower at |t| of 2. Over the items that all three have.
    """
    there = np.isfinite([next(iter(each.resid.values()))[:, 0] for each in (direct, one, other)]).all(0)
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


def along(change: States, target: States) -> Float[np.ndarray, "layer"]:
    """The cosine of two mean changes of the features at each layer, over the items that have both; NaN where none has.

    With the CoT prompt's change over a whole answer for a target, and another's at one decoding step: is the one on the
    way to the other there, and at which layer?
    """
    found = []
    for layer in change.acts:
        there = np.isfinite(change.acts[layer][:, 0]) & np.isfinite(target.acts[layer][:, 0])
        if not there.any():
            found.append(np.nan)
            continue
        a, b = change.acts[layer][there].mean(0), target.acts[layer][there].mean(0)
        size = float(np.linalg.norm(a) * np.linalg.norm(b))
        found.append(float(a @ b) / size if size else 0.0)
    return np.array(found)
