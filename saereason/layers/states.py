"""The residual stream where a text ends."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from saereason import hooks
from saereason.model import Model, pad


@torch.no_grad()
def last_states(
    model: Model, texts: Sequence[Sequence[int]], *, batch_size: int = 16
) -> Float[np.ndarray, "layer item d_model"]:
    """The residual stream at each text's last token, after every block."""
    order, found = sorted(range(len(texts)), key=lambda n: len(texts[n])), {}
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = pad([list(texts[n]) for n in rows], pad_token=model.pad_token, device=model.device)
        resid = hooks.read(model, batch, range(model.n_layers))
        last = torch.stack([resid[layer][:, -1].float().cpu() for layer in range(model.n_layers)], dim=1)
        found |= dict(zip(rows, last, strict=True))
    return torch.stack([found[n] for n in range(len(texts))], dim=1).double().numpy()
