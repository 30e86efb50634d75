"""Interventions along a direction of the residual stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from saereason.hooks import Visit
from saereason.model import Model
from saereason.saes import SAE

from .checks import check_finite, check_vector, finite
from .interventions import Intervention, Rows, told
from .when import Everywhere, When


@dataclass(frozen=True, eq=False)
class AddVector(Intervention):
    """`h + coefficient · vector` after block `layer` (CAA; DiffMean; ASC)."""

    layer: int
    vector: Float[Tensor, "d_model"]
    coefficient: float = 1.0
    when: When = field(default_factory=Everywhere)
    name: str = "vector"
    keep_norm: bool = field(default=False, kw_only=True)
    SIZE: ClassVar[str | None] = "coefficient"

    def __post_init__(self) -> None:
        finite("coefficient", self.coefficient)
        check_finite(self.layer, self.vector)

    def __str__(self) -> str:
        return f"AddVector(L{self.layer} {self.name}, {told(self.coefficient)}{self.norm_kept})"

    def check(self, model: Model, saes: Mapping[int, SAE]) -> None:  # noqa: ARG002
        check_vector(model, self.layer, self.vector)

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:  # noqa: ARG002
        return (self.coefficient * self.vector).to(at.resid).expand_as(at.resid)


@dataclass(frozen=True, eq=False)
class ScaleProjection(Intervention):
    """`h + factor · (h·v̂)v̂` after block `layer`; −1 takes the direction out (LiReFs, 2503.23084; RISE, 2512.23988)."""

    layer: int
    vector: Float[Tensor, "d_model"]
    factor: float
    when: When = field(default_factory=Everywhere)
    name: str = "vector"
    keep_norm: bool = field(default=False, kw_only=True)
    SIZE: ClassVar[str | None] = "factor"

    def __post_init__(self) -> None:
        finite("factor", self.factor)
        check_finite(self.layer, self.vector)
        if not self.vector.any():
            raise ValueError(f"the vector for layer {self.layer} is zero; it has no direction.")

    def __str__(self) -> str:
        return f"ScaleProjection(L{self.layer} {self.name}, {told(self.factor)}{self.norm_kept})"

    def clash(self, other: Intervention) -> str | None:
        if isinstance(other, ScaleProjection) and other.layer == self.layer and _along(self.vector, other.vector):
            return f"one direction at layer {self.layer}"
        return super().clash(other)

    def check(self, model: Model, saes: Mapping[int, SAE]) -> None:  # noqa: ARG002
        check_vector(model, self.layer, self.vector)

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:  # noqa: ARG002
        unit = (self.vector / self.vector.norm()).to(at.resid)
        return self.factor * (at.resid @ unit)[:, None] * unit


def _along(one: Tensor, other: Tensor) -> bool:
    """True for vectors that point the same way or the opposite one, whatever their lengths."""
    if one.shape != other.shape:
        return False
    return abs(float(cosine_similarity(one.double().cpu(), other.double().cpu(), dim=0))) > 1 - 1e-6
