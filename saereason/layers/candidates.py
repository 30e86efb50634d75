"""A layer's candidate features taken out or put in, beside as many others that fire as often."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from saereason.controls import matched_features
from saereason.examples import Examples
from saereason.features import Feature, FeatureTable
from saereason.model import Model
from saereason.quality import firing_rates
from saereason.saes import SAE, decoder_row
from saereason.search import search
from saereason.steering import AddVector, Clamp, Divergence, at_kl, steered

from .localise import Curve
from .operators import OneByOne

CANDIDATES, MATCHED = "candidate features", "matched features"
"""What the two groups of features are called."""

NATS = 0.1
"""How far putting features in moves the next token, at every layer."""

Groups = Mapping[str, Mapping[int, tuple[Feature, ...]]]


@dataclass(frozen=True)
class WithoutFeatures(OneByOne):
    """Some features of a layer are held at zero."""

    group: str
    features: Mapping[int, tuple[Feature, ...]]

    @property
    def name(self) -> str:
        return f"without {self.group}"

    def layers(self, model: Model, saes: Mapping[int, SAE]) -> Sequence[int]:  # noqa: ARG002
        return sorted(layer for layer in self.features if layer in saes)

    @contextmanager
    def acting(self, model: Model, saes: Mapping[int, SAE], layer: int) -> Iterator[Any]:
        clamps = [Clamp(feature, 0.0) for feature in self.features[layer]]
        with steered(model, saes, *clamps) as steering:
            yield steering


@dataclass(frozen=True, eq=False)
class WithFeatures(OneByOne):
    """The mean of some features' decoder rows is added to the residual stream after a layer, at every position."""

    group: str
    additions: Mapping[int, AddVector]
    kl: Mapping[int, float]
    """Mean KL in nats of the next token that each addition was measured to have."""

    @classmethod
    def of(
        cls,
        group: str,
        features: Mapping[int, tuple[Feature, ...]],
        saes: Mapping[int, SAE],
        budget: Divergence,
        *,
        nats: float = NATS,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "WithFeatures":
        """At each layer, of the size that moves the next token by so many nats over the budget's texts."""
        additions, kl = {}, {}
        for layer, those in features.items():
            mean = torch.stack([decoder_row(saes[layer], feature.index) for feature in those]).mean(0)
            unit = AddVector(layer, mean / mean.norm(), name=group)
            additions[layer], kl[layer] = at_kl(
                budget, saes, lambda size, unit=unit: replace(unit, coefficient=size), nats
            )
            progress(len(kl), len(features))
        return cls(group, additions, kl)

    @property
    def name(self) -> str:
        return f"with {self.group}"

    def layers(self, model: Model, saes: Mapping[int, SAE]) -> Sequence[int]:  # noqa: ARG002
        return sorted(self.additions)

    @contextmanager
    def acting(self, model: Model, saes: Mapping[int, SAE], layer: int) -> Iterator[Any]:
        with steered(model, saes, self.additions[layer]) as steering:
            yield steering


def candidate_features(
    model: Model, saes: Mapping[int, SAE], examples: Examples, texts: Sequence[Sequence[int]], n: int, *, seed: int = 0
) -> Groups:
    """The `n` features of each layer that go most with the examples' label, and as many drawn for each from those that
    fire as often over some texts (token ids).

    Raises ValueError as `matched_features`.
    """
    rates = firing_rates(model, saes, texts)
    table = search(model, saes, examples)
    table = table.with_column("firing_rate", np.concatenate([rates[layer] for layer in sorted(saes)]))
    best, drawn = {}, {}
    for layer in sorted(saes):
        best[layer] = tuple(table.where(table["layer"] == layer).top(n, "studentised"))
        drawn[layer] = _matched(table, saes, best[layer], seed)
    return {CANDIDATES: best, MATCHED: drawn}


def beyond(curve: Curve, control: Curve) -> Curve:
    """What an operator costs beyond its control, item by item."""
    return replace(curve, operator=f"{curve.operator}, beyond matched", drop=curve.drop - control.drop)


def _matched(
    table: FeatureTable, saes: Mapping[int, SAE], features: Sequence[Feature], seed: int
) -> tuple[Feature, ...]:
    """One for each feature, none of them twice, none of them a candidate."""
    found: list[Feature] = []
    for feature in features:
        found += matched_features(table, saes, feature, 1, seed=seed, besides=(*features, *found))
    return tuple(found)
