"""Which token positions an intervention acts on."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saereason.hooks import Positions
from saereason.model import Model
from saereason.saes import SAE

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

    What the prompt says does not count. A special token may be given by its text, alone.
    """

    said: str | tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.said:
            raise ValueError("there is nothing to come after; give a text, or at least one token.")

    @property
    def may_never_come(self) -> bool:
        return True

    def where(self, model: Model, saes: Mapping[int, SAE]) -> Where:  # noqa: ARG002
        looked_for = self._as_tokens(model)
        return lambda at: looked_for._since(at, model)

    def _as_tokens(self, model: Model) -> "After":
        """The same by its token id where it is a special token, which no text shows."""
        if not isinstance(self.said, str):
            model.check_tokens(self.said)
            return self
        special = model.special_tokens
        if self.said in special:
            return After((special[self.said],))
        within = next((name for name in special if name in self.said), None)
        if within is not None:
            raise ValueError(
                f"{self.said!r} has the special token {within} in it, which no text shows; give token ids."
            )
        return self

    def _since(self, at: Positions, model: Model) -> Mask:
        if at.so_far is None:
            raise ValueError(
                "cannot tell what was written before this forward pass (beams, rows that are alike, or a cache filled "
                "elsewhere); use saereason's generate."
            )
        width, step = at.valid.shape[1], at.step
        found, padding = torch.zeros_like(at.valid), at.valid.flip(-1).int().argmax(-1).tolist()
        rows = zip(at.so_far.tolist(), step.tolist(), padding, strict=True)
        for row, (tokens, steps, after) in enumerate(rows):
            first = len(tokens) - after - 1 - steps[-1]  # where the generated tokens begin
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
