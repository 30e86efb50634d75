"""One fast training step of SAELens's Top-K family: the same loss and gradients, without dense matrices of activations.

`sae_lens` multiplies matrices that are almost all zero, and leaves their gradients to autograd. Here one matrix product
finds the active features; everything after it visits the active ones alone, and gradients are written out. Losses,
dead-feature term and the treatment of decoder norms are SAELens's (`TopKTrainingSAE`, `BatchTopKTrainingSAE`,
`MatryoshkaBatchTopKTrainingSAE`).
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

CANDIDATES = 4
"""Times k: as many features of one token are looked at first when a batch shares its active features out."""


@dataclass(frozen=True, eq=False)
class StepLoss:
    """What one batch says of an SAE."""

    loss: Float[Tensor, ""]
    mse: Float[Tensor, ""]
    fired: Int[Tensor, "active"]
    """Indices of features that were active, with repeats."""


@dataclass(frozen=True, eq=False)
class Active:
    """The features chosen for a batch, one entry each, in bags: those of one token in one part of the dictionary."""

    bag: Int[Tensor, "entry"]
    """Part · rows + row, ascending."""

    index: Int[Tensor, "entry"]
    pre_acts: Float[Tensor, "entry"]
    n_bags: int

    def summed(self, table: Tensor, acts: Tensor) -> Float[Tensor, "bag d_model"]:
        """What the entries of each bag add up to: each its activation times its row of the table."""
        return embedding_bag(self.index, table, _starts(self.bag, self.n_bags), per_sample_weights=acts, mode="sum")


def topk_step(sae: Any, x: Float[Tensor, "row d_model"], dead: Bool[Tensor, "d_sae"] | None) -> StepLoss:
    """Squared error summed over d_model plus the auxiliary loss of dead features (Gao et al., arXiv 2406.04093, A.2).

    Leaves the gradients in `.grad` of the weights that learn. `x` is in the encoder's precision; the encoder's products
    run in it, errors and gradients in float32. A Matryoshka SAE adds the squared error of every prefix of its features.
    """
    with torch.no_grad():
        return _step(sae, x, dead)


def _step(sae: Any, x: Tensor, dead: Tensor | None) -> StepLoss:
    n, norms = len(x), sae.W_dec.norm(dim=-1)
    rows, encoder = sae.W_dec / norms[:, None], sae.W_enc * norms
    centred = x - sae.b_dec.to(x.dtype)
    pre_acts = torch.addmm((sae.b_enc * norms).to(x.dtype), centred, encoder.to(x.dtype))
    active = _active(sae.cfg, pre_acts)
    if hasattr(sae, "update_topk_threshold"):  # what serves instead of sharing out when there is no batch
        sae.update_topk_threshold(active.pre_acts)
    acts = active.pre_acts.relu().requires_grad_()
    with torch.enable_grad():
        parts = active.summed(rows, acts)
    errors = parts.detach().view(-1, n, x.shape[1]).cumsum(0).add_(sae.b_dec).sub_(x)  # one for each prefix
    losses = errors.square().sum(-1).mean(-1)
    upstream = errors.flip(0).cumsum(0).flip(0).mul_(2 / n).flatten(0, 1)
    parts.backward(upstream)
    of_pre_acts = (acts.grad * (active.pre_acts > 0)).detach()  # pyright: ignore[reportOptionalOperand]
    by_feature = active.index.argsort()
    starts = _starts(active.index[by_feature], len(rows))
    sources = active.bag[by_feature]
    of_rows = embedding_bag(sources, upstream, starts, per_sample_weights=acts.detach()[by_feature], mode="sum")
    of_encoder = embedding_bag(
        sources % n, centred.float(), starts, per_sample_weights=of_pre_acts[by_feature], mode="sum"
    )
    of_bias = torch.zeros_like(norms).index_add_(0, active.index, of_pre_acts)
    of_b_dec = upstream[:n].sum(0)
    loss = losses.sum()
    if dead is not None and dead.any():
        auxiliary = _Auxiliary.of(sae, pre_acts, rows, centred, errors[-1], dead)
        loss = loss + auxiliary.loss
        of_rows[dead] += auxiliary.of_rows
        of_encoder[dead] += auxiliary.of_encoder
        of_bias[dead] += auxiliary.of_bias
    of_norms = (of_encoder * sae.W_enc.T).sum(-1) + of_bias * sae.b_enc
    along = (rows * of_rows).sum(-1)
    _learn(sae.W_dec, torch.addcmul(of_rows / norms[:, None], rows, (of_norms - along / norms)[:, None]))
    _learn(sae.W_enc, (of_encoder * norms[:, None]).T.contiguous())
    _learn(sae.b_enc, of_bias * norms)
    _learn(sae.b_dec, of_b_dec - encoder @ of_bias)
    return StepLoss(loss, losses[-1], active.index[active.pre_acts > 0])


def _learn(weight: Tensor, gradient: Tensor) -> None:
    if weight.requires_grad:
        weight.grad = gradient


def _active(settings: Any, pre_acts: Tensor) -> Active:
    n, d_sae = pre_acts.shape
    if settings.architecture() == "topk":
        values, index = pre_acts.topk(settings.k, dim=-1, sorted=False)
        row = torch.arange(n, device=index.device).repeat_interleave(settings.k)
        return Active(row, index.flatten(), values.float().flatten(), n)
    row, index, values = _shared_out(pre_acts, int(settings.k * n))
    widths = torch.tensor(getattr(settings, "matryoshka_widths", [d_sae]), device=index.device)
    bag, order = (torch.bucketize(index, widths, right=True) * n + row).sort()
    return Active(bag, index[order], values[order].float(), len(widths) * n)


def _shared_out(pre_acts: Tensor, n_active: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row, index and value of the `n_active` largest of a whole batch (BatchTopK, arXiv 2412.06410).

    A few candidates of each token nearly always hold them all; where they do not, every feature is looked at.
    """
    n, d_sae = pre_acts.shape
    width = min(d_sae, CANDIDATES * -(-n_active // n))
    while True:
        values, index = pre_acts.topk(width, dim=-1)
        best, place = values.flatten().topk(n_active, sorted=False)
        if width == d_sae or values[:, -1].max() < best.min():
            return place // width, index.flatten()[place], best
        width = d_sae


def _starts(ascending: Tensor, n: int) -> Int[Tensor, "n"]:
    """Where each of the groups 0 to n − 1 begins in ascending group numbers."""
    return torch.searchsorted(ascending, torch.arange(n, device=ascending.device))


@dataclass(frozen=True, eq=False)
class _Auxiliary:
    """The dead features most ready to fire are asked to reconstruct what the living ones missed."""

    loss: Tensor
    of_rows: Tensor
    of_encoder: Tensor
    of_bias: Tensor

    @classmethod
    def of(cls, sae: Any, pre_acts: Tensor, rows: Tensor, centred: Tensor, error: Tensor, dead: Tensor) -> "_Auxiliary":
        n_dead, half = int(dead.sum()), error.shape[-1] // 2
        theirs = pre_acts[:, dead]
        table, chosen = rows[dead].to(theirs.dtype), torch.ones_like(theirs, dtype=torch.bool)
        if n_dead > half:
            chosen = torch.zeros_like(chosen).scatter_(-1, theirs.topk(half, dim=-1, sorted=False).indices, True)
        acts = theirs * chosen  # below 0 too
        weight = sae.cfg.aux_loss_coefficient * min(n_dead / half, 1.0)
        missed = (acts @ table).float() + error
        upstream = (missed * (2 * weight / len(error))).to(theirs.dtype)
        of_pre_acts = (upstream @ table.T) * chosen
        return cls(
            weight * missed.square().sum(-1).mean(),
            (acts.T @ upstream).float(),
            (of_pre_acts.T @ centred).float(),
            of_pre_acts.float().sum(0),
        )
