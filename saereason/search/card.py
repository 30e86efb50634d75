"""All that is shown of one feature."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from saereason.features import Feature
from saereason.model import Model
from saereason.saes import SAE, decoder_cosines, decoder_row, sae_at, sae_hash

from .contexts import EDGES, Context, Contexts
from .written import Written, written_tokens

QUANTILES = (0.9, 0.75, 0.5, 0.25, 0.1)


@dataclass(frozen=True, eq=False)
class FeatureCard:
    """What a feature reads, what it writes, and how often it is on."""

    feature: Feature
    n_tokens: int
    """Read."""

    firing_rate: float
    """Share of those tokens on which it fires."""

    max_act: float
    top: tuple[Context, ...]
    """The strongest contexts, at most one of a row."""

    quantiles: Mapping[float, tuple[Context, ...]]
    """Contexts about each quantile of the activations above 0: what it reads when it is not at its strongest."""

    density: tuple[tuple[float, float, int], ...]
    """Activation from, to (half octaves), and the tokens between."""

    written: Written
    neighbours: tuple[tuple[Feature, float], ...]
    """Features of these SAEs with the nearest decoder rows, and the cosines."""


def feature_card(
    model: Model,
    saes: Mapping[int, SAE],
    feature: Feature,
    contexts: Contexts,
    *,
    n_each: int = 3,
    n_neighbours: int = 8,
    n_tokens: int = 10,
) -> FeatureCard:
    """The card of one feature, `contexts` being what `feature_contexts` read with these SAEs.

    `n_each` contexts about each quantile; `n_tokens` tokens that it raises and lowers most. Raises ValueError for a
    feature that is not there, and for contexts that were read with another SAE.
    """
    written = written_tokens(model, saes, feature, n_tokens)
    number = contexts.number(feature)
    if dict(contexts.saes)[feature.layer] != sae_hash(saes[feature.layer]):
        raise ValueError(f"the contexts were read with another SAE of layer {feature.layer}; read them with this one.")
    counts, top = contexts.density[number], contexts.top.of(number)
    filled = counts.nonzero().flatten().tolist()
    return FeatureCard(
        feature=feature,
        n_tokens=contexts.n_tokens,
        firing_rate=counts.sum().item() / contexts.n_tokens,
        max_act=top[0].act if top else 0.0,
        top=top,
        quantiles=_about_quantiles(contexts.sample.of(number), n_each),
        density=tuple((float(EDGES[n]), float(EDGES[n + 1]), int(counts[n])) for n in filled),
        written=written,
        neighbours=_neighbours(saes, feature, n_neighbours),
    )


def _about_quantiles(sample: tuple[Context, ...], n_each: int) -> dict[float, tuple[Context, ...]]:
    """The `n_each` contexts of a fair sample nearest to each quantile, the strongest first."""
    rising = sorted(sample, key=lambda context: context.act)
    found = {}
    for q in QUANTILES:
        first = round(q * (len(rising) - 1)) - n_each // 2
        first = max(0, min(first, len(rising) - n_each))
        found[q] = tuple(reversed(rising[first : first + n_each]))
    return found


def _neighbours(saes: Mapping[int, SAE], feature: Feature, n: int) -> tuple[tuple[Feature, float], ...]:
    row = decoder_row(sae_at(saes, feature), feature.index)
    found = []
    for layer, sae in saes.items():
        cosines = decoder_cosines(sae, row)
        if layer == feature.layer:
            cosines[feature.index] = -torch.inf
        values, indices = cosines.topk(min(n, len(cosines)))
        found += [(Feature(layer, i), v) for i, v in zip(indices.tolist(), values.tolist(), strict=True) if v >= -1]
    return tuple(sorted(found, key=lambda each: -each[1])[:n])
