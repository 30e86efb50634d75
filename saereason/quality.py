"""How good an SAE is on the model it is asked to serve."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import hooks
from .model import Batch, Model, pad
from .saes import SAE, check_saes


@dataclass(frozen=True, eq=False)
class Quality:
    """Measured over tokens that are neither padding nor the first of their text (its residual norm is enormous)."""

    layer: int

    explained_variance: float
    """1 − Σ|x − x̂|² / Σ|x − mean x|²."""

    l0: float
    """Mean number of active features a token."""

    dead: float
    """Share of features that fired on none of these tokens."""

    loss_recovered: float
    """(loss with the mean − loss with the SAE's output) / (loss with the mean − clean loss), each put in its place."""

    mean_norm: float
    """Mean |x|."""

    n_tokens: int
    firing_rate: np.ndarray
    """Share of tokens on which each feature fires, `[d_sae]`."""


@torch.no_grad()
def evaluate_saes(
    model: Model,
    saes: Mapping[int, SAE],
    rows: Sequence[Sequence[int]],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Quality]:
    """Quality of every SAE on rows of token ids; statistics in one pass for all layers, losses in two more a layer.

    Raises ValueError for rows without two tokens to measure, in all.
    """
    check_saes(model, saes)
    if sum(max(0, len(row) - 1) for row in rows) < 2:
        raise ValueError(f"{len(rows)} rows have no tokens to measure (the first of each is left out); give more text.")
    layers = sorted(saes)
    sums = {layer: _Sums.empty(len(saes[layer].W_dec), model.d_model) for layer in layers}
    batches = [
        pad(rows[n : n + batch_size], pad_token=0, side="right", device=model.device)
        for n in range(0, len(rows), batch_size)
    ]
    total = len(batches) * (2 + 2 * len(layers))
    done = 0
    clean = 0.0
    for batch in batches:
        resid = hooks.read(model, batch, layers)
        for layer in layers:
            sums[layer] += _observe(saes[layer], resid[layer][_scored(batch)].float())
        clean += _loss(model, batch)
        progress(done := done + 2, total)
    found = []
    for layer in layers:
        mean, losses = sums[layer].x / sums[layer].n, []
        for replace in (saes[layer], mean.to(model.device)):
            loss = 0.0
            for batch in batches:
                with hooks.edited(model, [_replacing(layer, replace)]):
                    loss += _loss(model, batch)
                progress(done := done + 1, total)
            losses.append(loss)
        found.append(sums[layer].quality(layer, clean, losses[0], losses[1]))
    return found


@dataclass(frozen=True, eq=False)
class _Sums:
    n: int
    x: Tensor
    x_square: float
    error: float
    norm: float
    fired: Tensor

    @classmethod
    def empty(cls, d_sae: int, d_model: int) -> "_Sums":
        x = torch.zeros(d_model, dtype=torch.float64)
        return cls(0, x, 0.0, 0.0, 0.0, torch.zeros(d_sae, dtype=torch.float64))

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.n + other.n,
            self.x + other.x,
            self.x_square + other.x_square,
            self.error + other.error,
            self.norm + other.norm,
            self.fired + other.fired,
        )

    def quality(self, layer: int, clean: float, spliced: float, ablated: float) -> Quality:
        variance = self.x_square - (self.x.square().sum() / self.n).item()
        return Quality(
            layer=layer,
            explained_variance=1 - _ratio(self.error, variance),
            l0=(self.fired.sum() / self.n).item(),
            dead=(self.fired == 0).double().mean().item(),
            loss_recovered=_ratio(ablated - spliced, ablated - clean),
            mean_norm=self.norm / self.n,
            n_tokens=self.n,
            firing_rate=(self.fired / self.n).numpy(),
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _observe(sae: SAE, x: Tensor) -> _Sums:
    acts = sae.encode(x)
    error = (x - sae.decode(acts)).cpu().double().square().sum().item()  # not every device has float64
    wide = x.cpu().double()
    fired = (acts > 0).sum(0).cpu().double()
    return _Sums(len(x), wide.sum(0), wide.square().sum().item(), error, wide.norm(dim=-1).sum().item(), fired)


def _replacing(layer: int, by: SAE | Tensor) -> hooks.Edit:
    """The residual after a block replaced by its reconstruction, or by one vector; a text's first token is left."""

    def delta(before: Tensor, x: Tensor) -> Tensor:  # noqa: ARG001
        return (by.expand_as(x).to(x) if isinstance(by, Tensor) else by.decode(by.encode(x))) - x

    return hooks.Edit(layer, "splice", lambda at: at.position > 0, delta)


def _scored(batch: Batch) -> Tensor:
    scored = batch.mask.clone()
    scored[:, 0] = False
    return scored


def _loss(model: Model, batch: Batch) -> float:
    """Sum over tokens of the next-token cross-entropy, nats."""
    logits = hooks.run(model, batch, use_cache=False).logits[:, :-1]
    targets = batch.tokens[:, 1:]
    scored = batch.mask[:, 1:]
    wide = logits[scored].float()
    chosen = wide.gather(-1, targets[scored][:, None])[:, 0] - wide.logsumexp(-1)
    return -chosen.cpu().double().sum().item()
