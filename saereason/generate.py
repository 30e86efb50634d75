"""Batched generation with the plain Hugging Face model, under whatever edits are in force."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from . import hooks
from .model import Model, Rendered
from .prefixes import Prefixes
from .receipts import Receipt
from .together import passes
from .writing import Budget, Ending, Row, chosen

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
    prefixes: Prefixes | None = None,
    budget: Budget | None = None,
    on_token: Callable[[int, int], None] = lambda prompt, token: None,
    progress: Progress = lambda done, total: None,
) -> Generation:
    """Continue every prompt, greedily or (temperature > 0) by Gumbel-max sampling with one generator per row.

    A sampled row depends on `seed` and on its place among the prompts, not on the batch it shares. `forced` gives, per
    prompt, token ids that open the answer; they count as generated. Generation ends at the end-of-text token or after
    the first of the `stop` strings (which is kept); what has ended leaves the batch, and what waits takes its place.
    Prompts that are there several times, for samples, are read once unless an edit, or any hook, is on the model.
    The settings that the model brings (a repetition penalty, say) do not apply, but for its end-of-text tokens.
    `prefixes` saves work where the same prompts are continued again and again; `budget` keeps answers from ending
    early; `on_token` is told each token as it is written, with the place of its prompt. Raises ValueError for an empty
    or overlong prompt.
    """
    _check(prompts, max_new_tokens, temperature, stop, batch_size, forced)
    ids = [model.encode(prompt) for prompt in prompts]
    opening = [list(row) for row in forced] if forced is not None else [[] for _ in ids]
    model.check_tokens([token for row in (*opening, () if budget is None else budget.ends) for token in row])
    check_room(model, [a + b for a, b in zip(ids, opening, strict=True)], max_new_tokens)
    ending = Ending(model, stop, 0 if budget is None else budget.least)
    rows = [
        Row(n, prompt, start, _generator(model, seed, n) if temperature > 0 else None)
        for n, (prompt, start) in enumerate(zip(ids, opening, strict=True))
    ]
    order = sorted(rows, key=lambda row: (len(row.prompt) + len(row.opening), row.prompt, row.opening))
    with hooks.recorded() as receipt:
        n_done = 0
        for scores, going in passes(
            model, order, max_new_tokens, batch_size=batch_size, use_cache=use_cache, prefixes=prefixes
        ):
            scores = scores if budget is None else budget.allowed(scores, going, ending.tokens)
            for row, token in zip(going, chosen(scores, going, temperature), strict=True):
                said = token if budget is None else budget.instead(row, token, model, ending.tokens)
                ending.take(row, said)
                on_token(row.n, said)
            ended = sum(row.finished or len(row.wrote) == max_new_tokens for row in going)
            if ended:
                n_done += ended
                progress(n_done, len(order))
        done = receipt()
    tokens = tuple((*row.opening, *row.wrote) for row in rows)
    finished = tuple(row.finished for row in rows)
    return Generation(tuple(prompts), tuple(map(model.decode, tokens)), tokens, finished, done)


def check_room(model: Model, rows: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raises ValueError for rows of token ids after which there is no room for so many more."""
    longest = max(map(len, rows)) + max_new_tokens
    if longest > model.n_ctx:
        raise ValueError(
            f"the longest prompt and {max_new_tokens} new tokens make {longest}; the model's context is "
            f"{model.n_ctx}. Ask for fewer new tokens or shorten the prompt."
        )


def _generator(model: Model, seed: int, row: int) -> torch.Generator:
    return torch.Generator(model.device).manual_seed((seed * 1_000_003 + row) % 2**63)


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
