"""What was made of prompts once: for rows that begin alike, and kept for who continues them again."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from . import hooks
from .model import Batch, Model, pad

PLAIN = (DynamicLayer, DynamicSlidingWindowLayer)
"""Caches of a layer that hold keys and values and nothing else."""


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
    out = hooks.run(model, batch, use_cache=True, logits_to_keep=1)
    cache = getattr(out, "past_key_values", None)
    if type(cache) is not DynamicCache or any(type(layer) not in PLAIN for layer in cache.layers):
        return None
    these = torch.tensor(of, device=batch.tokens.device)
    cache.batch_select_indices(these)
    return Batch(batch.tokens[these], batch.mask[these]), out.logits[these, -1], cache


def depends_on_the_longest(model: Model) -> bool:
    """True for rotary embeddings that are scaled by the largest position in the batch."""
    return any(getattr(module, "rope_type", None) in ("dynamic", "longrope") for module in model.hf.modules())


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
