"""Which token positions an intervention acts on."""

import re
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
    """Decoding steps `first` to `last`, both included; step 0 feeds the first generated token.

    Negative steps are the prompt's tokens from its end: -1 is the last.
    """

    first: int
    last: int

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError(f"steps {self.first} to {self.last} are none; the last must be no less than the first.")

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
    """`everywhere`, `prompt`, `last-prompt-token`, `generated`, `steps:2-5` or `steps:-3--1`.

    Raises ValueError for any other text.
    """
    if text in NAMED:
        return NAMED[text]
    if match := re.fullmatch(r"steps:(-?[0-9]+)-(-?[0-9]+)", text):
        return Steps(int(match[1]), int(match[2]))
    raise ValueError(f"{text!r} is not a when; choose from {sorted(NAMED)} or write steps:2-5, or steps:-3--1.")
