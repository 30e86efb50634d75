"""What all interventions are: frozen values that say what to add to the residual stream, and where."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from saereason.hooks import Visit
from saereason.model import Model
from saereason.saes import SAE

from .narrowed import OnRows, rows_of
from .when import When

Rows = Float[Tensor, "row d_model"]


class Intervention:
    """A change of the residual stream after a block. Frozen dataclasses inherit from it."""

    layer: int
    """The block after which it acts."""

    when: When
    """At which positions."""

    keep_norm: bool
    """Whether the result is scaled to the norm that the residual stream had there (arXiv 2505.15634).

    One at a layer.
    """

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
    def targets(self) -> frozenset[str]:
        """What no two interventions at once may act on; nothing for what adds up."""
        return frozenset()

    def clash(self, other: "Intervention") -> str | None:
        """What this and another act on though only one at once may; None where they go together."""
        if self.keep_norm and other.keep_norm and self.layer == other.layer:
            return f"the norm after layer {self.layer} (keep_norm)"
        return min(self.targets & other.targets, default=None)

    @property
    def by_row(self) -> bool:
        """True if it is not the same in every row, which it tells by their places among the prompts."""
        return rows_of(self.when) is not None

    @property
    def norm_kept(self) -> str:
        """What its name says of the norm."""
        return ", norm kept" if self.keep_norm else ""

    def check(self, model: Model, saes: Mapping[int, SAE]) -> None:
        """Raises ValueError where it does not fit the model and its SAEs."""

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        """What to add to the residual stream at the visited positions, before the norm is kept."""
        raise NotImplementedError


def check_are_interventions(given: Sequence[Any]) -> None:
    wrong = next((each for each in given if not isinstance(each, Intervention)), None)
    if wrong is not None:
        raise ValueError(
            f"{wrong!r:.60} is no intervention; give each by itself, a tuple of them for an arm of several."
        )


def told(size: float) -> str:
    """A size in few digits, where they say it all."""
    size = float(size)
    return f"{size:g}" if float(f"{size:g}") == size else repr(size)


def clashing(interventions: Sequence[Intervention]) -> str | None:
    """What two of the interventions act on in one row, though they may not."""
    for n, one in enumerate(interventions):
        for other in interventions[:n]:
            found = one.clash(other)
            if found is not None and _share_rows(rows_of(one.when), rows_of(other.when)):
                return found
    return None


def _share_rows(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> bool:
    return one is None or other is None or bool(set(one) & set(other))


def per_row(*rows: Sequence[Intervention]) -> tuple[Intervention, ...]:
    """Interventions for each row of one batch, by place among the prompts; an empty list leaves a row clean.

    For `steered`: `per_row([], [a], [b, c])`.
    """
    bare = next((row for row in rows if isinstance(row, Intervention)), None)
    if bare is not None:
        raise ValueError(f"{bare} is given for a row; give a list for each, such as per_row([], [a]).")
    return tuple(replace(_value(each), when=OnRows((n,), when=each.when)) for n, row in enumerate(rows) for each in row)


def _value(intervention: Intervention) -> Any:
    """It as the dataclass that it is."""
    return intervention
