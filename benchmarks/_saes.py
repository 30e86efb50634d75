"""SAEs with SAELens's initial weights, whose cost is that of trained ones."""

import sae_lens as lens
from sae_lens.saes.sae import SAEMetadata

from saereason.model import Model
from saereason.saes import SAE

KINDS = {
    "standard": (lens.StandardSAE, lens.StandardSAEConfig),
    "jumprelu": (lens.JumpReLUSAE, lens.JumpReLUSAEConfig),
    "topk": (lens.TopKSAE, lens.TopKSAEConfig),
}


def random_sae(model: Model, layer: int, architecture: str, d_sae: int, k: int = 32) -> SAE:
    """An SAE of one layer; only Top-K ones need a `k`."""
    kind, config = KINDS[architecture]
    more = {"k": k} if architecture == "topk" else {}
    metadata = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post")
    return kind(config(d_in=model.d_model, d_sae=d_sae, metadata=metadata, **more)).requires_grad_(False)
