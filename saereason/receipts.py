"""What an edit really did: how often it fired, where, and how large it was."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Firing:
    """The record of one edit."""

    name: str
    layer: int

    firings: int
    """Positions visited, over all rows and passes."""

    positions: tuple[int, ...]
    """The distinct absolute positions visited, in order."""

    relative_size: float
    """Mean over visited positions of |change| / |residual|."""

    rows: tuple[int, ...] = ()
    """The distinct rows visited: places among the prompts, or in the batch of a pass of one's own."""

    def __str__(self) -> str:
        return f"{self.name}: {self.firings} firings, |change|/|residual| {self.relative_size:.3f}"


@dataclass(frozen=True)
class Receipt:
    """The record of every edit that was in force; one line an edit when printed."""

    edits: tuple[Firing, ...] = ()

    @property
    def firings(self) -> int:
        return sum(edit.firings for edit in self.edits)

    def __str__(self) -> str:
        return "\n".join(map(str, self.edits))


@runtime_checkable
class Change(Protocol):
    """What a recorder knows of an edit; each is counted by itself, also where two have one name."""

    @property
    def name(self) -> str: ...

    @property
    def layer(self) -> int: ...


@dataclass
class _Tally:
    firings: int = 0
    size: float = 0.0
    positions: set[int] = field(default_factory=set)
    rows: set[int] = field(default_factory=set)


class Recorder:
    """Counts firings while a model runs; `receipt` is the count so far."""

    def __init__(self, expected: Sequence[Change] = ()) -> None:
        self._tallies = {edit: _Tally() for edit in expected}

    def note(
        self,
        edit: Change,
        row: Int[Tensor, "row"],
        position: Int[Tensor, "row"],
        delta: Float[Tensor, "row d_model"],
        resid: Float[Tensor, "row d_model"],
    ) -> None:
        tally = self._tallies.setdefault(edit, _Tally())
        size = torch.linalg.vector_norm(delta, dim=-1) / torch.linalg.vector_norm(resid, dim=-1).clamp(min=1e-12)
        total = size.detach().cpu().double().sum().item()
        if not math.isfinite(total):
            raise ValueError(f"{edit.name} makes a change that is not finite; give it a smaller size.")
        tally.firings += len(position)
        tally.size += total
        tally.positions.update(position.tolist())
        tally.rows.update(row.tolist())

    @property
    def receipt(self) -> Receipt:
        return Receipt(
            tuple(
                Firing(
                    edit.name,
                    edit.layer,
                    t.firings,
                    tuple(sorted(t.positions)),
                    t.size / max(1, t.firings),
                    tuple(sorted(t.rows)),
                )
                for edit, t in self._tallies.items()
            )
        )
