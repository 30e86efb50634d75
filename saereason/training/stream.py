"""Activations for training, in a random order that is a function of the texts and a seed alone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, cycle

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saereason.hooks import read
from saereason.model import Model, pad

Acts = dict[int, Float[Tensor, "row d_model"]]
ROWS_A_PASS = 16
"""Rows of token ids in one forward pass."""


@dataclass(frozen=True, eq=False)
class Stream:
    """The residual stream at some layers, token by token, shuffled within windows of `window` tokens.

    Padding is left out, and the first token of each row, whose residual norm is enormous and would drown the rest. The
    rows of all layers at one place of a batch belong to the same token. What `batches` gives from a step on depends on
    nothing that went before, so training can go on anywhere. Memory: `window · d_model` numbers a layer.
    """

    model: Model
    rows: Sequence[Sequence[int]]
    layers: tuple[int, ...]
    dtype: torch.dtype
    batch_size: int
    window: int
    seed: int
    device: torch.device
    """Where the batches are wanted."""

    left_out: frozenset[int] = frozenset()
    """Token ids whose activations are left out."""

    most: int | None = None
    """Tokens in all: the texts are cut short there, or gone through again until there are as many."""

    @cached_property
    def passes(self) -> list[list[Sequence[int]]]:
        """Rows of like length that share a forward pass, within sixteen passes of where they stand."""
        near, found = 16 * ROWS_A_PASS, []
        for start in range(0, len(self.rows), near):
            part = sorted(self.rows[start : start + near], key=len)
            found += [part[n : n + ROWS_A_PASS] for n in range(0, len(part), ROWS_A_PASS)]
        return found

    @cached_property
    def ends(self) -> np.ndarray:
        """Tokens up to the end of each pass, once through the texts."""
        return np.cumsum([sum(self._n_kept(row) for row in rows) for rows in self.passes])

    def _n_kept(self, row: Sequence[int]) -> int:
        return sum(token not in self.left_out for token in row[1:])

    @property
    def n_in_texts(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def n_tokens(self) -> int:
        return self.n_in_texts if self.most is None or not self.n_in_texts else self.most

    @property
    def n_steps(self) -> int:
        return self.n_tokens // self.batch_size

    @property
    def width(self) -> int:
        """Tokens in a window: as many whole batches as fit."""
        return self.steps_a_window * self.batch_size

    @property
    def steps_a_window(self) -> int:
        return self.window // self.batch_size

    def batches(self, start: int = 0, windows: Iterable[tuple[int, Acts]] | None = None) -> Iterator[Acts]:
        """Random batches from step `start` on; each activation comes once, but for an incomplete last batch.

        `windows`, where somebody has begun to read them, are those from the step's own on.
        """
        skip = start % self.steps_a_window
        for number, held in self.windows(start // self.steps_a_window) if windows is None else windows:
            size = len(next(iter(held.values())))
            order = torch.randperm(size, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + number))
            for n in range(skip, size // self.batch_size):
                chosen = order[n * self.batch_size : (n + 1) * self.batch_size].to(self.device)
                yield {layer: part[chosen] for layer, part in held.items()}
            skip = 0

    def windows(self, first: int = 0) -> Iterator[tuple[int, Acts]]:
        """Windows by number, in the order of the texts; the memory of one is used again for the next."""
        options = {"dtype": self.dtype, "device": self.device}
        held = {layer: torch.empty(self.width, self.model.d_model, **options) for layer in self.layers}
        number, filled, left = first, 0, self.n_tokens - first * self.width
        for part in self.activations(first * self.width):
            n, done = min(left, len(next(iter(part.values())))), 0
            left -= n
            while done < n:
                taken = min(n - done, self.width - filled)
                for layer, rows in held.items():
                    rows[filled : filled + taken] = part[layer][done : done + taken]
                filled, done = filled + taken, done + taken
                if filled == self.width:
                    yield number, held
                    number, filled = number + 1, 0
            if left == 0:
                break
        if filled:
            yield number, {layer: rows[:filled] for layer, rows in held.items()}

    def activations(self, skip: int = 0) -> Iterator[Acts]:
        """The activations in the order of the texts, pass by pass, without the first `skip` tokens.

        Once through, or round and round for as long as anybody asks where `most` says how many.
        """
        if self.most is not None and self.n_in_texts:
            skip %= self.n_in_texts
        first = int(np.searchsorted(self.ends, skip, side="right"))
        before = int(self.ends[first - 1]) if first else 0
        again = cycle(self.passes) if self.most is not None and self.n_in_texts else ()
        left_out = torch.tensor(sorted(self.left_out), dtype=torch.long, device=self.model.device)
        for n, rows in enumerate(chain(self.passes[first:], again)):
            batch = pad(rows, pad_token=0, side="right", device=self.model.device)
            keep = batch.mask & ~torch.isin(batch.tokens, left_out)
            keep[:, 0] = False
            cut = skip - before if n == 0 else 0
            yield {layer: resid[keep][cut:] for layer, resid in read(self.model, batch, self.layers).items()}
