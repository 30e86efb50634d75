"""From which layer on the residual stream says the answer: the logit lens."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saereason import hooks
from saereason.executors import inline, work_unit
from saereason.metrics import padded, targets
from saereason.model import Model
from saereason.runs import Run
from saereason.tasks.task import Kind

from .localise import Family


@dataclass(frozen=True, eq=False)
class AnswerDepths:
    """The first layer after which each item's scored tokens are the likeliest ones, and stay so to the end."""

    family: str
    kind: Kind
    n_layers: int

    layer: Float[np.ndarray, "item"]
    """Mean over the item's tokens that the model gets right at the end; NaN for an item with none."""

    share_right: Float[np.ndarray, "item"]
    """Of the item's scored tokens, how many the model gets right at the end."""


def answer_depths(
    model: Model,
    family: Family,
    *,
    run: Run,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AnswerDepths:
    """The depth at which each item's answer can be read off (nostalgebraist 2020): every layer's residual stream goes
    through the final norm and the unembedding. That it can be read there does not show that it was computed there.
    """
    metric, values = family.metric, np.full((len(family.metric), 2), np.nan)
    units = {}
    for rows in metric.batches():
        items = [(item.prompt, item.continuation, item.scored) for item in (metric.items[n] for n in rows)]
        units[work_unit(model, "lens", family=family.name, items=items)] = rows
    done = 0
    for unit, table in inline(run, units, lambda unit: _depths(model, family, units[unit])):
        values[units[unit]] = table[["layer", "share_right"]].to_numpy(dtype=np.float64)
        done += len(units[unit])
        progress(done, len(metric))
    return AnswerDepths(family.name, family.kind, model.n_layers, values[:, 0], values[:, 1])


@torch.no_grad()
def _depths(model: Model, family: Family, rows: list[int]) -> list[dict[str, float]]:
    items = [family.metric.items[n] for n in rows]
    batch = padded(model, items)
    before = torch.zeros_like(batch.mask)
    for row, item in enumerate(items):
        before[row, -len(item.continuation) :] = torch.tensor(item.scored)
    resid = hooks.read(model, batch, range(model.n_layers))
    likeliest = torch.stack([unembedded(model, resid[layer][before]).argmax(-1) for layer in range(model.n_layers)])
    first, right = _stays(likeliest == targets(items).to(likeliest.device))
    found, of_row = [], before.nonzero()[:, 0]
    for row in range(len(items)):
        mine = of_row == row
        depth = float(first[mine & right].mean()) if (mine & right).any() else float("nan")
        found.append({"layer": depth, "share_right": float(right[mine].float().mean())})
    return found


def unembedded(model: Model, resid: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_vocab"]:
    """What the logits would be if no block came after."""
    normed = resid if model.final_norm is None else model.final_norm(resid)
    return model.hf.get_output_embeddings()(normed)


def _stays(is_right: Bool[Tensor, "layer token"]) -> tuple[Float[Tensor, "token"], Bool[Tensor, "token"]]:
    """For each token the first layer from which all are right, and whether the last one is."""
    n_stay = is_right.flip(0).long().cumprod(0).sum(0)
    return (len(is_right) - n_stay).double(), is_right[-1]
