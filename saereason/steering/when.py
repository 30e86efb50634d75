"""Which token positions an intervention acts on."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from saereason.hooks import Positions

Mask = Bool[Tensor, "batch pos"]


@dataclass(frozen=True)
class Everywhere:
    """Every token, prompt and generated, the beginning-of-text token included."""

    def __call__(self, at: Positions) -> Mask:
        return torch.ones_like(at.valid)


@dataclass(frozen=True)
class Prompt:
    """Every token of the prompt."""

    def __call__(self, at: Positions) -> Mask:
        return at.step < 0


@dataclass(frozen=True)
class LastPromptToken:
    """The token from which the first answer token is predicted: once per row."""

    def __call__(self, at: Positions) -> Mask:
        return at.step == -1


@dataclass(frozen=True)
class Generated:
    """Every generated token, once it is fed back."""

    def __call__(self, at: Positions) -> Mask:
        return at.step >= 0


@dataclass(frozen=True)
class Steps:
    """Decoding steps `first` to `last`, both included; step 0 feeds the first generated token."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last:
            raise ValueError(
                f"steps {self.first} to {self.last} are none; the first must be 0 or more, the last no less."
            )

    def __call__(self, at: Positions) -> Mask:
        return (at.step >= self.first) & (at.step <= self.last)


When = Everywhere | Prompt | LastPromptToken | Generated | Steps

NAMED = {
    "everywhere": Everywhere(),
    "prompt": Prompt(),
    "last-prompt-token": LastPromptToken(),
    "generated": Generated(),
}


def parse_when(text: str) -> When:
    """`everywhere`, `prompt`, `last-prompt-token`, `generated` or `steps:2-5`. Raises ValueError for any other."""
    if text in NAMED:
        return NAMED[text]
    first, _, last = text.removeprefix("steps:").partition("-")
    if text.startswith("steps:") and first.isdecimal() and last.isdecimal():
        return Steps(int(first), int(last))
    raise ValueError(f"{text!r} is not a when; choose from {sorted(NAMED)} or write steps:2-5.")
