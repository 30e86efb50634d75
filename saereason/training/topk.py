"""One fast training step of SAELens's Top-K SAE: the same loss, with a sparse decode.

`sae_lens` multiplies a dense matrix of activations, almost all zero, with the decoder; here `embedding_bag` reads the
k rows that matter. Loss, dead-feature term and the treatment of decoder norms are SAELens's (`TopKTrainingSAE`).
"""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass(frozen=True, eq=False)
class StepLoss:
    """What one batch says of an SAE."""

    loss: Float[Tensor, ""]
    mse: Float[Tensor, ""]
    fired: Int[Tensor, "active"]
    """Indices of features that were active, with repeats."""


def topk_loss(sae: Any, x: Float[Tensor, "row d_model"], dead: Bool[Tensor, "d_sae"] | None) -> StepLoss:
    """Squared error summed over d_model plus the auxiliary loss of dead features (Gao et al., arXiv 2406.04093, A.2).

    `x` is in the encoder's precision; matrix products run in it, errors and updates in float32.
    """
    rows = sae.W_dec / sae.W_dec.norm(dim=-1, keepdim=True)
    centred = x - sae.b_dec.to(x.dtype)
    norms = sae.W_dec.norm(dim=-1)
    pre_acts = (centred @ sae.W_enc.to(x.dtype) + sae.b_enc.to(x.dtype)) * norms.to(x.dtype)
    values, index = pre_acts.topk(sae.cfg.k, dim=-1, sorted=False)
    acts = values.float().relu()
    x_hat = embedding_bag(index, rows, per_sample_weights=acts, mode="sum") + sae.b_dec
    error = x.float() - x_hat
    mse = error.square().sum(-1).mean()
    loss = mse
    if dead is not None and dead.any():
        loss = loss + _auxiliary(sae, pre_acts, rows, error.detach(), dead)
    return StepLoss(loss, mse.detach(), index[values > 0])


def _auxiliary(sae: Any, pre_acts: Tensor, rows: Tensor, error: Tensor, dead: Tensor) -> Tensor:
    """The dead features most ready to fire are asked to reconstruct what the living ones missed."""
    n_dead = int(dead.sum())
    k = min(error.shape[-1] // 2, n_dead)
    scale = min(n_dead / (error.shape[-1] // 2), 1.0)
    values, index = pre_acts.masked_fill(~dead, float("-inf")).topk(k, dim=-1, sorted=False)
    recovered = embedding_bag(index, rows, per_sample_weights=values.float(), mode="sum")  # below 0 too
    return sae.cfg.aux_loss_coefficient * scale * (recovered - error).square().sum(-1).mean()
