"""Attribution: what ablating each feature would cost a metric, estimated from gradients."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saereason import hooks
from saereason.features import FeatureTable
from saereason.metrics import LogProb, Scored, log_probs, padded
from saereason.model import Model
from saereason.saes import SAE, check_in_units_of_resid, check_saes, decoder_rows

from .moments import Moments, moments


def attribute(
    model: Model,
    saes: Mapping[int, SAE],
    metric: LogProb,
    *,
    steps: int = 1,
    batch_size: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureTable:
    """What each feature gives to the metric, nats: Σ over positions of z · (d · ∂metric/∂h), by item.

    The linear estimate of what the metric loses if the feature is ablated at every position (`Clamp(f, 0)`), after
    attribution patching (Nanda 2023; Marks et al., arXiv 2403.19647). With one step, one backward pass serves all
    layers. With more, the integrated-gradient variant (Sundararajan et al. 2017): the gradient is the mean over that
    many points, midway in equal parts, on the line from the residual stream without any feature of the layer's SAE to
    the stream as it is; a backward pass for each step and layer.

    Columns: `attribution`, the mean over items; `attribution_t`, that over its standard error. Raises ValueError for
    fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; give at least 1.")
    check_saes(model, saes)
    check_in_units_of_resid(saes)
    layers, sums = sorted(saes), {}
    for start in range(0, len(metric.items), batch_size):
        items = metric.items[start : start + batch_size]
        mask = padded(model, items).mask
        resid, grad = _gradients(model, items, layers)
        for layer in layers:
            slope = grad[layer] if steps == 1 else _along(model, saes[layer], layer, resid[layer], items, steps)
            part = moments(by_item(saes[layer], resid[layer], slope, mask).cpu())
            sums[layer] = sums[layer] + part if layer in sums else part
        progress(start + len(items), len(metric.items))
    return _table(sums)


@torch.no_grad()
def by_item(
    sae: SAE,
    resid: Float[Tensor, "item pos d_model"],
    grad: Float[Tensor, "item pos d_model"],
    mask: Bool[Tensor, "item pos"],
) -> Float[Tensor, "item d_sae"]:
    """z · (d · ∂metric/∂h) of every feature, summed over the positions of each item."""
    found, rows = [], decoder_rows(sae)
    for n, at in enumerate(mask):
        acts = sae.encode(resid[n, at].float())
        found.append((acts * (grad[n, at].float() @ rows.T)).sum(0))
    return torch.stack(found)


def _gradients(
    model: Model, items: Sequence[Scored], layers: Sequence[int]
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """The residual stream at each layer, and how the items' metrics rise with it; items do not touch each other."""
    with hooks.traced(model, layers) as found:
        log_probs(model, items).sum().backward()
    return {layer: r.detach() for layer, r in found.items()}, {layer: _grad(r) for layer, r in found.items()}


def _along(model: Model, sae: SAE, layer: int, resid: Tensor, items: Sequence[Scored], steps: int) -> Tensor:
    """The mean gradient at one layer on the way from the stream without features to the stream as it is."""
    with torch.no_grad():
        wide = resid.float()
        features = sae.decode(sae.encode(wide)) - sae.b_dec.float()
    total = torch.zeros_like(wide)
    for step in range(steps):
        at = (wide - (1 - (step + 0.5) / steps) * features).to(resid).requires_grad_()
        with torch.enable_grad(), hooks.resumed(model, layer, at):
            log_probs(model, items).sum().backward()
        total += _grad(at).float()
    return total / steps


def _grad(resid: Tensor) -> Tensor:
    assert resid.grad is not None
    return resid.grad


def _table(sums: Mapping[int, Moments]) -> FeatureTable:
    widths = [len(each.total) for each in sums.values()]
    several = all(each.count > 1 for each in sums.values())
    columns = {"attribution": torch.cat([each.mean for each in sums.values()]).numpy()}
    if several:
        columns["attribution_t"] = torch.cat([each.studentised for each in sums.values()]).numpy()
    layer = np.repeat(list(sums), widths)
    return FeatureTable({"layer": layer, "index": np.concatenate([np.arange(n) for n in widths]), **columns})
