"""Batched generation over plain Hugging Face, under whatever edits are in force."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import hooks
from .model import Model, Rendered, pad
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
    progress: Progress = lambda done, total: None,
) -> Generation:
    """Continue every prompt, greedily or (temperature > 0) by Gumbel-max sampling with one generator per row.

    A sampled row depends on `seed` and on its place among the prompts, not on the batch it shares. `forced` gives, per
    prompt, token ids that open the answer; they count as generated. Generation ends at the end-of-text token or after
    the first of the `stop` strings (which is kept). Raises ValueError for an empty or overlong prompt.
    """
    _check(prompts, max_new_tokens, temperature, batch_size, forced)
    ids = [model.encode(prompt) for prompt in prompts]
    opening = [list(row) for row in forced] if forced is not None else [[] for _ in ids]
    longest = max(len(a) + len(b) for a, b in zip(ids, opening, strict=True)) + max_new_tokens
    if longest > model.n_ctx:
        raise ValueError(
            f"the longest prompt and {max_new_tokens} new tokens make {longest}; the model's context is "
            f"{model.n_ctx}. Ask for fewer new tokens or shorten the prompt."
        )
    order = sorted(range(len(ids)), key=lambda n: len(ids[n]) + len(opening[n]))
    written: dict[int, tuple[list[int], bool]] = {}
    with hooks.recorded() as receipt:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            options = _options(model, max_new_tokens, temperature, stop, [_row_seed(seed, n) for n in rows], use_cache)
            lengths = torch.tensor([len(ids[n]) for n in rows])
            batch = pad([ids[n] + opening[n] for n in rows], pad_token=options["pad_token_id"], device=model.device)
            with hooks.prompts(lengths, ends=[*options["eos_token_id"], options["pad_token_id"]]):
                out = model.hf.generate(
                    input_ids=batch.tokens, attention_mask=batch.mask.long(), **_hf_arguments(model, options)
                )
            for n, row in zip(rows, out[:, batch.tokens.shape[1] :].tolist(), strict=True):
                written[n] = _finish(model, row, stop, opening[n], options["eos_token_id"])
            progress(min(start + batch_size, len(order)), len(order))
        done = receipt()
    tokens = tuple(tuple(written[n][0]) for n in range(len(ids)))
    texts = tuple(model.decode(row) for row in tokens)
    return Generation(tuple(prompts), texts, tokens, tuple(written[n][1] for n in range(len(ids))), done)


def _options(
    model: Model,
    max_new_tokens: int,
    temperature: float,
    stop: Sequence[str],
    seeds: Sequence[int],
    use_cache: bool,
) -> dict[str, Any]:
    eos = _end_tokens(model)
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "use_cache": use_cache,
        "eos_token_id": eos,
        "pad_token_id": model.tokenizer.pad_token_id if model.tokenizer.pad_token_id is not None else eos[0],
    }
    if stop:
        options["stop_strings"] = list(stop)
    if temperature > 0:
        options["gumbel"] = GumbelMax(temperature, seeds, model.device)
    return options


def _hf_arguments(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    from transformers import GenerationConfig, LogitsProcessorList

    rest = {key: value for key, value in options.items() if key != "gumbel"}
    arguments: dict[str, Any] = {"generation_config": GenerationConfig(**rest)}
    if "gumbel" in options:
        arguments["logits_processor"] = LogitsProcessorList([options["gumbel"]])
    if "stop_strings" in options:
        arguments["tokenizer"] = model.tokenizer
    return arguments


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
    return sorted(set(found)) or [0]


def _finish(
    model: Model, row: list[int], stop: Sequence[str], opening: list[int], ends: Sequence[int]
) -> tuple[list[int], bool]:
    """The row up to its end, and whether it came to one."""
    cut = next((n for n, token in enumerate(row) if token in ends), None)
    kept = row if cut is None else row[:cut]
    if not stop:
        return opening + kept, cut is not None
    stopped = any(text in model.decode(kept) for text in stop)
    if stopped:  # rows of a batch that end later leave padding, or further text, behind the stop string
        kept = next(kept[:n] for n in range(1, len(kept) + 1) if any(text in model.decode(kept[:n]) for text in stop))
    return opening + kept, cut is not None or stopped


def _check(
    prompts: Sequence[str | Rendered],
    max_new_tokens: int,
    temperature: float,
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
    if forced is not None and len(forced) != len(prompts):
        raise ValueError(f"{len(forced)} forced openings for {len(prompts)} prompts; give one each.")
