"""Answers as they are written: what may come next, what is chosen, and where an answer ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .model import Model

Scores = Float[Tensor, "batch d_vocab"]


@dataclass(eq=False)
class Row:
    """An answer as it is written."""

    n: int
    """Its place among the prompts."""

    prompt: list[int]
    opening: list[int]
    generator: torch.Generator | None
    wrote: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    """What it has to say next, whatever it would."""

    finished: bool = False

    @property
    def length(self) -> int:
        """Tokens of the answer so far."""
        return len(self.opening) + len(self.wrote)


class Ending:
    """Where answers end: at an end-of-text token, or after a stop string."""

    def __init__(self, model: Model, stop: Sequence[str], least: int = 0) -> None:
        self.model, self.stop, self.tokens, self.least = model, stop, end_tokens(model, stop), least

    def take(self, row: Row, token: int) -> None:
        """What a row writes next, which may finish it."""
        if token in self.tokens:
            row.finished = True
            return
        row.wrote.append(token)
        row.finished = bool(self.stop) and row.length >= self.least and self._stops(row)

    def _stops(self, row: Row) -> bool:
        """True if a stop string ends in what the model wrote, be its beginning forced, or before `least` tokens."""
        said = row.opening + row.wrote
        text, before = self.model.decode(said), said[: max(len(row.opening), self.least - 1)]
        start = len(self.model.decode(before))
        return any(stop in text[max(0, start - len(stop) + 1) :] for stop in self.stop)


@dataclass(frozen=True)
class Budget:
    """Budget forcing (s1, arXiv 2501.19393): an answer of fewer than `least` tokens may not end, nor its thinking.

    `ends` are tokens that end the thinking; the end-of-text tokens are always among them. Without `wait` they cannot be
    chosen; with it they can, and the text stands in their place. A stop string before that ends nothing either.
    """

    least: int
    wait: str = ""
    ends: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.least < 1:
            raise ValueError(f"least is {self.least}; an answer of a budget has at least 1 token.")

    def allowed(self, scores: Scores, rows: Sequence[Row], ends: Sequence[int]) -> Scores:
        """Without the ends, for rows that are too short."""
        if self.wait:
            return scores
        short = torch.tensor([row.length < self.least for row in rows], device=scores.device)
        barred = torch.zeros_like(scores, dtype=torch.bool)
        barred[:, [*ends, *self.ends]] = True
        return scores.masked_fill(barred & short[:, None], float("-inf"))

    def instead(self, row: Row, token: int, model: Model, ends: Sequence[int]) -> int:
        """What the row says when it would say this token."""
        if not row.forced and self.wait and row.length < self.least and token in (*ends, *self.ends):
            row.forced += model.tokenizer(self.wait, add_special_tokens=False)["input_ids"]
        return row.forced.pop(0) if row.forced else token


def chosen(scores: Scores, rows: Sequence[Row], temperature: float) -> list[int]:
    """The likeliest token after each row, or a sample."""
    if temperature > 0:
        scores = gumbel(scores, temperature, [row.generator for row in rows])
    return scores.argmax(-1).tolist()


def gumbel(scores: Scores, temperature: float, generators: Sequence[Any]) -> Scores:
    """`scores / temperature + Gumbel noise`, of which the argmax is a sample of the softmax (Maddison et al. 2014).

    Each row draws from its own generator, so a row's sample does not depend on the others.
    """
    noise = torch.stack([torch.rand(scores.shape[-1], generator=g, device=scores.device) for g in generators])
    tiny = torch.finfo(noise.dtype).tiny
    return scores.float() / temperature - (-noise.clamp(min=tiny).log()).clamp(min=tiny).log()


def end_tokens(model: Model, stop: Sequence[str]) -> list[int]:
    """Every token that ends an answer: the tokenizer's, those of the model's own generation settings, and those that a
    stop string names, for no text shows them.
    """
    settings = getattr(model.hf.generation_config, "eos_token_id", None)
    found = [settings] if isinstance(settings, int) else list(settings or [])
    if model.tokenizer.eos_token_id is not None:
        found.append(model.tokenizer.eos_token_id)
    named = zip(model.tokenizer.all_special_tokens, model.tokenizer.all_special_ids, strict=True)
    return sorted({*found, *(token for name, token in named if name in stop)})
