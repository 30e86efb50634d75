"""Interventions on what a whole block gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from saereason import hooks
from saereason.hooks import Visit
from saereason.model import Model, Rendered, pad
from saereason.saes import SAE, check_saes

from .checks import check_finite, check_vector, finite
from .interventions import Intervention, Rows, told
from .when import Everywhere, When


class OnBlock(Intervention):
    """An intervention on one block; there can be one at a time."""

    @property
    def targets(self) -> frozenset[str]:
        return frozenset({f"block {self.layer}"})


@dataclass(frozen=True)
class ScaleBlock(OnBlock):
    """`h_in + factor · (h_out − h_in)`: the contribution of block `layer`, attention and MLP, scaled; 0 skips it.

    The block still runs, so the key-value cache stays whole.
    """

    layer: int
    factor: float
    when: When = field(default_factory=Everywhere)
    keep_norm: bool = field(default=False, kw_only=True)
    SIZE: ClassVar[str | None] = "factor"

    def __post_init__(self) -> None:
        finite("factor", self.factor)

    def __str__(self) -> str:
        return f"ScaleBlock(L{self.layer}, {told(self.factor)}{self.norm_kept})"

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:  # noqa: ARG002
        return (self.factor - 1) * (at.resid - at.before)


@dataclass(frozen=True, eq=False)
class MeanBlock(OnBlock):
    """`h_in + mean`: the contribution of block `layer` replaced by its mean (of `mean_contributions`, say)."""

    layer: int
    mean: Float[Tensor, "d_model"]
    when: When = field(default_factory=Everywhere)
    keep_norm: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        check_finite(self.layer, self.mean)

    def __str__(self) -> str:
        return f"MeanBlock(L{self.layer}{self.norm_kept})"

    def check(self, model: Model, saes: Mapping[int, SAE]) -> None:  # noqa: ARG002
        check_vector(model, self.layer, self.mean)

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:  # noqa: ARG002
        return at.before + self.mean.to(at.resid) - at.resid


@dataclass(frozen=True, eq=False)
class Patch(OnBlock):
    """The residual stream after block `layer` replaced by that of another run, position by position.

    `source[n]` is the other run of row n, `[pos, d_model]` from its first token; one source serves all rows.
    """

    layer: int
    source: tuple[Float[Tensor, "_ d_model"], ...]
    when: When = field(default_factory=Everywhere)
    keep_norm: bool = field(default=False, kw_only=True)

    @classmethod
    def of(
        cls, model: Model, layer: int, prompts: Sequence[str | Rendered | Sequence[int]], when: When = Everywhere()
    ) -> "Patch":
        """From what the model, as it stands, makes of other prompts (texts or token ids)."""
        rows = [model.encode(p) if isinstance(p, str | Rendered) else list(p) for p in prompts]
        source = []
        for row in rows:
            batch = pad([row], pad_token=model.pad_token, device=model.device)
            source.append(hooks.read(model, batch, [layer])[layer][0].clone())
        return cls(layer, tuple(source), when)

    def __str__(self) -> str:
        return f"Patch(L{self.layer}{self.norm_kept})"

    @property
    def by_row(self) -> bool:
        return len(self.source) > 1 or super().by_row

    def check(self, model: Model, saes: Mapping[int, SAE]) -> None:  # noqa: ARG002
        if not self.source:
            raise ValueError(f"there is nothing to patch in at layer {self.layer}; give at least one source.")
        for n, each in enumerate(self.source):
            if not len(each):
                raise ValueError(f"source {n} of the patch at layer {self.layer} has no positions; give at least one.")
            check_vector(model, self.layer, each[0])

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:  # noqa: ARG002
        rows = at.row.tolist() if len(self.source) > 1 else [0] * len(at.row)
        there = [(row, position) for row, position in zip(rows, at.position.tolist(), strict=True)]
        for row, position in there:
            if row >= len(self.source) or position >= len(self.source[row]):
                has = f"{len(self.source[row])} positions" if row < len(self.source) else f"{len(self.source)} rows"
                raise ValueError(
                    f"the patch at layer {self.layer} is wanted in row {row} at position {position} and its source "
                    f"has {has}; give a longer source, or a `when` that stays within it."
                )
        return torch.stack([self.source[row][position] for row, position in there]).to(at.resid) - at.resid


@dataclass(frozen=True)
class Splice(OnBlock):
    """`Dec(Enc(h))` in place of `h` after block `layer`: what the SAE itself costs; with `keep_error`, nothing."""

    layer: int
    keep_error: bool = False
    when: When = field(default_factory=Everywhere)
    keep_norm: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        return f"Splice(L{self.layer}{', error kept' if self.keep_error else ''}{self.norm_kept})"

    def check(self, model: Model, saes: Mapping[int, SAE]) -> None:
        if self.layer not in saes:
            raise ValueError(f"no SAE at layer {self.layer}; there are SAEs at layers {sorted(saes)}.")
        check_saes(model, {self.layer: saes[self.layer]})

    def delta(self, saes: Mapping[int, SAE], at: Visit) -> Rows:
        sae = saes[self.layer]
        spliced = sae.decode(sae.encode(at.resid)).to(at.resid) - at.resid
        return torch.zeros_like(spliced) if self.keep_error else spliced


def mean_contributions(
    model: Model, texts: Sequence[str | Rendered], layers: Sequence[int], *, batch_size: int = 8
) -> dict[int, Float[Tensor, "d_model"]]:
    """Mean of what blocks add to the residual stream, over the tokens of some texts but the first of each.

    The first token's residual stream is of another size altogether. Each `[d_model]`, float32. Raises ValueError for
    layers that are not there and texts of one token.
    """
    rows = sorted((model.encode(text) for text in texts), key=len)
    totals, n = {layer: torch.zeros(model.d_model, dtype=torch.float64) for layer in layers}, 0

    def adding(layer: int) -> Callable[[Visit], Rows]:
        def note(at: Visit) -> Rows:
            totals[layer] += (at.resid - at.before).double().sum(0).cpu()
            return torch.zeros_like(at.resid)

        return note

    edits = [hooks.Edit(layer, "look", lambda at: at.valid & (at.position > 0), adding(layer)) for layer in totals]
    hooks.check_layers(model, list(totals))
    for start in range(0, len(rows), batch_size):
        batch = pad(rows[start : start + batch_size], pad_token=model.pad_token, device=model.device)
        with hooks.edited(model, edits):
            hooks.read(model, batch, list(totals))
        n += int(batch.mask.sum()) - len(batch.mask)
    if n == 0:
        raise ValueError(f"{len(rows)} texts have no token but their first; give longer ones.")
    return {layer: (total / n).float() for layer, total in totals.items()}
