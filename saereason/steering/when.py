"""Which token positions an intervention acts on, and with what share of its size."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saereason.features import Feature
from saereason.hooks import Positions
from saereason.model import Model
from saereason.saes import SAE, feature_acts, sae_at

Mask = Bool[Tensor, "batch pos"]
Share = Float[Tensor, "batch pos"]
Where = Callable[[Positions], Mask | Share]


class When:
    """A choice of positions. Most are a function of `Positions`; the others become one in `where`."""

    @property
    def reads(self) -> frozenset[int]:
        """Layers whose residual stream it looks at."""
        return frozenset()

    @property
    def may_never_come(self) -> bool:
        """True if it is no error that it chooses no position."""
        return False

    def where(self, model: Model, saes: Mapping[int, SAE]) -> Where:  # noqa: ARG002
        """The choice, for one model and its SAEs."""
        return self  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Everywhere(When):
    """Every token, prompt and generated, the beginning-of-text token included."""

    def __call__(self, at: Positions) -> Mask:
        return torch.ones_like(at.valid)


@dataclass(frozen=True)
class Prompt(When):
    """Every token of the prompt."""

    def __call__(self, at: Positions) -> Mask:
        return at.step < 0


@dataclass(frozen=True)
class LastPromptToken(When):
    """The token from which the first answer token is predicted: once per row."""

    def __call__(self, at: Positions) -> Mask:
        return at.step == -1


@dataclass(frozen=True)
class Generated(When):
    """Every generated token, once it is fed back."""

    def __call__(self, at: Positions) -> Mask:
        return at.step >= 0


@dataclass(frozen=True)
class Steps(When):
    """Decoding steps `first` to `last`, both included; step 0 feeds the first generated token.

    Negative steps are the prompt's tokens from its end: -1 is the last.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError(f"steps {self.first} to {self.last} are none; the last must be no less than the first.")

    def __str__(self) -> str:
        return f"Steps({self.first}, {self.last})"

    def __call__(self, at: Positions) -> Mask:
        return (at.step >= self.first) & (at.step <= self.last)


@dataclass(frozen=True)
class After(When):
    """Every generated token from the one on that completes a text, or a sequence of token ids, for the first time.

    What the prompt says does not count.
    """

    said: str | tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.said:
            raise ValueError("there is nothing to come after; give a text, or at least one token.")

    @property
    def may_never_come(self) -> bool:
        return True

    def where(self, model: Model, saes: Mapping[int, SAE]) -> Where:  # noqa: ARG002
        return lambda at: self._since(at, model)

    def _since(self, at: Positions, model: Model) -> Mask:
        if at.so_far is None:
            raise ValueError("cannot tell what was written before this forward pass; use saereason's generate.")
        width, step = at.valid.shape[1], at.step
        found = torch.zeros_like(at.valid)
        for row, (tokens, steps) in enumerate(zip(at.so_far.tolist(), step.tolist(), strict=True)):
            first = len(tokens) - 1 - steps[-1]  # where the generated tokens begin
            for n in range(max(0, -steps[0]), width):
                end = len(tokens) - width + n + 1
                if self._is_said(tokens[first:end], model):
                    found[row, n:] = True
                    break
        return found

    def _is_said(self, tokens: list[int], model: Model) -> bool:
        if isinstance(self.said, str):
            return self.said in model.decode(tokens)
        n = len(self.said)
        return any(tuple(tokens[k : k + n]) == self.said for k in range(len(tokens) - n + 1))


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
    """Another choice, the size multiplied by `rate` with each decoding step, from step 0 on."""

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

    @property
    def reads(self) -> frozenset[int]:
        return self.when.reads | {self.layer}

    @property
    def may_never_come(self) -> bool:
        return True

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


NAMED = {
    "everywhere": Everywhere(),
    "prompt": Prompt(),
    "last-prompt-token": LastPromptToken(),
    "generated": Generated(),
}


def parse_when(text: str) -> When:
    """`everywhere`, `prompt`, `last-prompt-token`, `generated`, `steps:2-5`, `steps:-3--1`, or `after:` and a text.

    Raises ValueError for any other text.
    """
    if text in NAMED:
        return NAMED[text]
    if match := re.fullmatch(r"steps:(-?[0-9]+)-(-?[0-9]+)", text):
        return Steps(int(match[1]), int(match[2]))
    if text.startswith("after:"):
        return After(text.removeprefix("after:"))
    raise ValueError(
        f"{text!r} is not a when; choose from {sorted(NAMED)} or write steps:2-5, steps:-3--1, or after:Wait."
    )
