"""Rows that are continued together: what has ended leaves, and what waits takes its place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad as padded
from transformers.cache_utils import DynamicLayer

from . import hooks
from .model import Batch, Model, pad
from .prefixes import Prefixes
from .writing import Row, Scores

ROOM = 0.25
"""Share of a batch that must be free before waiting rows join it; they are opened in a pass of their own."""


@dataclass(frozen=True, eq=False)
class Together:
    """Rows with all their tokens, padded on the left, and the keys and values of all but the last token."""

    rows: list[Row]
    batch: Batch
    cache: Any = None

    @property
    def joins(self) -> bool:
        """False where a layer keeps more than keys and values, or a window of them."""
        return self.cache is None or all(type(layer) is DynamicLayer for layer in self.cache.layers)


def passes(
    model: Model, rows: Sequence[Row], most: int, *, batch_size: int, use_cache: bool, prefixes: Prefixes | None
) -> Iterator[tuple[Scores, list[Row]]]:
    """Pass by pass, what may come next after each of some rows, and these rows; at most so many passes for each row.

    Whoever takes them appends a token to each row, or finishes it. With `prefixes`, and where caches of different
    lengths cannot be joined, all rows of a batch end before the next one begins.
    """
    waiting, going = list(rows), None
    while waiting or going is not None:
        room = batch_size if going is None else batch_size - len(going.rows)
        if going is None or (waiting and prefixes is None and room >= ROOM * batch_size and going.joins):
            now, waiting, aside = _opened(model, waiting[:room]), waiting[room:], going
        else:
            now, aside = going, None
        lengths, places = torch.tensor([[len(row.prompt), row.n] for row in now.rows]).T
        with hooks.prompts(lengths, places, now.batch.tokens):
            cache = now.cache
            if cache is None and use_cache and prefixes is not None:
                cache = prefixes.of(model, now.batch)
            out = hooks.run(model, now.batch, cache, use_cache=use_cache, logits_to_keep=1)
        yield out.logits[:, -1], now.rows
        going = _joined(aside, _gone_on(now, out.past_key_values if use_cache else None, most), model.pad_token)


def _opened(model: Model, rows: list[Row]) -> Together:
    return Together(rows, pad([r.prompt + r.opening for r in rows], pad_token=model.pad_token, device=model.device))


def _gone_on(now: Together, cache: Any, most: int) -> Together | None:
    """The rows that go on, with what they wrote last."""
    kept = [n for n, row in enumerate(now.rows) if not row.finished and len(row.wrote) < most]
    if not kept:
        return None
    rows, tokens, mask = [now.rows[n] for n in kept], now.batch.tokens, now.batch.mask
    if len(kept) < len(now.rows):
        these = torch.tensor(kept, device=tokens.device)
        tokens, mask = tokens[these], mask[these]
        if cache is not None:
            cache.batch_select_indices(these)
    new = torch.tensor([row.wrote[-1:] for row in rows], device=tokens.device)
    return Together(rows, Batch(torch.cat([tokens, new], 1), torch.cat([mask, torch.ones_like(new).bool()], 1)), cache)


def _joined(first: Together | None, second: Together | None, pad_token: int) -> Together | None:
    """Both as one, as wide as the longest row."""
    if first is None or second is None:
        return first or second
    both = first, second
    width = max(int(each.batch.mask.sum(-1).max()) for each in both)
    extra = [width - each.batch.mask.shape[1] for each in both]
    tokens = [padded(each.batch.tokens, (more, 0), value=pad_token) for each, more in zip(both, extra, strict=True)]
    mask = [padded(each.batch.mask, (more, 0), value=False) for each, more in zip(both, extra, strict=True)]
    if first.cache is not None:
        for a, b in zip(first.cache.layers, second.cache.layers, strict=True):
            for name in ("keys", "values"):
                parts = [padded(getattr(x, name), (0, 0, more, 0)) for x, more in zip((a, b), extra, strict=True)]
                setattr(a, name, torch.cat(parts))
    return Together([*first.rows, *second.rows], Batch(torch.cat(tokens), torch.cat(mask)), first.cache)
