"""What a mechanism changes inside the model, against the direct prompt on the same items: its fingerprint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saereason import hooks
from saereason.model import Model, pad
from saereason.saes import SAE, Encoder

from .mechanism import Mechanism, Progress, Written, unseen

TOP, FEWEST = 50, 8
"""Features of a layer that an overlap of ranks is of, and items that an overlap needs."""

Items = Float[np.ndarray, "item _"]
Halves = tuple[np.ndarray, np.ndarray]
Orders = Int[np.ndarray, "order _"]


@dataclass(frozen=True, eq=False)
class States:
    """Means over the positions that predict an item's answer: the prompt's last, and all of the answer but its last.

    By layer, `[item, ·]`: the residual stream, and the activation of every feature.
    """

    resid: Mapping[int, Items]
    acts: Mapping[int, Items]

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
                read = hooks.read(changed, batch, layers)
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


def overlap(direct: States, one: States, other: States, *, n_orders: int = 500, seed: int = 0) -> Overlap:
    """How alike the changes from the direct answers to two others are, on the same items in the same order.

    Raises ValueError for fewer than eight items that all three have.
    """
    there = np.isfinite([next(iter(each.resid.values()))[:, 0] for each in (direct, one, other)]).all(0)
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(np.flatnonzero(there))
    if len(drawn) < FEWEST:
        raise ValueError(f"{len(drawn)} items have answers under all three; an overlap needs at least {FEWEST}.")
    halves = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
    a, b = one.less(direct), other.less(direct)
    acts = _likeness(_cosine, direct.acts, a.acts, b.acts, halves, n_orders, rng)
    resid = _likeness(_cosine, direct.resid, a.resid, b.resid, halves, n_orders, rng)
    top = _likeness(_in_common, direct.acts, a.acts, b.acts, halves, n_orders, rng)
    ends = [float(np.quantile(each[1:], 0.95)) for each in (acts, resid, top)]
    p = float(np.mean(acts >= acts[0] - 1e-12))
    return Overlap(float(acts[0]), ends[0], p, float(resid[0]), ends[1], float(top[0]), ends[2])


def _likeness(
    measure: Callable[[Items, Items, Orders], np.ndarray],
    direct: Mapping[int, Items],
    one: Mapping[int, Items],
    other: Mapping[int, Items],
    halves: Halves,
    n: int,
    rng: Any,
) -> Float[np.ndarray, "order"]:
    """A measure, mean over layers and both ways of the halves; first as the features are, then in other orders."""
    found, items = [], np.concatenate(halves)
    for layer in one:
        orders = _orders(np.abs(direct[layer][items]).mean(0), n, rng)
        found += [measure(one[layer][x], other[layer][y], orders) for x, y in (halves, halves[::-1])]
    return np.mean(found, axis=0)


def _cosine(one: Items, other: Items, orders: Orders) -> Float[np.ndarray, "order"]:
    """Of two mean changes."""
    a, b = one.mean(0), other.mean(0)
    size = np.linalg.norm(a) * np.linalg.norm(b)
    return b[orders] @ a / size if size else np.zeros(len(orders))


def _in_common(one: Items, other: Items, orders: Orders) -> Float[np.ndarray, "order"]:
    """The share of their surest features that two changes share."""
    a, b = _surest(one), _surest(other)
    return (a & b[orders]).sum(1) / a.sum()


def _surest(change: Items) -> Bool[np.ndarray, "_"]:
    """The features of the largest |t|: fifty, or a twentieth of a small SAE's."""
    error = change.std(0, ddof=1) / np.sqrt(len(change))
    t = np.abs(change.mean(0)) / np.where(error > 0, error, np.inf)
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
