"""Choices of positions made of another: fewer of them, or with a share of the change."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from saereason.features import Feature
from saereason.hooks import Positions
from saereason.model import Model
from saereason.saes import SAE, feature_acts, sae_at

from .checks import check_finite, check_vector, finite
from .when import Everywhere, When, Where


@dataclass(frozen=True)
class Narrowed(When):
    """Another choice, narrowed."""

    when: When = field(default_factory=Everywhere, kw_only=True)

    @property
    def reads(self) -> frozenset[int]:
        return self.when.reads

    @property
    def may_never_come(self) -> bool:
        return self.when.may_never_come

    def where(self, model: Model, saes: Mapping[int, SAE]) -> Where:
        wide, share = self.when.where(model, saes), self.share(saes)
        return lambda at: wide(at) * share(at)

    def share(self, saes: Mapping[int, SAE]) -> Callable[[Positions], Tensor]:
        """What to multiply the other choice by, `[batch, pos]` or `[batch, 1]`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Decay(Narrowed):
    """Another choice, the change multiplied by `rate` with each decoding step, from step 0 on.

    The change, not the size: a `Clamp` goes less and less of the way to its value.
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate is {self.rate}; give the share that a step leaves, above 0 and at most 1.")

    def share(self, saes: Mapping[int, SAE]) -> Callable[[Positions], Tensor]:  # noqa: ARG002
        return lambda at: self.rate ** at.step.clamp(min=0).float()


@dataclass(frozen=True)
class OnRows(Narrowed):
    """Another choice, in some rows alone: by their places among the prompts of `generate`, or in the batch."""

    rows: tuple[int, ...]

    def share(self, saes: Mapping[int, SAE]) -> Callable[[Positions], Tensor]:  # noqa: ARG002
        return lambda at: torch.isin(at.row, torch.tensor(self.rows, device=at.row.device))[:, None]


@dataclass(frozen=True)
class While(Narrowed):
    """Another choice, where a feature is more active than `above` (CAST, arXiv 2409.05907, with a feature to tell).

    The feature is read at the position itself, before the edits of its layer, which is the intervention's own or an
    earlier one.
    """

    feature: Feature
    above: float = 0.0

    def __post_init__(self) -> None:
        finite("above", self.above)

    @property
    def reads(self) -> frozenset[int]:
        return self.when.reads | {self.feature.layer}

    @property
    def may_never_come(self) -> bool:
        return True

    def share(self, saes: Mapping[int, SAE]) -> Callable[[Positions], Tensor]:
        sae = sae_at(saes, self.feature)

        def active(at: Positions) -> Tensor:
            resid = _read(at, self.feature.layer)
            acts = feature_acts(sae, resid.flatten(0, 1).float(), self.feature.index)
            return acts.view(resid.shape[:2]) > self.above

        return active


@dataclass(frozen=True, eq=False)
class WhileAlong(Narrowed):
    """Another choice, where `resid · vector > above` after block `layer`: the verdict of a linear probe, say."""

    layer: int
    vector: Float[Tensor, "d_model"]
    above: float = 0.0

    def __post_init__(self) -> None:
        finite("above", self.above)
        check_finite(self.layer, self.vector)

    @property
    def reads(self) -> frozenset[int]:
        return self.when.reads | {self.layer}

    @property
    def may_never_come(self) -> bool:
        return True

    def where(self, model: Model, saes: Mapping[int, SAE]) -> Where:
        check_vector(model, self.layer, self.vector)
        return super().where(model, saes)

    def share(self, saes: Mapping[int, SAE]) -> Callable[[Positions], Tensor]:  # noqa: ARG002
        return lambda at: _read(at, self.layer).float() @ self.vector.float() > self.above


def _read(at: Positions, layer: int) -> Tensor:
    if layer not in at.resid:
        raise ValueError(
            f"nothing was read at layer {layer}, where a condition looks; run the pass whole, not resumed."
        )
    return at.resid[layer]


def rows_of(when: When) -> tuple[int, ...] | None:
    """The rows to which a choice is narrowed; None for all."""
    if not isinstance(when, Narrowed):
        return None
    inner = rows_of(when.when)
    if not isinstance(when, OnRows):
        return inner
    return when.rows if inner is None else tuple(row for row in when.rows if row in inner)
