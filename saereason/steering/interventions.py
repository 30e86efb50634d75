"""What an intervention changes: frozen values, each with the positions it acts on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from saereason.features import Feature
from saereason.saes import SAE, decoder_row, feature_acts, sae_at

from .when import Everywhere, When

Rows = Float[Tensor, "row d_model"]


def _finite(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; it must be a finite number.")


@dataclass(frozen=True)
class Add:
    """`h + coefficient · W_dec[f]`, whether the feature is on or off (ReasonScore, arXiv 2503.18878, eq. 7).

    The coefficient is in units of the feature's activation.
    """

    feature: Feature
    coefficient: float
    when: When = field(default_factory=Everywhere)

    def __post_init__(self) -> None:
        _finite("coefficient", self.coefficient)

    def __str__(self) -> str:
        return f"Add({self.feature}, {self.coefficient:g})"

    @property
    def layer(self) -> int:
        return self.feature.layer

    def delta(self, saes: Mapping[int, SAE], before: Rows, resid: Rows) -> Rows:  # noqa: ARG002
        row = decoder_row(sae_at(saes, self.feature), self.feature.index)
        return (self.coefficient * row).to(resid).expand_as(resid)


@dataclass(frozen=True)
class Clamp:
    """`h + (value − z_f) · W_dec[f]`: the feature's contribution held at `value`, the SAE's error kept; 0 ablates."""

    feature: Feature
    value: float
    when: When = field(default_factory=Everywhere)

    def __post_init__(self) -> None:
        _finite("value", self.value)

    def __str__(self) -> str:
        return f"Clamp({self.feature}, {self.value:g})"

    @property
    def layer(self) -> int:
        return self.feature.layer

    def delta(self, saes: Mapping[int, SAE], before: Rows, resid: Rows) -> Rows:  # noqa: ARG002
        sae = sae_at(saes, self.feature)
        missing = self.value - feature_acts(sae, resid, self.feature.index)
        return missing[:, None] * decoder_row(sae, self.feature.index).to(resid)


@dataclass(frozen=True)
class Scale:
    """`h + (factor − 1) · z_f · W_dec[f]`: nothing happens where the feature is off."""

    feature: Feature
    factor: float
    when: When = field(default_factory=Everywhere)

    def __post_init__(self) -> None:
        _finite("factor", self.factor)

    def __str__(self) -> str:
        return f"Scale({self.feature}, {self.factor:g})"

    @property
    def layer(self) -> int:
        return self.feature.layer

    def delta(self, saes: Mapping[int, SAE], before: Rows, resid: Rows) -> Rows:  # noqa: ARG002
        sae = sae_at(saes, self.feature)
        more = (self.factor - 1) * feature_acts(sae, resid, self.feature.index)
        return more[:, None] * decoder_row(sae, self.feature.index).to(resid)


@dataclass(frozen=True, eq=False)
class AddVector:
    """`h + coefficient · vector` after block `layer` (CAA; DiffMean; ASC)."""

    layer: int
    vector: Float[Tensor, "d_model"]
    coefficient: float = 1.0
    when: When = field(default_factory=Everywhere)
    name: str = "vector"

    def __post_init__(self) -> None:
        _finite("coefficient", self.coefficient)
        if not torch.isfinite(self.vector).all():
            raise ValueError(f"the vector for layer {self.layer} has entries that are not finite numbers.")

    def __str__(self) -> str:
        return f"AddVector(L{self.layer} {self.name}, {self.coefficient:g})"

    def delta(self, saes: Mapping[int, SAE], before: Rows, resid: Rows) -> Rows:  # noqa: ARG002
        return (self.coefficient * self.vector).to(resid).expand_as(resid)


@dataclass(frozen=True)
class ScaleBlock:
    """`h_in + factor · (h_out − h_in)`: the contribution of block `layer`, attention and MLP, scaled; 0 skips it.

    The block still runs, so the key-value cache stays whole.
    """

    layer: int
    factor: float
    when: When = field(default_factory=Everywhere)

    def __post_init__(self) -> None:
        _finite("factor", self.factor)

    def __str__(self) -> str:
        return f"ScaleBlock(L{self.layer}, {self.factor:g})"

    def delta(self, saes: Mapping[int, SAE], before: Rows, resid: Rows) -> Rows:  # noqa: ARG002
        return (self.factor - 1) * (resid - before)


OnFeature = Add | Clamp | Scale
Intervention = OnFeature | AddVector | ScaleBlock


def targets(interventions: Sequence[Intervention]) -> list[str]:
    """What each intervention of a kind that cannot be doubled acts on: its feature, or its block."""
    found: list[str] = []
    for intervention in interventions:
        if isinstance(intervention, OnFeature):
            found.append(str(intervention.feature))
        elif isinstance(intervention, ScaleBlock):
            found.append(f"block {intervention.layer}")
    return found
