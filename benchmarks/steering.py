"""Steered generation against plain generation, TransformerBridge, and the loops one would write by hand.

    python -m benchmarks.steering [--quick] [--model folder] [--only speed,evaluation,sweep,memory]

SmolLM2-135M-Instruct in its fast precision, greedy, prompts of one length, 128 new tokens, a feature of 4,608 clamped
at every position of layer 19. Each figure is the median of the rounds' ratios, sides in turn:

- `over_plain` (goal 0.95): steered tokens a second over those of Hugging Face's `generate` without an edit, the
  smallest of ReLU and JumpReLU, batch 1 and batch 16; `over_plain_topk` (0.92) likewise for Top-K.
- `over_bridge`: the same over TransformerBridge with a hook that clamps the same ReLU feature, as a share of the goal,
  1.3 at batch 1 and 0.95 at batch 16; the smaller one.
- `eval_over_plain` (1.2): graded word problems a second in float32, batch 32, over plain generation in which all rows
  go on until the last has ended. The tokens of both are the same, or it stops.
- `sweep_over_naive` (1.3): 8 features x 5 coefficients x 48 prompts over one `generate` for each feature and
  coefficient with a hook, prompts in batches of 16.
- `memory_ratio` (at most 1.1): peak resident memory of steered generation over that of plain, each in its own process.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch

import saereason as sr
from saereason.features import Feature
from saereason.model import Model, Rendered, pad
from saereason.saes import SAE
from saereason.tasks import problems
from saereason.writing import end_tokens

from . import interleaved
from ._saes import random_sae

LAYER, VALUE = 19, 2.0
PARTS = ("speed", "evaluation", "sweep", "memory")


@dataclass(frozen=True)
class Work:
    """How much of everything."""

    new_tokens: int = 128
    batches: tuple[int, ...] = (1, 16)
    rounds: int = 7
    d_sae: int = 4608
    problems: int = 200
    features: int = 8
    sizes: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0, 80.0)
    prompts: int = 48
    short: int = 32
    """New tokens of an answer in the sweep."""


QUICK = Work(8, (1, 4), 2, 96, 12, 2, (5.0, 10.0), 6, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--peak", choices=["plain", "steered"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    work = QUICK if asked.quick else Work()
    if asked.peak:
        print(peak(sr.load_model(asked.model), work, steer=asked.peak == "steered"))
        return
    found: dict[str, Any] = {}
    for part in asked.only.split(","):
        found |= {"speed": speed, "evaluation": evaluation, "sweep": sweep, "memory": memory}[part](asked, work)
    print(json.dumps({**found, "threads": torch.get_num_threads()}))


def speed(asked: argparse.Namespace, work: Work) -> dict[str, Any]:
    """Generation of one length, each side at each batch size."""
    model = sr.load_model(asked.model)
    layer = min(LAYER, model.n_layers - 1)
    saes = {name: random_sae(model, layer, name, work.d_sae) for name in ("standard", "jumprelu", "topk")}
    bridge, rates = model.bridge(), {}
    with endless(model):
        for size in work.batches:
            tokens = inputs(model, size)
            sides = {"plain": partial(plain, model, tokens, work.new_tokens)}
            for name, sae in saes.items():
                sides[name] = partial(steered, model, {layer: sae}, tokens, work.new_tokens)
            sides["bridge"] = partial(bridged, bridge, saes["standard"], tokens, work.new_tokens)
            rates[size] = interleaved(sides, rounds=work.rounds)
            for name, figures in rates[size].items():
                print(
                    f"batch {size}, {name}: {median(figures):.1f} tokens/s ({min(figures):.1f} to {max(figures):.1f})"
                )
    over = {(side, size): ratio(of, side, "plain") for size, of in rates.items() for side in saes}
    first, last = (ratio(rates[size], "standard", "bridge") for size in work.batches)
    print(f"over plain: { ({f'{side} {size}': round(value, 3) for (side, size), value in over.items()}) }")
    print(f"over the bridge: {first:.2f} at batch {work.batches[0]}, {last:.2f} at batch {work.batches[1]}")
    return {
        "over_plain": round(min(value for (side, _), value in over.items() if side != "topk"), 3),
        "over_plain_topk": round(min(value for (side, _), value in over.items() if side == "topk"), 3),
        "over_bridge": round(min(first / 1.3, last / 0.95), 3),
        "dtype": str(model.dtype),
    }


def evaluation(asked: argparse.Namespace, work: Work) -> dict[str, Any]:
    """Problems a second, answers of different lengths; float32, so that both write the same tokens."""
    model = sr.load_model(asked.model, dtype=torch.float32)
    task = sr.word_problems(problems(work.problems, seed=0, split="discovery"))
    trial = sr.Trial.of(model, task, task.direct, max_new_tokens=work.new_tokens)
    layer = min(LAYER, model.n_layers - 1)
    saes = {layer: random_sae(model, layer, "jumprelu", work.d_sae)}
    edit, wrote = sr.Add(Feature(layer, 3), 0.01, sr.LastPromptToken()), {}

    def ours() -> int:
        with sr.steered(model, saes, edit):
            wrote["ours"] = sr.generate(model, trial.prompts, max_new_tokens=work.new_tokens).tokens
        return graded(trial, model, wrote["ours"])

    def theirs() -> int:
        with sr.steered(model, saes, edit):
            wrote["plain"] = by_hand(model, trial.prompts, work.new_tokens, 32)
        return graded(trial, model, wrote["plain"])

    rates = interleaved({"ours": ours, "plain": theirs}, rounds=1 if work is QUICK else 3, warm=False)
    different = sum(a != b for a, b in zip(wrote["ours"], wrote["plain"], strict=True))
    lengths = sorted(map(len, wrote["ours"]))
    print(f"evaluation: { ({name: [round(x, 2) for x in each] for name, each in rates.items()}) } items/s")
    print(f"answers of {lengths[0]} to {lengths[-1]} tokens, median {median(lengths)}; {different} differ")
    if different:
        raise SystemExit(f"{different} of {len(lengths)} answers differ from those of the plain loop.")
    return {"eval_over_plain": round(ratio(rates, "ours", "plain"), 3), "eval_lengths": [lengths[0], lengths[-1]]}


def sweep(asked: argparse.Namespace, work: Work) -> dict[str, Any]:
    """Every feature in every size, over the loop of a hook and a `generate`."""
    model = sr.load_model(asked.model)
    layer = min(LAYER, model.n_layers - 1)
    sae = random_sae(model, layer, "topk", work.d_sae)
    task = sr.word_problems(problems(work.prompts, seed=0, split="discovery"))
    trial = sr.Trial.of(model, task, task.direct, max_new_tokens=work.short)
    edits = [sr.Add(Feature(layer, n), 1.0, sr.LastPromptToken()) for n in range(work.features)]
    answers = work.features * len(work.sizes) * work.prompts

    def ours() -> int:
        sr.sweep(model, {layer: sae}, trial, sr.doses(edits, work.sizes))
        return answers

    def naive() -> int:
        for edit in edits:
            for size in work.sizes:
                with added(model, layer, size * sae.W_dec[edit.feature.index]):
                    by_hand(model, trial.prompts, work.short, 16)
        return answers

    rates: dict[str, list[float]] = interleaved({"ours": ours, "naive": naive}, rounds=1, warm=False)
    print(f"sweep: { ({name: [round(x, 2) for x in each] for name, each in rates.items()}) } answers/s")
    return {"sweep_over_naive": round(ratio(rates, "ours", "naive"), 3)}


def memory(asked: argparse.Namespace, work: Work) -> dict[str, Any]:
    """Peak memory of two processes that differ in the edit alone."""
    given = ["--model", asked.model, *(["--quick"] if work is QUICK else [])]
    peaks = {}
    for side in ("plain", "steered"):
        command = [sys.executable, "-m", "benchmarks.steering", *given, "--peak", side]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks[side] = int(done.stdout.splitlines()[-1])
    print(f"memory: { ({name: f'{size / 1e9:.2f} GB' for name, size in peaks.items()}) }")
    return {"memory_ratio": round(peaks["steered"] / peaks["plain"], 3)}


def peak(model: Model, work: Work, *, steer: bool) -> int:
    """Peak resident bytes of this process after one generation."""
    tokens = inputs(model, work.batches[-1])
    with endless(model):
        if steer:
            layer = min(LAYER, model.n_layers - 1)
            steered(model, {layer: random_sae(model, layer, "topk", work.d_sae)}, tokens, work.new_tokens)
        else:
            plain(model, tokens, work.new_tokens)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def plain(model: Model, tokens: torch.Tensor, n_new: int) -> int:
    hf_generate(model, tokens, torch.ones_like(tokens), n_new)
    return len(tokens) * n_new


def steered(model: Model, saes: dict[int, SAE], tokens: torch.Tensor, n_new: int) -> int:
    """One feature held at every position, written by saereason."""
    [layer] = saes
    prompts = [Rendered(model.tokenizer.decode(row), True, None) for row in tokens]
    with sr.steered(model, saes, sr.Clamp(Feature(layer, 3), VALUE)):
        written = sr.generate(model, prompts, max_new_tokens=n_new)
    assert all(len(row) == n_new for row in written.tokens)
    return len(tokens) * n_new


@torch.inference_mode()
def bridged(bridge: Any, sae: SAE, tokens: torch.Tensor, n_new: int) -> int:
    """The same, with a hook of the bridge's."""
    name, weights = sae.cfg.metadata.hook_name.replace("hook_resid_post", "hook_out"), sae.state_dict()
    encoder, bias, row = weights["W_enc"][:, 3], weights["b_enc"][3], weights["W_dec"][3]

    def clamp(resid: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        acts = torch.relu((resid.float() - weights["b_dec"]) @ encoder + bias)
        return (resid.float() + (VALUE - acts)[..., None] * row).to(resid.dtype)

    with bridge.hooks(fwd_hooks=[(name, clamp)]):
        out = bridge.generate(tokens, max_new_tokens=n_new, do_sample=False, stop_at_eos=False, verbose=False)
    assert out.shape[1] == tokens.shape[1] + n_new
    return len(tokens) * n_new


@torch.inference_mode()
def hf_generate(model: Model, tokens: torch.Tensor, mask: torch.Tensor, n_new: int) -> torch.Tensor:
    settings = {"max_new_tokens": n_new, "do_sample": False, "pad_token_id": model.pad_token}
    return model.hf.generate(tokens, attention_mask=mask.long(), **settings)[:, tokens.shape[1] :]


def by_hand(model: Model, prompts: Sequence[Any], n_new: int, batch_size: int) -> list[tuple[int, ...]]:
    """Batches in the order of the prompts, each until its last row has ended."""
    ends, found = end_tokens(model, ()), []
    for start in range(0, len(prompts), batch_size):
        rows = [model.encode(prompt) for prompt in prompts[start : start + batch_size]]
        batch = pad(rows, pad_token=model.pad_token, device=model.device)
        for row in hf_generate(model, batch.tokens, batch.mask, n_new).tolist():
            end = next((n for n, token in enumerate(row) if token in ends), len(row))
            found.append(tuple(row[:end]))
    return found


def graded(trial: sr.Trial, model: Model, wrote: Sequence[Sequence[int]]) -> int:
    for n, tokens in enumerate(wrote):
        trial.judge(n, model.decode(tokens), tokens, finished=len(tokens) < trial.max_new_tokens)
    return len(wrote)


@contextmanager
def added(model: Model, layer: int, vector: torch.Tensor) -> Iterator[None]:
    """A vector added to the last token of each prompt by a hook written by hand; prompts are padded on the left."""

    def hook(module: Any, args: Any, output: Any) -> Any:  # noqa: ARG001
        resid = output[0] if isinstance(output, tuple) else output
        if resid.shape[1] > 1:  # the prompt's pass
            resid[:, -1] += vector.to(resid.dtype)

    handle = model.blocks[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def endless(model: Model) -> Iterator[None]:
    """No token ends an answer: every side writes all of its tokens."""
    settings, tokenizer = model.hf.generation_config, model.tokenizer
    before = settings.eos_token_id, tokenizer.eos_token
    settings.eos_token_id = tokenizer.eos_token = None
    try:
        yield
    finally:
        settings.eos_token_id, tokenizer.eos_token = before


def inputs(model: Model, n: int) -> torch.Tensor:
    """Prompts of one length."""
    return torch.tensor([model.encode(f"The number {n} is") for n in range(10, 10 + n)])


def ratio(rates: dict[str, list[float]], first: str, second: str) -> float:
    return median(a / b for a, b in zip(rates[first], rates[second], strict=True))


if __name__ == "__main__":
    main()
