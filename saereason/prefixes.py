"""What was made of prompts once: for rows that begin alike, and kept for who continues them again."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from . import hooks
from .model import Batch, Model, pad

WORTH = 64
"""Tokens that must be saved before a pass of its own for what all prompts begin with is worth it."""


def read_once(model: Model, rows: Sequence[Sequence[int]]) -> tuple[Batch, Tensor, Any] | None:
    """Rows of token ids as a batch, what may come next after each, `[row, d_vocab]`, and their key-value cache.

    Of rows that are alike one is run. None where that may not be: where something is hooked on the model, an edit say,
    which may do other things to other rows, and where a cache cannot be taken apart or depends on the longest row.
    """
    if hooks.hooked(model) or depends_on_the_longest(model):
        return None
    places: dict[tuple[int, ...], int] = {}
    of = [places.setdefault(tuple(row), len(places)) for row in rows]
    batch = pad(list(places), pad_token=model.pad_token, device=model.device)
    scores, cache = read_prompts(model, batch, batch.mask.sum(-1))
    if not _made_of(cache, DynamicLayer, DynamicSlidingWindowLayer):
        return None
    these = torch.tensor(of, device=batch.tokens.device)
    cache.batch_select_indices(these)
    return Batch(batch.tokens[these], batch.mask[these]), scores[these], cache


def read_prompts(model: Model, batch: Batch, lengths: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Any]:
    """What may come next after each row of a batch, `[row, d_vocab]`, and their key-value cache.

    `lengths` and `rows` as in `hooks.prompts`. What all prompts begin with is run once, as `begun` has it.
    """
    whole, cache, n = begun(model, batch, lengths, rows)
    with hooks.prompts(lengths, rows, whole.tokens):
        out = hooks.run(model, whole, cache, use_cache=True, logits_to_keep=1)
    if n:
        _move_up(out.past_key_values, (~batch.mask).sum(-1), n)
    return out.logits[:, -1], getattr(out, "past_key_values", None)


def begun(
    model: Model, batch: Batch, lengths: Tensor, rows: Tensor | None = None, *, left: int = 1
) -> tuple[Batch, Any, int]:
    """A batch to go on with from a cache of its first `n` tokens, and this number; so many of a prompt are `left`.

    The tokens with which all prompts begin, a chat's system message say, are run once, where no edit visits them and
    nothing else is hooked on the model; they then stand before the padding. Elsewhere the batch is as it was, and there
    is no cache.
    """
    with hooks.prompts(lengths, rows, batch.tokens):
        n = _alike(batch, int(lengths.min()) - left)
        may = n * (len(batch.tokens) - 1) >= WORTH and _may_be_read_once(model, batch, n)
    first = batch.tokens[:1][batch.mask[:1]][None, :n]
    with hooks.prompts(lengths[:1], None if rows is None else rows[:1], first):
        cache = _beginning(model, first) if may else None
    if cache is None:
        return batch, None, 0
    cache.batch_select_indices(torch.zeros(len(batch.tokens), dtype=torch.long, device=first.device))
    beyond = batch.mask & (batch.mask.long().cumsum(-1) > n)
    tokens = torch.cat([first.expand(len(beyond), n), batch.tokens[:, n:]], 1)
    return Batch(tokens, torch.cat([torch.ones_like(beyond[:, :n]), beyond[:, n:]], 1)), cache, n


def _alike(batch: Batch, most: int) -> int:
    """With how many tokens all rows begin."""
    first = torch.stack([row[mask][: max(0, most)] for row, mask in zip(batch.tokens, batch.mask, strict=True)])
    return int((first == first[0]).all(0).long().cumprod(0).sum())


def _may_be_read_once(model: Model, batch: Batch, n: int) -> bool:
    """Padding comes to stand between tokens, which only rotary positions, counted from the row's first, do not see."""
    if not _rope_types(model) or depends_on_the_longest(model) or not keeps_all(model):
        return False
    return hooks.only_edited(model) and hooks.spare(batch, n)


def _beginning(model: Model, first: Tensor) -> Any:
    """The cache of some tokens; None where it holds anything but their keys and values."""
    out = hooks.run(model, Batch(first, torch.ones_like(first).bool()), use_cache=True, logits_to_keep=1)
    cache = getattr(out, "past_key_values", None)
    return cache if is_plain(cache) else None


def _move_up(cache: Any, padding: Tensor, n: int) -> None:
    """Put the first `n` keys and values of each row behind its padding, before the others."""
    width = int(padding.max()) + n
    column = torch.arange(width, device=padding.device)[None]
    start = padding[:, None]
    moved = torch.where((column >= start) & (column < start + n), column - start, column)
    for layer in cache.layers:
        for held in (layer.keys, layer.values):
            part = held[:, :, :width]
            held[:, :, :width] = part.gather(2, moved[:, None, :, None].expand(part.shape))


def keeps_all(model: Model) -> bool:
    """True for a model whose caches should hold the keys and values of all tokens; `is_plain` tells of one."""
    return _made_of(DynamicCache(config=model.hf.config), DynamicLayer)


def is_plain(cache: Any) -> bool:
    """True for a cache that holds the keys and values of all tokens at every layer, and nothing else."""
    return _made_of(cache, DynamicLayer) and all(layer.is_initialized for layer in cache.layers)


def _made_of(cache: Any, *layers: type) -> bool:
    return type(cache) is DynamicCache and all(type(layer) in layers for layer in cache.layers)


def depends_on_the_longest(model: Model) -> bool:
    """True for rotary embeddings that are scaled by the largest position in the batch."""
    return not _rope_types(model).isdisjoint(("dynamic", "longrope"))


def _rope_types(model: Model) -> set[str]:
    """Of its rotary embeddings; empty for a model without, that has learned positions or ALiBi."""
    return {str(module.rope_type) for module in model.hf.modules() if hasattr(module, "rope_type")}


class Prefixes:
    """The key-value cache of the last batch of prompts, all but their last tokens, for who continues them once more.

    It serves where no edit in force visits those tokens (`LastPromptToken`, `Generated`, `Steps` from -1 on) and is
    passed over elsewhere. Hooks that are not saereason's are not seen: leave it out where there are any. Memory: one
    cache.
    """

    def __init__(self) -> None:
        self._of: tuple[Model, object, Tensor, Tensor] | None = None
        self._cache: Any = None

    def of(self, model: Model, batch: Batch) -> Any:
        """A cache of the batch without its last column, to be filled on; None where it cannot serve."""
        lengths = batch.mask.sum(-1)
        if int(lengths.min()) < 2 or not hooks.spare(batch):
            return None
        if not self._is_of(model, batch):
            before = Batch(batch.tokens[:, :-1], batch.mask[:, :-1])
            self._of = self._cache = None  # free the last one first
            self._cache = hooks.run(model, before, use_cache=True, logits_to_keep=1).past_key_values
            self._of = (model, model.weights, batch.tokens, batch.mask)
        return copy.deepcopy(self._cache)

    def _is_of(self, model: Model, batch: Batch) -> bool:
        if self._of is None:
            return False
        held, weights, tokens, mask = self._of
        if held is not model or weights != model.weights:
            return False
        return torch.equal(tokens, batch.tokens) and torch.equal(mask, batch.mask)
