"""Tokens with an answer, for each, to "is the behaviour happening here?"."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .model import Batch, Model, Rendered, pad


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of tokens, left-padded; what counts as one observation is all valid tokens of one group and label."""

    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    """False on padding."""

    label: Bool[Tensor, "batch pos"]
    valid: Bool[Tensor, "batch pos"]
    """True where a token is to be scored."""

    group: Int[Tensor, "batch"]
    """Which prompt, or pair of prompts, a row belongs to."""

    @classmethod
    def pair(
        cls,
        model: Model,
        on: Sequence[str | Rendered],
        off: Sequence[str | Rendered],
    ) -> "Examples":
        """The same questions asked in two ways, scored at the last prompt token; pair i is group i."""
        if len(on) != len(off) or not on:
            raise ValueError(f"{len(on)} prompts on and {len(off)} off; give the same number of each, at least one.")
        rows = [model.encode(prompt) for pair in zip(on, off, strict=True) for prompt in pair]
        batch = pad(rows, pad_token=model.pad_token)
        shows = (torch.arange(len(rows)) % 2 == 0)[:, None].expand_as(batch.tokens)
        last = torch.zeros_like(batch.mask)
        last[:, -1] = True
        return cls(batch.tokens, batch.mask, shows, last, torch.arange(len(rows)) // 2)

    @property
    def n_groups(self) -> int:
        return len(self.group.unique())

    def batches(self, size: int, device: torch.device) -> Iterator["Examples"]:
        """Rows in batches that never split a group, without the padding that a batch does not need."""
        size += size % 2
        for start in range(0, len(self.tokens), size):
            rows = slice(start, start + size)
            width = int(self.mask[rows].sum(-1).max())
            cut = (rows, slice(self.tokens.shape[1] - width, None))
            columns = (self.tokens[cut], self.mask[cut], self.label[cut], self.valid[cut], self.group[rows])
            yield Examples(*(column.to(device) for column in columns))

    @property
    def batch(self) -> Batch:
        return Batch(self.tokens, self.mask)
