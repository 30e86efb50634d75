"""Where every token of a forward pass stands in its row, whatever the padding and the cache."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

DECLARED: ContextVar[Tensor | None] = ContextVar("declared", default=None)
"""Tokens of each row's prompt, as whoever runs the rows has said."""


@dataclass(frozen=True, eq=False)
class Positions:
    """Where each token of one forward pass stands in its row, whatever the padding and the cache."""

    position: Int[Tensor, "batch pos"]
    """Absolute, from 0 at the row's first token."""

    valid: Bool[Tensor, "batch pos"]
    """False on padding."""

    prompt_length: Int[Tensor, "batch"] | None
    """Tokens of each row's prompt; None if nobody said and the pass alone cannot tell."""

    @property
    def step(self) -> Int[Tensor, "batch pos"]:
        """Decoding step: 0 at the first generated token, -1 at the last token of the prompt."""
        if self.prompt_length is None:
            raise ValueError(
                "cannot tell where the prompt ends in this forward pass (generation without a key-value cache, or a "
                "cache filled elsewhere or in chunks); use saereason's generate, or wrap the call in "
                "hooks.prompts(lengths)."
            )
        return self.position - self.prompt_length[:, None]


class PositionClock:
    """Follows a model's forward passes and says where in its row every token stands.

    A pass without a filled cache starts anew, and all it holds is prompt unless `prompts` says otherwise; a pass of
    one token on a filled cache goes on where the last one ended.
    """

    def __init__(self) -> None:
        self.now: Positions | None = None
        self._tokens: Tensor | None = None
        self._mask: Tensor | None = None

    def tick(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:  # noqa: ARG002
        tokens = kwargs.get("input_ids", args[0] if args else None)
        given = tokens if tokens is not None else kwargs["inputs_embeds"]
        batch, width = given.shape[:2]
        cache = kwargs.get("past_key_values")
        n_past = int(cache.get_seq_length()) if cache is not None else 0
        mask = kwargs.get("attention_mask")
        if mask is None:
            mask = torch.ones(batch, n_past + width, dtype=torch.bool, device=given.device)
        if not torch.is_tensor(mask) or mask.shape != (batch, n_past + width):
            shape = tuple(mask.shape) if torch.is_tensor(mask) else type(mask).__name__
            raise ValueError(
                f"the attention mask is {shape} and the pass reaches token {n_past + width} in {batch} rows; "
                "give a mask of shape [batch, tokens so far]."
            )
        mask = mask.bool()
        prompt_length = self._prompt_length(mask, n_past, tokens)
        position, valid = (mask.long().cumsum(-1) - 1)[:, n_past:], mask[:, n_past:]
        self.now = Positions(position, valid, prompt_length)
        self._tokens, self._mask = tokens if n_past == 0 else None, mask

    def _prompt_length(self, mask: Tensor, n_past: int, tokens: Tensor | None) -> Tensor | None:
        lengths = DECLARED.get()
        if lengths is not None:
            if len(lengths) != len(mask):
                raise ValueError(f"{len(lengths)} prompt lengths were declared for a batch of {len(mask)} rows.")
            return lengths.to(mask.device)
        if n_past == 0:
            return None if self._goes_on(tokens) else mask.sum(-1)
        if self.now is None or self._mask is None or mask.shape[1] != n_past + 1:
            return None
        return self.now.prompt_length if torch.equal(mask[:, :n_past], self._mask) else None

    def _goes_on(self, tokens: Tensor | None) -> bool:
        """True if these are the last pass's rows, in any order, with a token more: generation without a cache."""
        last = self._tokens
        if last is None or tokens is None or tokens.shape != (len(last), last.shape[1] + 1):
            return False
        return bool((tokens[:, None, :-1] == last).all(-1).any(-1).all())


@contextmanager
def prompts(lengths: Int[Tensor, "batch"]) -> Iterator[None]:
    """Within the block, the first `lengths[row]` tokens of each row are its prompt and the rest is generated."""
    token = DECLARED.set(lengths)
    try:
        yield
    finally:
        DECLARED.reset(token)
