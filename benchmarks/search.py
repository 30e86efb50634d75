"""Search over all layers and all features, against the forward pass that it needs anyway.

    python -m benchmarks.search [--quick] [--model folder]

SmolLM2-135M-Instruct in its fast precision, Top-K SAEs of 4,608 features (k 32, random weights, whose cost is that of
trained ones) at all 30 layers, rows of 64 token ids. `over_forward`: the time of `search` over every position but each
row's first, over that of the bare model without its LM head on the same batches; `over_forward_last`: likewise for the
last tokens of pairs of prompts alone. Medians of the rounds' ratios, sides in turn. `memory_ratio`: peak resident
memory of a search over 200,000 tokens over that of one over 10,000, and `memory_ratio_block` with the block on disk;
each in a process of its own.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

import saereason as sr
from saereason.model import Model
from saereason.saes import SAE

from . import interleaved, report
from ._saes import random_sae

ROWS_A_PASS = 32


def random_saes(model: Model, d_sae: int, k: int) -> dict[int, SAE]:
    """Top-K SAEs of every layer."""
    return {layer: random_sae(model, layer, "topk", d_sae, k) for layer in range(model.n_layers)}


def rows(model: Model, n: int, length: int) -> sr.Examples:
    """Rows of random token ids in pairs, one on and one off, all scored but for the first token of each."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, model.d_vocab, (n, length), generator=generator)
    valid = torch.ones(n, length, dtype=torch.bool)
    valid[:, 0] = False
    label = (torch.arange(n) % 2 == 0)[:, None].expand(n, length).clone()
    return sr.Examples(tokens, torch.ones_like(valid), label, valid, torch.arange(n) // 2)


def last_tokens(examples: sr.Examples) -> sr.Examples:
    valid = torch.zeros_like(examples.valid)
    valid[:, -1] = True
    return sr.Examples(examples.tokens, examples.mask, examples.label, valid, examples.group)


def rates(model: Model, saes: Mapping[int, SAE], examples: sr.Examples, rounds: int) -> dict[str, list[float]]:
    """Tokens a second of the bare model and of the two searches."""
    n, last = examples.tokens.numel(), last_tokens(examples)

    @torch.inference_mode()
    def forward() -> int:
        for start in range(0, len(examples.tokens), ROWS_A_PASS):
            tokens = examples.tokens[start : start + ROWS_A_PASS]
            model.hf.base_model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
        return n

    def everywhere() -> int:
        sr.search(model, saes, examples, batch_size=ROWS_A_PASS)
        return n

    def at_the_end() -> int:
        sr.search(model, saes, last, batch_size=ROWS_A_PASS)
        return n

    return interleaved({"forward": forward, "all positions": everywhere, "last tokens": at_the_end}, rounds=rounds)


def peak(arguments: list[str], n_tokens: int, *, block: bool) -> int:
    """Peak resident bytes of a search in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.search", *arguments, "--peak", str(n_tokens)]
    done = subprocess.run([*command, *(["--block"] if block else [])], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--block", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    length, n, rounds, d_sae, k = (32, 64, 3, 96, 8) if asked.quick else (64, 256, 7, 4608, 32)
    model = sr.load_model(asked.model)
    saes = random_saes(model, d_sae, k)
    if asked.peak:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            examples = rows(model, asked.peak // length // 2 * 2, length)
            sr.search(model, saes, examples, block=Path(folder) / "block" if asked.block else None)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    found = rates(model, saes, rows(model, n, length), rounds)
    given = ["--model", asked.model, *(["--quick"] if asked.quick else [])]
    sizes = (1_000, 8_000) if asked.quick else (10_000, 200_000)
    peaks = {block: [peak(given, size, block=block) for size in sizes] for block in (False, True)}
    report(
        found,
        {"over_forward": ("forward", "all positions"), "over_forward_last": ("forward", "last tokens")},
        memory_ratio=round(peaks[False][1] / peaks[False][0], 3),
        memory_ratio_block=round(peaks[True][1] / peaks[True][0], 3),
        peak_gigabytes={str(block): [round(b / 1e9, 2) for b in each] for block, each in peaks.items()},
        spread=float(np.ptp(found["forward"]) / np.median(found["forward"])),
        unit="tokens a second",
        threads=torch.get_num_threads(),
        dtype=str(model.dtype),
    )


if __name__ == "__main__":
    main()
