"""Where every token of a forward pass stands in its row, whatever the padding and the cache."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

DECLARED: ContextVar["Declared | None"] = ContextVar("declared", default=None)


@dataclass(frozen=True, eq=False)
class Positions:
    """Where each token of one forward pass stands in its row, whatever the padding and the cache."""

    position: Int[Tensor, "batch pos"]
    """Absolute, from 0 at the row's first token."""

    valid: Bool[Tensor, "batch pos"]
    """False on padding."""

    prompt_length: Int[Tensor, "batch"] | None
    """Tokens of each row's prompt; None if nobody said and the pass alone cannot tell."""

    row: Int[Tensor, "batch"]
    """Which row each is: its place among the prompts of `generate`, or in the batch of any other pass."""

    so_far: Int[Tensor, "batch _"] | None
    """Tokens of each row up to the end of this pass, padding included; None where the pass alone cannot tell."""

    resid: dict[int, Tensor] = field(default_factory=dict)
    """The residual stream of this pass after the layers that someone asked for, `[batch, pos, d_model]`."""

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


@dataclass(frozen=True, eq=False)
class Declared:
    """What a caller says of the rows it is about to run."""

    lengths: Int[Tensor, "batch"]
    rows: Int[Tensor, "batch"] | None
    tokens: Int[Tensor, "batch _"] | None


class PositionClock:
    """Follows a model's forward passes and says where in its row every token stands.

    A pass without a filled cache starts anew, and all it holds is prompt unless `prompts` says otherwise; a pass of
    one token on a filled cache goes on where the last one ended. What was written before it is not known where rows of
    the first pass are alike and nobody has declared them: beam search begins so, and then changes what the rows of its
    cache hold.
    """

    def __init__(self) -> None:
        self.now: Positions | None = None
        self._tokens: Tensor | None = None
        self._mask: Tensor | None = None
        self._opening: Tensor | None = None
        self._may_be_beams: bool | None = None

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
        row, so_far = self._rows(mask, n_past, tokens)
        self.now = Positions(position, valid, prompt_length, row, so_far)
        self._tokens, self._mask = tokens if n_past == 0 else None, mask

    def _prompt_length(self, mask: Tensor, n_past: int, tokens: Tensor | None) -> Tensor | None:
        declared = DECLARED.get()
        if declared is not None:
            lengths = declared.lengths
            if len(lengths) != len(mask):
                raise ValueError(f"{len(lengths)} prompt lengths were declared for a batch of {len(mask)} rows.")
            return lengths.to(mask.device)
        if n_past == 0:
            return None if self._goes_on(tokens) else mask.sum(-1)
        if self.now is None or self._mask is None or mask.shape[1] != n_past + 1:
            return None
        return self.now.prompt_length if torch.equal(mask[:, :n_past], self._mask) else None

    def _rows(self, mask: Tensor, n_past: int, tokens: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Which rows these are, and their tokens so far."""
        declared, row = DECLARED.get(), torch.arange(len(mask), device=mask.device)
        if declared is not None and declared.rows is not None:
            row = declared.rows.to(mask.device)
        if declared is not None and declared.tokens is not None:
            return row, declared.tokens[:, : mask.shape[1]].to(mask.device)
        if n_past == 0 or tokens is None:
            self._opening, self._may_be_beams = tokens, None
            return row, tokens
        if declared is None and self._may_be_beams is None:
            self._may_be_beams = self._opening is not None and len(self._opening.unique(dim=0)) < len(self._opening)
        if self._may_be_beams:
            return row, None
        before = None if self.now is None else self.now.so_far
        follows = self._mask is not None and torch.equal(mask[:, :n_past], self._mask)
        return row, torch.cat([before, tokens], 1) if before is not None and follows else None

    def _goes_on(self, tokens: Tensor | None) -> bool:
        """True if these are the last pass's rows, in any order, with a token more: generation without a cache."""
        last = self._tokens
        if last is None or tokens is None or tokens.shape != (len(last), last.shape[1] + 1):
            return False
        return bool((tokens[:, None, :-1] == last).all(-1).any(-1).all())


@contextmanager
def prompts(
    lengths: Int[Tensor, "batch"],
    rows: Int[Tensor, "batch"] | None = None,
    tokens: Int[Tensor, "batch _"] | None = None,
) -> Iterator[None]:
    """Within the block, the first `lengths[row]` tokens of each row are its prompt and the rest is generated.

    `rows` says which rows they are where that is not their place in the batch, and `tokens` what stands in them,
    padding included, also before the pass.
    """
    token = DECLARED.set(Declared(lengths, rows, tokens))
    try:
        yield
    finally:
        DECLARED.reset(token)
