"""Interventions on features of an SAE. All keep what the SAE does not explain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from saereason.features import Feature
from saereason.hooks import Visit
from saereason.model import Model
from saereason.saes import SAE, check_saes, decoder_row, encode_changed, feature_acts, sae_at, unit_of

from .checks import finite
from .interventions import Intervention, Rows, told
from .when import Everywhere, When


class OnFeature(Intervention):
    """An intervention on one feature."""

    feature: Feature

    @property
    def layer(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.feature.layer

    @property
    def targets(self) -> frozenset[str]:
        return frozenset({str(self.feature)})

    def check(self, model: Model, saes: Mapping[int, SAE]) -> None:
        check_saes(model, {self.layer: sae_at(saes, self.feature)})

    def unit(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        """What one unit of the feature's activation adds to the residual stream at each position."""
        sae = sae_at(saes, self.feature)
        row = decoder_row(sae, self.feature.index).to(at.resid)
        return (unit_of(sae, at.resid) * row).expand_as(at.resid)

    def acts(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        """The feature's activations, shape `[row, 1]`."""
        return feature_acts(sae_at(saes, self.feature), at.resid, self.feature.index)[:, None]


@dataclass(frozen=True)
class Add(OnFeature):
    """`h + coefficient · W_dec[f]`, whether the feature is on or off (ReasonScore, arXiv 2503.18878, eq. 7).

    The coefficient is in units of the feature's activation.
    """

    feature: Feature
    coefficient: float
    when: When = field(default_factory=Everywhere)
    keep_norm: bool = field(default=False, kw_only=True)
    SIZE: ClassVar[str | None] = "coefficient"

    def __post_init__(self) -> None:
        finite("coefficient", self.coefficient)

    def __str__(self) -> str:
        return f"Add({self.feature}, {told(self.coefficient)}{self.norm_kept})"

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        return self.coefficient * self.unit(saes, at)


@dataclass(frozen=True)
class Clamp(OnFeature):
    """`h + (value − z_f) · W_dec[f]`: the feature's contribution held at `value`, the SAE's error kept; 0 ablates."""

    feature: Feature
    value: float
    when: When = field(default_factory=Everywhere)
    keep_norm: bool = field(default=False, kw_only=True)
    SIZE: ClassVar[str | None] = "value"

    def __post_init__(self) -> None:
        finite("value", self.value)

    def __str__(self) -> str:
        return f"Clamp({self.feature}, {told(self.value)}{self.norm_kept})"

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        return (self.value - self.acts(saes, at)) * self.unit(saes, at)


@dataclass(frozen=True)
class Scale(OnFeature):
    """`h + (factor − 1) · z_f · W_dec[f]`: nothing happens where the feature is off."""

    feature: Feature
    factor: float
    when: When = field(default_factory=Everywhere)
    keep_norm: bool = field(default=False, kw_only=True)
    SIZE: ClassVar[str | None] = "factor"

    def __post_init__(self) -> None:
        finite("factor", self.factor)

    def __str__(self) -> str:
        return f"Scale({self.feature}, {told(self.factor)}{self.norm_kept})"

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        return (self.factor - 1) * self.acts(saes, at) * self.unit(saes, at)


@dataclass(frozen=True)
class SetProjection(OnFeature):
    """`h − (h·d̂)d̂ + value·d̂`: what the residual stream has along the feature's decoder row, set to `value`.

    The "clamp" of lm-eval's steering and of ReasonScore's code (hook b). It does not look at the activation.
    """

    feature: Feature
    value: float
    when: When = field(default_factory=Everywhere)
    keep_norm: bool = field(default=False, kw_only=True)
    SIZE: ClassVar[str | None] = "value"

    def __post_init__(self) -> None:
        finite("value", self.value)

    def __str__(self) -> str:
        return f"SetProjection({self.feature}, {told(self.value)}{self.norm_kept})"

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        row = decoder_row(sae_at(saes, self.feature), self.feature.index).to(at.resid)
        unit = row / row.norm().clamp(min=1e-12)
        return (self.value - at.resid @ unit)[:, None] * unit


@dataclass(frozen=True)
class Boost(Intervention):
    """`h + Dec(act(a')) − Dec(act(a))`, the pre-activations of some features raised: `a'_j = a_j + alpha · mean|a_k|`.

    The mean is over these features (He et al., arXiv 2601.08058; alpha 15 to 50, once, at the last prompt token). The
    features of a Top-K SAE compete, so others may go out.
    """

    features: tuple[Feature, ...]
    alpha: float
    when: When = field(default_factory=Everywhere)
    keep_norm: bool = field(default=False, kw_only=True)
    SIZE: ClassVar[str | None] = "alpha"

    def __post_init__(self) -> None:
        finite("alpha", self.alpha)
        if not self.features or len({feature.layer for feature in self.features}) > 1:
            told = ", ".join(map(str, self.features)) or "none"
            raise ValueError(f"the features to boost are {told}; give at least one, all of one layer.")
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"the features to boost are {', '.join(map(str, self.features))}; give each once.")

    def __str__(self) -> str:
        return f"Boost({' '.join(map(str, self.features))}, {told(self.alpha)}{self.norm_kept})"

    @property
    def layer(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.features[0].layer

    @property
    def targets(self) -> frozenset[str]:
        return frozenset({f"features of layer {self.layer} by Boost", *map(str, self.features)})

    def check(self, model: Model, saes: Mapping[int, SAE]) -> None:
        for feature in self.features:
            sae_at(saes, feature)
        check_saes(model, {self.layer: saes[self.layer]})

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        sae, index = saes[self.layer], [feature.index for feature in self.features]

        def boosted(pre_acts: Rows) -> Rows:
            more = self.alpha * pre_acts[:, index].abs().mean(dim=-1, keepdim=True)
            raised = pre_acts.clone()
            raised[:, index] += more
            return raised

        return encode_changed(sae, at.resid, boosted)
