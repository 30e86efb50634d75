"""Rows that are continued together: what has ended leaves, and what waits takes its place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad as padded

from . import hooks
from .model import Batch, Model, pad
from .prefixes import Prefixes, depends_on_the_longest, is_plain, keeps_all, read_once, read_prompts
from .writing import Row, Scores

AT_ONCE = 1200
"""Tokens of prompts that a CPU reads in one pass, so that what lies between layers stays in its cache."""

ROOM = 0.25
"""Share of a batch that must be free before waiting rows join it; they are opened in a pass of their own."""


@dataclass(frozen=True, eq=False)
class Together:
    """Rows with all their tokens, padded on the left, and the keys and values of all but the last token."""

    rows: list[Row]
    batch: Batch
    cache: Any = None

    @property
    def plain(self) -> bool:
        """True where the cache holds the keys and values of all tokens, and nothing else."""
        return self.cache is None or is_plain(self.cache)


def passes(
    model: Model, rows: Sequence[Row], most: int, *, batch_size: int, use_cache: bool, prefixes: Prefixes | None
) -> Iterator[tuple[Scores, list[Row]]]:
    """Pass by pass, what may come next after each of some rows, and these rows; at most so many passes for each row.

    Whoever takes them appends a token to each row, or finishes it. Rows that begin alike are read once, where nothing
    is hooked on the model. With `prefixes`, where caches of different lengths cannot be joined, and where a row's
    states depend on the longest of its batch, all rows of a batch end before the next one begins.
    """
    waiting, opening, going = list(rows), [], None
    joins = prefixes is None and not depends_on_the_longest(model)
    few = joins and model.device.type == "cpu" and keeps_all(model)
    while waiting or opening or going is not None:
        room = batch_size if going is None else batch_size - len(going.rows)
        if not opening and (going is None or (joins and room >= ROOM * batch_size and going.plain)):
            opening, waiting = waiting[:room], waiting[room:]
        now, aside = going, None
        if opening and (going is None or going.plain):
            n = _at_once(model, opening) if few else len(opening)
            now, opening, aside = _opened(model, opening[:n]), opening[n:], going
        assert now is not None
        once = _opened_once(model, now) if use_cache and prefixes is None else None
        scores, cache = _passed(model, now, use_cache, prefixes) if once is None else once
        yield scores, now.rows
        left = _gone_on(now, cache, most, model.pad_token)
        going = _joined(aside, left, model.pad_token)


def _at_once(model: Model, rows: Sequence[Row]) -> int:
    """How many of the rows, one at least, to open in a pass: each takes as many tokens as the longest, copies none."""
    seen, longest, copies = set[tuple[int, ...]](), 0, not hooks.hooked(model)
    for n, row in enumerate(rows):
        text = (*row.prompt, *row.opening, *(() if copies else (n,)))
        longest = max(longest, len(text))
        if seen and text not in seen and (len(seen) + 1) * longest > AT_ONCE:
            return n
        seen.add(text)
    return len(rows)


def _passed(model: Model, now: Together, use_cache: bool, prefixes: Prefixes | None) -> tuple[Scores, Any]:
    lengths, places = torch.tensor([[len(row.prompt), row.n] for row in now.rows]).T
    if now.cache is None and use_cache and prefixes is None:
        return read_prompts(model, now.batch, lengths, places)
    with hooks.prompts(lengths, places, now.batch.tokens):
        cache = now.cache
        if cache is None and use_cache and prefixes is not None:
            cache = prefixes.of(model, now.batch)
        out = hooks.run(model, now.batch, cache, use_cache=use_cache, logits_to_keep=1)
    return out.logits[:, -1], out.past_key_values if use_cache else None


def _opened_once(model: Model, now: Together) -> tuple[Scores, Any] | None:
    """Of new rows, samples of one prompt say, those that are alike are run once; None where none are, or may be."""
    if now.cache is not None:
        return None
    texts = [(*row.prompt, *row.opening) for row in now.rows]
    if len(set(texts)) == len(texts):
        return None
    found = read_once(model, texts)
    return None if found is None else found[1:]


def _opened(model: Model, rows: list[Row]) -> Together:
    return Together(rows, pad([r.prompt + r.opening for r in rows], pad_token=model.pad_token, device=model.device))


def _gone_on(now: Together, cache: Any, most: int, pad_token: int) -> Together | None:
    """The rows that go on, with what they wrote last."""
    kept = [n for n, row in enumerate(now.rows) if not row.finished and len(row.wrote) < most]
    if not kept:
        return None
    left = Together([now.rows[n] for n in kept], now.batch, cache)
    if len(kept) < len(now.rows):
        these = torch.tensor(kept, device=now.batch.tokens.device)
        left = Together(left.rows, Batch(now.batch.tokens[these], now.batch.mask[these]), cache)
        if cache is not None:
            cache.batch_select_indices(these)
        left = _as_wide(left, _longest(left), pad_token) if left.plain else left
    new = torch.tensor([row.wrote[-1:] for row in left.rows], device=left.batch.tokens.device)
    tokens, mask = torch.cat([left.batch.tokens, new], 1), torch.cat([left.batch.mask, torch.ones_like(new).bool()], 1)
    return Together(left.rows, Batch(tokens, mask), cache)


def _longest(these: Together) -> int:
    return int(these.batch.mask.sum(-1).max())


def _as_wide(these: Together, width: int, pad_token: int) -> Together:
    """The same rows with padding put before them, or taken away, until they are so wide; the cache in place."""
    more = width - these.batch.mask.shape[1]
    for layer in these.cache.layers if more and these.cache is not None else ():
        layer.keys, layer.values = padded(layer.keys, (0, 0, more, 0)), padded(layer.values, (0, 0, more, 0))
    tokens = padded(these.batch.tokens, (more, 0), value=pad_token)
    return Together(these.rows, Batch(tokens, padded(these.batch.mask, (more, 0), value=False)), these.cache)


def _joined(first: Together | None, second: Together | None, pad_token: int) -> Together | None:
    """Both as one, as wide as the longest row."""
    if first is None or second is None:
        return first or second
    width = max(_longest(first), _longest(second))
    first, second = _as_wide(first, width, pad_token), _as_wide(second, width, pad_token)
    if first.cache is not None:
        for a, b in zip(first.cache.layers, second.cache.layers, strict=True):
            a.keys, a.values = torch.cat([a.keys, b.keys]), torch.cat([a.values, b.values])
    tokens, mask = (torch.cat([getattr(each.batch, name) for each in (first, second)]) for name in ("tokens", "mask"))
    return Together([*first.rows, *second.rows], Batch(tokens, mask), first.cache)
