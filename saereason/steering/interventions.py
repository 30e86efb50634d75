"""What all interventions are: frozen values that say what to add to the residual stream, and where."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saereason.hooks import Visit
from saereason.model import Model
from saereason.saes import SAE

from .when import OnRows, When, rows_of

Rows = Float[Tensor, "row d_model"]


class Intervention:
    """A change of the residual stream after a block. Frozen dataclasses inherit from it."""

    layer: int
    """The block after which it acts."""

    when: When
    """At which positions."""

    keep_norm: bool
    """Whether the result is scaled to the norm that the residual stream had there (arXiv 2505.15634)."""

    SIZE: ClassVar[str | None] = None
    """The field that says how large the change is."""

    @property
    def size(self) -> float:
        """How large the change is, in the unit of its kind; NaN for one that has no size."""
        return math.nan if self.SIZE is None else getattr(self, self.SIZE)

    def sized(self, size: float, when: When | None = None) -> Any:
        """The same of another size, and at other positions. Raises ValueError for an intervention without a size."""
        if self.SIZE is None:
            raise ValueError(f"{self} has no size; give one that has, such as Add or Clamp.")
        changes = {self.SIZE: size} | ({} if when is None else {"when": when})
        return replace(_value(self), **changes)

    @property
    def target(self) -> str | None:
        """What no two interventions at once may act on; None for what adds up."""
        return None

    @property
    def by_row(self) -> bool:
        """True if it is not the same in every row, which it tells by their places among the prompts."""
        return rows_of(self.when) is not None

    def check(self, model: Model, saes: Mapping[int, SAE]) -> None:
        """Raises ValueError where it does not fit the model and its SAEs."""

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        """What to add to the residual stream at the visited positions, before the norm is kept."""
        raise NotImplementedError

    def change(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        """What to add to the residual stream at the visited positions."""
        delta = self.delta(saes, at)
        if not self.keep_norm:
            return delta
        moved = at.resid + delta
        size = at.resid.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return moved * size - at.resid


def finite(name: str, value: float) -> None:
    """Raises ValueError for a number that is none."""
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; it must be a finite number.")


def check_vector(model: Model, layer: int, vector: Tensor) -> None:
    if vector.shape != (model.d_model,):
        raise ValueError(
            f"the vector for layer {layer} has shape {tuple(vector.shape)}; {model.name} needs [{model.d_model}]."
        )


def check_finite(layer: int, vector: Tensor) -> None:
    if not torch.isfinite(vector).all():
        raise ValueError(f"the vector for layer {layer} has entries that are not finite numbers.")


def clashing(interventions: Sequence[Intervention]) -> str | None:
    """What two of the interventions act on in one row, though they may not."""
    seen: dict[str, list[tuple[int, ...] | None]] = {}
    for intervention in interventions:
        target, rows = intervention.target, rows_of(intervention.when)
        if target is None:
            continue
        for others in seen.setdefault(target, []):
            if rows is None or others is None or set(rows) & set(others):
                return target
        seen[target].append(rows)
    return None


def per_row(*rows: Sequence[Intervention]) -> tuple[Intervention, ...]:
    """Interventions for each row of one batch, by place among the prompts; an empty list leaves a row clean.

    For `steered`: `per_row([], [a], [b, c])`.
    """
    return tuple(replace(_value(each), when=OnRows((n,), when=each.when)) for n, row in enumerate(rows) for each in row)


def _value(intervention: Intervention) -> Any:
    """It as the dataclass that it is."""
    return intervention
