"""Batched generation over plain Hugging Face, under whatever edits are in force."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import hooks
from .model import Batch, Model, Rendered, pad
from .receipts import Receipt

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
    the first of the `stop` strings (which is kept). The settings that the model brings (a repetition penalty, say)
    do not apply, but for its end-of-text tokens. `prefixes` saves work where the same prompts are continued again and
    again. Raises ValueError for an empty or overlong prompt.
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
    order = sorted(range(len(ids)), key=lambda n: len(ids[n]) + len(opening[n]))
    ends = _end_tokens(model)
    written: dict[int, tuple[tuple[int, ...], bool]] = {}
    with hooks.recorded() as receipt:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            seeds = [_row_seed(seed, n) for n in rows]
            endings = Endings(model, [opening[n] for n in rows], stop, ends)
            with hooks.lean_head(model), hooks.prompts(torch.tensor([len(ids[n]) for n in rows]), endings.over):
                found = _continue(
                    model,
                    [ids[n] + opening[n] for n in rows],
                    endings,
                    GumbelMax(temperature, seeds, model.device) if temperature > 0 else None,
                    {"max_new_tokens": max_new_tokens, "use_cache": use_cache},
                    prefixes if use_cache else None,
                )
            for n, tokens, over in zip(rows, found, endings.over.tolist(), strict=True):
                written[n] = (*opening[n], *tokens), over
            progress(min(start + batch_size, len(order)), len(order))
        done = receipt()
    tokens, finished = zip(*(written[n] for n in range(len(ids))), strict=True)
    return Generation(tuple(prompts), tuple(map(model.decode, tokens)), tokens, finished, done)


def _continue(
    model: Model,
    rows: Sequence[Sequence[int]],
    endings: "Endings",
    noise: "GumbelMax | None",
    options: dict[str, Any],
    prefixes: "Prefixes | None",
) -> list[list[int]]:
    """What the model writes after each of the rows, up to where each ends."""
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    batch = pad(rows, pad_token=model.pad_token, device=model.device)
    plain = copy.copy(model.hf)  # shallow: the same weights and hooks, without the settings that the model brings
    plain.generation_config = GenerationConfig()
    out = plain.generate(
        input_ids=batch.tokens,
        attention_mask=batch.mask.long(),
        generation_config=GenerationConfig(
            do_sample=False, num_beams=1, eos_token_id=endings.ends or None, pad_token_id=model.pad_token, **options
        ),
        logits_processor=LogitsProcessorList([noise] if noise else []),
        stopping_criteria=StoppingCriteriaList([endings]),
        past_key_values=prefixes.of(model, batch) if prefixes is not None else None,
    )
    wrote = out[:, batch.tokens.shape[1] :].tolist()
    return [tokens[:length] for tokens, length in zip(wrote, endings.lengths, strict=True)]


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


class Endings:
    """A stopping criterion that notes which rows are over, at an end-of-text token or after a stop string."""

    def __init__(self, model: Model, openings: Sequence[list[int]], stop: Sequence[str], ends: Sequence[int]) -> None:
        self.model, self.stop, self.ends = model, stop, list(ends)
        self.over = torch.zeros(len(openings), dtype=torch.bool, device=model.device)
        self.lengths: list[int | None] = [None] * len(openings)
        """New tokens to keep of each row; None for a row that is not over."""

        self._answers = [list(opening) for opening in openings]
        self._forced = [len(model.decode(opening)) for opening in openings]
        self._new = 0

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Tensor:  # noqa: ARG002
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self.lengths[row] is not None:
                continue
            self._answers[row].append(token)
            if token in self.ends:
                self.lengths[row] = self._new
            elif self.stop and self._stops(row):
                self.lengths[row] = self._new + 1
        self._new += 1
        self.over |= torch.tensor([length is not None for length in self.lengths], device=self.over.device)
        return self.over

    def _stops(self, row: int) -> bool:
        """True if a stop string ends in what the model wrote, be its beginning forced."""
        text, forced = self.model.decode(self._answers[row]), self._forced[row]
        return any(stop in text[max(0, forced - len(stop) + 1) :] for stop in self.stop)


class GumbelMax:
    """A logits processor: argmax of `logits / temperature + Gumbel noise` is a sample of the softmax.

    Each row draws from its own generator, so a row's sample does not depend on the others (Maddison et al. 2014).
    """

    def __init__(self, temperature: float, seeds: Sequence[int], device: torch.device) -> None:
        self.temperature = temperature
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002  transformers passes both
        noise = torch.stack([torch.rand(scores.shape[-1], generator=g, device=scores.device) for g in self.generators])
        tiny = torch.finfo(noise.dtype).tiny
        gumbel = -(-noise.clamp(min=tiny).log()).clamp(min=tiny).log()
        return scores.float() / self.temperature + gumbel


def _row_seed(seed: int, row: int) -> int:
    return (seed * 1_000_003 + row) % 2**63


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
