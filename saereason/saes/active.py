"""The features that are active on each token, without the matrix of all that are not."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .sae import SAE, layer_of

AT_ONCE = 512
"""Tokens whose activations are held at once, those that are 0 too; many large matrices leave holes in the memory."""


@dataclass(frozen=True, eq=False)
class Active:
    """Entries with an activation above 0, in any order of features, tokens ascending."""

    token: Int[Tensor, "entry"]
    index: Int[Tensor, "entry"]
    acts: Float[Tensor, "entry"]


@dataclass(frozen=True, eq=False)
class Encoder:
    """An SAE ready to encode many tokens in one precision; a Top-K SAE gives its k entries a token at once."""

    sae: SAE
    d_sae: int
    weights: tuple[Tensor, Tensor, Tensor] | None
    """`W_enc`, `b_enc` and what is taken off the input, for a Top-K SAE."""

    @classmethod
    def of(cls, sae: SAE, dtype: torch.dtype) -> "Encoder":
        d_sae = len(sae.W_dec)
        plain = sae.cfg.architecture() == "topk" and sae.cfg.normalize_activations == "none"
        if not plain or getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            return cls(sae, d_sae, None)
        made: Any = sae
        centre = sae.b_dec * bool(sae.cfg.apply_b_dec_to_input)
        return cls(sae, d_sae, (sae.W_enc.to(dtype), made.b_enc.to(dtype), centre.to(dtype)))

    def __call__(self, x: Float[Tensor, "token d_model"]) -> Active:
        """Raises ValueError for a residual stream that is not finite, and for activations that are not."""
        if self.weights is None:
            acts = self.sae.encode(x.to(self.sae.W_enc.dtype))
            self._check_finite(x, acts)
            token, index = acts.nonzero(as_tuple=True)
            return Active(token, index, acts[token, index].float())
        pieces = [self._top_k(piece, *self.weights) for piece in x.split(AT_ONCE)]
        values, index = pieces[0] if len(pieces) == 1 else map(torch.cat, zip(*pieces, strict=True))
        self._check_finite(x, values)
        flat = values.flatten()
        fires = (flat > 0).nonzero()[:, 0]
        return Active(fires // self.sae.cfg.k, index.flatten()[fires], flat[fires].float())

    def _top_k(self, x: Tensor, W_enc: Tensor, b_enc: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
        """Values and indices, `[token, k]` each."""
        return torch.addmm(b_enc, x.to(W_enc.dtype) - centre, W_enc).topk(self.sae.cfg.k, dim=-1, sorted=False)

    def _check_finite(self, x: Tensor, acts: Tensor) -> None:
        for what, values in (("the residual stream that it reads", x), ("its activations", acts)):
            if not values.sum().isfinite() and not values.isfinite().all():
                bad = int((~values.isfinite()).any(-1).sum())
                where = f"layer {layer_of(self.sae, 'the SAE')}"
                raise ValueError(
                    f"the SAE at {where} cannot be used: {what} at {bad} of {len(x)} tokens are not finite; load the "
                    "model in float32, and look at its weights."
                )
