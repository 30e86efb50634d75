"""Batched generation with the plain Hugging Face model, under whatever edits are in force."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from . import hooks
from .model import Batch, Model, Rendered, pad
from .receipts import Receipt

Scores = Float[Tensor, "batch d_vocab"]

Progress = Callable[[int, int], None]
"""Called with the number of items done and of all."""


@dataclass(frozen=True)
class Generation:
    """What the model wrote after each prompt, in the order of the prompts."""

    prompts: tuple[str | Rendered, ...]
    texts: tuple[str, ...]

    tokens: tuple[tuple[int, ...], ...]
    """Generated token ids, forced ones included, without the end-of-text token."""

    finished: tuple[bool, ...]
    """False where the model was cut off at `max_new_tokens`."""

    receipt: Receipt
    """What the edits in force did during this call."""


@torch.inference_mode()
def generate(
    model: Model,
    prompts: Sequence[str | Rendered],
    *,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    stop: Sequence[str] = (),
    forced: Sequence[Sequence[int]] | None = None,
    batch_size: int = 32,
    use_cache: bool = True,
    prefixes: "Prefixes | None" = None,
    progress: Progress = lambda done, total: None,
) -> Generation:
    """Continue every prompt, greedily or (temperature > 0) by Gumbel-max sampling with one generator per row.

    A sampled row depends on `seed` and on its place among the prompts, not on the batch it shares. `forced` gives, per
    prompt, token ids that open the answer; they count as generated. Generation ends at the end-of-text token or after
    the first of the `stop` strings (which is kept); what has ended leaves the batch, and the rest goes on the faster.
    The settings that the model brings (a repetition penalty, say) do not apply, but for its end-of-text tokens.
    `prefixes` saves work where the same prompts are continued again and again. Raises ValueError for an empty or
    overlong prompt.
    """
    _check(prompts, max_new_tokens, temperature, stop, batch_size, forced)
    ids = [model.encode(prompt) for prompt in prompts]
    opening = [list(row) for row in forced] if forced is not None else [[] for _ in ids]
    longest = max(len(a) + len(b) for a, b in zip(ids, opening, strict=True)) + max_new_tokens
    if longest > model.n_ctx:
        raise ValueError(
            f"the longest prompt and {max_new_tokens} new tokens make {longest}; the model's context is "
            f"{model.n_ctx}. Ask for fewer new tokens or shorten the prompt."
        )
    ending = Ending(model, stop)
    rows = [
        Row(prompt, start, _generator(model, seed, n) if temperature > 0 else None)
        for n, (prompt, start) in enumerate(zip(ids, opening, strict=True))
    ]
    order = sorted(rows, key=lambda row: len(row.prompt) + len(row.opening))
    with hooks.recorded() as receipt:
        for start in range(0, len(order), batch_size):
            together = order[start : start + batch_size]
            for scores, going in _passes(model, together, max_new_tokens, use_cache=use_cache, prefixes=prefixes):
                for row, token in zip(going, _chosen(scores, going, temperature), strict=True):
                    ending.take(row, token)
            progress(min(start + batch_size, len(order)), len(order))
        done = receipt()
    tokens = tuple((*row.opening, *row.wrote) for row in rows)
    finished = tuple(row.finished for row in rows)
    return Generation(tuple(prompts), tuple(map(model.decode, tokens)), tokens, finished, done)


@dataclass(eq=False)
class Row:
    """An answer as it is written."""

    prompt: list[int]
    opening: list[int]
    generator: torch.Generator | None
    wrote: list[int] = field(default_factory=list)
    finished: bool = False


def _passes(
    model: Model, rows: Sequence[Row], most: int, *, use_cache: bool, prefixes: "Prefixes | None"
) -> Iterator[tuple[Scores, list[Row]]]:
    """At most so many passes: what may come next after each row that still goes on, and these rows.

    Whoever takes them appends a token to each row, or finishes it; a finished row leaves the batch at once.
    """
    going, cache = list(rows), None
    batch = pad([row.prompt + row.opening for row in rows], pad_token=model.pad_token, device=model.device)
    for n in range(most):
        with hooks.prompts(torch.tensor([len(row.prompt) for row in going])):
            if n == 0 and use_cache and prefixes is not None:
                cache = prefixes.of(model, batch)
            out = hooks.run(model, batch, cache, use_cache=use_cache, logits_to_keep=1)
        yield out.logits[:, -1], going
        kept = torch.tensor([n for n, row in enumerate(going) if not row.finished], device=model.device)
        if len(kept) == 0:
            return
        cache = out.past_key_values if use_cache else None
        if len(kept) < len(going):
            going = [row for row in going if not row.finished]
            batch = Batch(batch.tokens[kept], batch.mask[kept])
            if cache is not None:
                cache.batch_select_indices(kept)
        new = torch.tensor([row.wrote[-1:] for row in going], device=model.device)
        batch = Batch(torch.cat([batch.tokens, new], 1), torch.cat([batch.mask, torch.ones_like(new).bool()], 1))


def _chosen(scores: Scores, rows: Sequence[Row], temperature: float) -> list[int]:
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


def _generator(model: Model, seed: int, row: int) -> torch.Generator:
    return torch.Generator(model.device).manual_seed((seed * 1_000_003 + row) % 2**63)


class Ending:
    """Where answers end: at an end-of-text token, or after a stop string."""

    def __init__(self, model: Model, stop: Sequence[str]) -> None:
        self.model, self.stop, self.tokens = model, stop, _end_tokens(model)

    def take(self, row: Row, token: int) -> None:
        """What a row writes next, which may finish it."""
        if token in self.tokens:
            row.finished = True
            return
        row.wrote.append(token)
        row.finished = bool(self.stop) and self._stops(row)

    def _stops(self, row: Row) -> bool:
        """True if a stop string ends in what the model wrote, be its beginning forced."""
        text, forced = self.model.decode(row.opening + row.wrote), len(self.model.decode(row.opening))
        return any(stop in text[max(0, forced - len(stop) + 1) :] for stop in self.stop)


class Prefixes:
    """The key-value cache of the last batch of prompts, all but their last tokens, for who continues them once more.

    It serves where no edit in force visits those tokens (`LastPromptToken`, `Generated`, `Steps` from -1 on) and is
    passed over elsewhere. Hooks that are not saereason's are not seen: leave it out where there are any. Memory: one
    cache.
    """

    def __init__(self) -> None:
        self._of: tuple[Model, Tensor, Tensor] | None = None
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
            self._of = (model, batch.tokens, batch.mask)
        return copy.deepcopy(self._cache)

    def _is_of(self, model: Model, batch: Batch) -> bool:
        if self._of is None:
            return False
        held, tokens, mask = self._of
        return held is model and torch.equal(tokens, batch.tokens) and torch.equal(mask, batch.mask)


def _end_tokens(model: Model) -> list[int]:
    """Every token that ends an answer: the tokenizer's and those of the model's own generation settings."""
    settings = getattr(model.hf.generation_config, "eos_token_id", None)
    found = [settings] if isinstance(settings, int) else list(settings or [])
    if model.tokenizer.eos_token_id is not None:
        found.append(model.tokenizer.eos_token_id)
    return sorted(set(found))


def _check(
    prompts: Sequence[str | Rendered],
    max_new_tokens: int,
    temperature: float,
    stop: Sequence[str],
    batch_size: int,
    forced: Sequence[Sequence[int]] | None,
) -> None:
    if isinstance(prompts, str | Rendered):
        raise ValueError("prompts is one text; give a list of prompts.")
    if not prompts:
        raise ValueError("there are no prompts; give at least one.")
    if max_new_tokens < 1 or batch_size < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens} and batch_size {batch_size}; both must be at least 1.")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}; it must be 0 (greedy) or a positive number.")
    if isinstance(stop, str) or "" in stop:
        raise ValueError(f"stop is {stop!r}; give a list of texts, none of them empty.")
    if forced is not None and len(forced) != len(prompts):
        raise ValueError(f"{len(forced)} forced openings for {len(prompts)} prompts; give one each.")
