"""Directions that need no SAE: what every feature must be compared with."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saereason.examples import Examples
from saereason.hooks import read
from saereason.model import Model


@torch.no_grad()
def diff_mean(
    model: Model, examples: Examples, layers: Sequence[int], *, batch_size: int = 32
) -> dict[int, Float[Tensor, "d_model"]]:
    """Mean residual of the tokens that show the behaviour less that of those that do not (AxBench, arXiv 2501.17148).

    In the residual stream's own units, one vector a layer, float32.
    """
    totals = {layer: torch.zeros(2, model.d_model, dtype=torch.float64) for layer in layers}
    counts = torch.zeros(2, dtype=torch.float64)
    for batch in examples.batches(batch_size, model.device):
        resid = read(model, batch.batch, layers)
        label = batch.label[batch.valid].cpu()
        counts += torch.tensor([(~label).sum(), label.sum()], dtype=torch.float64)
        for layer in layers:
            rows = resid[layer][batch.valid].cpu().double()
            totals[layer] += torch.stack([rows[~label].sum(0), rows[label].sum(0)])
    if (counts == 0).any():
        raise ValueError(f"{int(counts[1])} tokens show the behaviour and {int(counts[0])} do not; both are needed.")
    means = {layer: total / counts[:, None] for layer, total in totals.items()}
    return {layer: (mean[1] - mean[0]).float() for layer, mean in means.items()}
