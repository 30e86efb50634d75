"""A preallocated shuffle buffer of activations, filled from one forward pass for all layers."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saereason.hooks import read
from saereason.model import Model, pad

Acts = dict[int, Float[Tensor, "row d_model"]]


def activations(
    model: Model, rows: Sequence[Sequence[int]], layers: Sequence[int], *, batch_size: int
) -> Iterator[Acts]:
    """The residual stream at some layers, token by token, batch of rows by batch of rows.

    Left out: padding and the first token of each row, whose residual norm is enormous and would drown the rest.
    Rows of like length share a batch, within windows of sixteen batches.
    """
    window = 16 * batch_size
    for start in range(0, len(rows), window):
        near = sorted(rows[start : start + window], key=len)
        for n in range(0, len(near), batch_size):
            batch = pad(near[n : n + batch_size], pad_token=0, side="right", device=model.device)
            keep = batch.mask.clone()
            keep[:, 0] = False
            yield {layer: resid[keep] for layer, resid in read(model, batch, layers).items()}


class ShuffleBuffer:
    """Holds `capacity` activations a layer; hands out random batches, and fills the gaps from the stream.

    The rows of all layers at one place belong to the same token. Memory is bounded by the capacity.
    """

    def __init__(
        self,
        stream: Iterator[Acts],
        *,
        capacity: int,
        batch_size: int,
        d_model: int,
        layers: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        self._stream, self._batch_size, self._generator = stream, batch_size, generator
        self._held = {layer: torch.empty(capacity, d_model, dtype=dtype, device=device) for layer in layers}
        self._capacity, self._size = capacity, 0
        self._left: Acts | None = None
        self._spent = False
        self._order = torch.empty(0, dtype=torch.long)
        self._fill()

    @property
    def sample(self) -> Acts:
        """All that is held now."""
        return {layer: held[: self._size] for layer, held in self._held.items()}

    def batches(self) -> Iterator[Acts]:
        """Random batches until the stream is spent; half of the buffer is renewed at a time.

        Every activation is handed out once, but for those that are left over when a batch can no longer be filled.
        """
        while self._size >= self._batch_size:
            order = torch.randperm(self._size, generator=self._generator)
            spent = self._spent
            n_batches = max(1, (self._size if spent else self._size // 2) // self._batch_size)
            for n in range(n_batches):
                chosen = order[n * self._batch_size : (n + 1) * self._batch_size]
                yield {layer: held[chosen] for layer, held in self._held.items()}
            kept = order[n_batches * self._batch_size :]
            for held in self._held.values():
                held[: len(kept)] = held[kept]
            self._size = len(kept)
            if spent:
                return
            self._fill()

    def _fill(self) -> None:
        """Take from the stream until the buffer is full; what does not fit waits for the next time."""
        while self._size < self._capacity:
            part = self._left if self._left is not None else next(self._stream, None)
            self._left = None
            if part is None:
                self._spent = True
                return
            n = len(next(iter(part.values())))
            taken = min(n, self._capacity - self._size)
            for layer, held in self._held.items():
                held[self._size : self._size + taken] = part[layer][:taken]
            self._size += taken
            if taken < n:
                self._left = {layer: rows[taken:] for layer, rows in part.items()}
