"""Units for sizes that mean the same at every depth: largest activations, and norms of the residual stream."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from saereason import hooks
from saereason.features import Feature
from saereason.model import Model, Rendered, pad
from saereason.saes import SAE, check_saes, feature_acts, sae_at

Texts = Sequence[str | Rendered]


def largest_acts(
    model: Model, saes: Mapping[int, SAE], features: Sequence[Feature], texts: Texts, *, batch_size: int = 8
) -> dict[Feature, float]:
    """The largest activation of each feature on the tokens of some texts but the first of each (0 where it is off).

    ReasonScore (arXiv 2503.18878) steers with twice this.
    """
    for feature in features:
        sae_at(saes, feature)
    layers = sorted({feature.layer for feature in features})
    check_saes(model, {layer: saes[layer] for layer in layers})
    largest = dict.fromkeys(features, 0.0)
    for resid in _residuals(model, layers, texts, batch_size):
        for feature in features:
            acts = feature_acts(saes[feature.layer], resid[feature.layer], feature.index)
            largest[feature] = max(largest[feature], float(acts.max()))
    return largest


def mean_norms(model: Model, layers: Sequence[int], texts: Texts, *, batch_size: int = 8) -> dict[int, float]:
    """The mean norm of the residual stream after each layer, over the tokens of some texts but the first of each."""
    if not layers:
        raise ValueError("there are no layers; give at least one.")
    totals, n = dict.fromkeys(layers, 0.0), 0
    for resid in _residuals(model, layers, texts, batch_size):
        for layer in layers:
            totals[layer] += float(resid[layer].norm(dim=-1).double().sum())
        n += len(resid[layers[0]])
    return {layer: total / n for layer, total in totals.items()}


def _residuals(model: Model, layers: Sequence[int], texts: Texts, batch_size: int) -> Iterator[dict[int, Tensor]]:
    """The residual stream of the tokens of some texts, but for the first of each, whose norm is like no other."""
    rows = sorted((model.encode(text) for text in texts), key=len)
    if not rows or len(rows[-1]) < 2:
        raise ValueError(f"{len(rows)} texts have no token but their first; give longer ones.")
    for start in range(0, len(rows), batch_size):
        batch = pad(rows[start : start + batch_size], pad_token=model.pad_token, device=model.device)
        counts = batch.mask & (batch.mask.cumsum(-1) > 1)
        if counts.any():
            yield {layer: resid[counts].float() for layer, resid in hooks.read(model, batch, layers).items()}
