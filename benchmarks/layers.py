"""The skip battery over all layers, against the loop of full forward passes.

    python -m benchmarks.layers [--quick] [--model folder]

SmolLM2-135M-Instruct in its fast precision, word problems with gold working, the log-probability of the computed
results. `over_naive` (goal 1.8): `localise` over the loop that hooks each block in turn, runs the whole model and reads
the same log-probabilities from all logits; `over_lean` over the same loop with logits of the continuation only. Both
sides give the same figures, or it stops. The floor is what the arithmetic of the passes allows.
"""

import argparse
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

import saereason as sr
from saereason.layers import family_of
from saereason.metrics import LogProb, Scored
from saereason.model import Model, pad
from saereason.tasks import confirmation_task

from . import interleaved, report


def naive(model: Model, metric: LogProb, *, lean: bool) -> np.ndarray:
    """Clean, and with each block skipped by a hook: `[item, 1 + layer]`."""

    def skip(module: Any, args: Any, output: Any) -> Any:  # noqa: ARG001
        return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]

    found = np.zeros((len(metric), 1 + model.n_layers))
    for rows in metric.batches():
        items = [metric.items[n] for n in rows]
        found[rows, 0] = scores(model, items, lean=lean)
        for layer in range(model.n_layers):
            handle = model.blocks[layer].register_forward_hook(skip)
            found[rows, 1 + layer] = scores(model, items, lean=lean)
            handle.remove()
    return found


@torch.inference_mode()
def scores(model: Model, items: Sequence[Scored], *, lean: bool) -> list[float]:
    """Mean log-probability of each item's scored tokens, as one would write it."""
    rows = [item.prompt + item.continuation for item in items]
    batch = pad(rows, pad_token=model.pad_token, device=model.device)
    keep = 1 + max(len(item.continuation) for item in items) if lean else 0
    position = (batch.mask.long().cumsum(-1) - 1).clamp(min=0)
    settings = {"attention_mask": batch.mask.long(), "position_ids": position, "use_cache": False}
    logits = model.hf(input_ids=batch.tokens, logits_to_keep=keep, **settings).logits[:, :-1].float()
    log_probs = logits.log_softmax(-1).gather(-1, batch.tokens[:, -logits.shape[1] :, None])[..., 0]
    found = []
    for row, item in zip(log_probs, items, strict=True):
        found.append(float(row[-len(item.scored) :][torch.tensor(item.scored)].mean()))
    return found


def floor(model: Model, metric: LogProb) -> float:
    """How many times as much arithmetic the loop of full passes takes as is needed: the blocks above a skipped one, and
    the LM head where the metric reads; no attention scores.
    """
    block = sum(p.numel() for p in model.blocks[0].parameters())
    head = model.d_vocab * model.d_model
    tokens = sum(len(item.prompt) + len(item.continuation) for item in metric.items)
    scored = sum(sum(item.scored) for item in metric.items)
    n = model.n_layers
    full = (n + 1) * (n * block + head) * tokens
    ours = (n + n * (n - 1) / 2) * block * (tokens - len(metric)) + (n + 1) * head * scored
    return full / ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--model", default="smollm2-135m")
    asked = parser.parse_args()
    model = sr.load_model(asked.model)
    n, rounds = (8, 2) if asked.quick else (24, 2)
    metric = family_of(model, confirmation_task(n=n)).metric
    family, numbers, found = sr.Family("sums", "reasoning", metric), count(), {}
    with tempfile.TemporaryDirectory() as folder:

        def battery() -> int:
            run = sr.Run.open(Path(folder) / str(next(numbers)))
            [curve] = sr.localise(model, None, [family], run=run)
            found["ours"] = curve.drop
            return n * model.n_layers

        def loop(lean: bool) -> int:
            values = naive(model, metric, lean=lean)
            found["naive"] = values[:, :1] - values[:, 1:]
            return n * model.n_layers

        sides = {"ours": battery, "naive": lambda: loop(False), "lean": lambda: loop(True)}
        rates = interleaved(sides, rounds=rounds, warm=False)
    apart = float(np.abs(found["ours"].mean(0) - found["naive"].mean(0)).max())
    likeness = float(np.corrcoef(found["ours"].ravel(), found["naive"].ravel())[0, 1])
    if apart > 0.05 or likeness < 0.99:
        raise SystemExit(
            f"the two sides' curves are {apart:.3f} nats apart, and their items go together {likeness:.3f}."
        )
    report(
        rates,
        {"over_naive": ("ours", "naive"), "over_lean": ("ours", "lean")},
        floor=round(floor(model, metric), 2),
        apart=round(apart, 5),
        likeness=round(likeness, 5),
        unit="items x layers a second",
        dtype=str(model.dtype),
    )


if __name__ == "__main__":
    main()
