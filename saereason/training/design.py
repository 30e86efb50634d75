"""What kind of SAE to train, as SAELens's own training classes."""

from dataclasses import dataclass
from typing import Any

import torch

from saereason.model import Model

BY_K = ("topk", "batchtopk", "matryoshka_batchtopk")
BY_PENALTY = {"jumprelu": ("l0_coefficient", 1.0), "standard": ("l1_coefficient", 5.0)}
"""Architectures whose sparsity follows from a penalty: its name in SAELens, and its weight unless given."""

MATRYOSHKA = 8
"""The smallest of the nested SAEs has one in so many of the features."""


@dataclass(frozen=True)
class Design:
    """Everything that decides one SAE but for the activations it is trained on.

    `frozen` keeps a random decoder or encoder as it was drawn, a control for what training adds (arXiv 2602.14111).
    """

    architecture: str = "topk"
    """`topk`, `batchtopk`, `matryoshka_batchtopk`, `jumprelu` or `standard` (ReLU with L1)."""

    d_sae: int = 4608
    k: int = 32
    """Active features a token, for the Top-K family (on average over a batch for BatchTopK)."""

    penalty: float | None = None
    """Weight of the sparsity loss, for `jumprelu` (L0) and `standard` (L1); SAELens's own unless given."""

    frozen: str | None = None
    lr: float = 1.5e-3
    dead_after: int = 40_000
    """Tokens without firing after which a feature counts as dead, and joins the auxiliary loss of the Top-K family."""

    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture not in (*BY_K, *BY_PENALTY):
            raise ValueError(f"no architecture {self.architecture!r}; there are {sorted((*BY_K, *BY_PENALTY))}.")
        if not 0 < self.k <= self.d_sae:
            raise ValueError(f"k is {self.k} and d_sae {self.d_sae}; k must be from 1 to d_sae.")
        if self.frozen not in (None, "decoder", "encoder"):
            raise ValueError(f"frozen is {self.frozen!r}; it can be 'decoder', 'encoder' or None.")
        if self.architecture == "matryoshka_batchtopk" and self.d_sae < MATRYOSHKA:
            raise ValueError(
                f"d_sae is {self.d_sae}; a matryoshka SAE needs at least {MATRYOSHKA}, its parts being eighths."
            )
        if self.penalty is not None and not 0 <= self.penalty < float("inf"):
            raise ValueError(f"penalty is {self.penalty}; it must be 0 or a positive number.")
        if self.penalty is not None and self.by_k:
            raise ValueError(f"a {self.architecture} SAE has no penalty; its sparsity is k.")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr is {self.lr}; it must be a positive number.")

    @property
    def by_k(self) -> bool:
        """True where `k` decides how many features are active."""
        return self.architecture in BY_K

    def draw(self, model: Model, layer: int, device: torch.device) -> Any:
        """SAELens's training SAE of this design, with initial weights drawn from the seed and the layer."""
        from sae_lens.registry import get_sae_training_class
        from sae_lens.saes.sae import SAEMetadata

        sae_class, config_class = get_sae_training_class(self.architecture)
        metadata = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post")
        config = config_class(
            d_in=model.d_model, d_sae=self.d_sae, device=str(device), metadata=metadata, **self._sparsity()
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1_000 + layer)  # SAELens draws from the global generator
            sae = sae_class(config)
        fixed = {"decoder": ("W_dec",), "encoder": ("W_enc", "b_enc"), None: ()}[self.frozen]
        for name in fixed:
            getattr(sae, name).requires_grad_(False)
        return sae.train()

    def _sparsity(self) -> dict[str, Any]:
        if self.architecture == "matryoshka_batchtopk":
            return {
                "k": self.k,
                "matryoshka_widths": [self.d_sae // MATRYOSHKA, self.d_sae // 4, self.d_sae // 2, self.d_sae],
            }
        if self.by_k:
            return {"k": self.k}
        name, usual = BY_PENALTY[self.architecture]
        return {name: usual if self.penalty is None else self.penalty}
