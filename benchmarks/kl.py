"""How far sizes in nats land from the KL that was asked for, on prompts that they were not measured on.

    python -m benchmarks.kl [--quick] [--model folder]

SmolLM2-135M-Instruct in float32, a feature and a random direction at each layer, added at the last token of word
problems: sizes are found on 24 prompts and judged on 24 others. Figures are KL over target; "worst" is the factor of
the farthest one, above or below.

- `fisher_worst` (goal 1.5): the Fisher start value alone, on held-out prompts.
- `secant_worst` (goal 1.1): after secant steps, on the prompts that they look at; `secant_held_out` on the others.
- `asc_median`: the bound of ASC (arXiv 2507.04742), on held-out prompts.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

import torch

import saereason as sr
from saereason.features import Feature
from saereason.saes import SAE
from saereason.steering import Intervention, asc_size, at_kl, fisher_size
from saereason.tasks import discovery_task

from ._saes import random_sae

TARGETS = (1e-3, 1e-2)


@dataclass(frozen=True)
class Landed:
    """KL over target of each way to a size."""

    edit: str
    layer: int
    target: float
    fisher: float
    secant: float
    secant_held_out: float
    asc: float


def landed(saes: Mapping[int, SAE], seen: sr.Divergence, others: sr.Divergence, edit: Intervention) -> Iterator[Landed]:
    """An additive edit of size 1 at each target."""

    def over(divergence: sr.Divergence, size: float, target: float) -> float:
        return float(divergence(saes, edit.sized(size)).mean()) / target

    for target in TARGETS:
        fisher = fisher_size(seen, saes, edit, target)
        found, kl = at_kl(seen, saes, edit.sized, target, start=fisher)
        asc = asc_size(seen, saes, edit, target)
        yield Landed(
            type(edit).__name__,
            edit.layer,
            target,
            over(others, fisher, target),
            kl / target,
            over(others, found.size, target),
            over(others, asc, target),
        )


def factor(ratio: float) -> float:
    return max(ratio, 1 / ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--model", default="smollm2-135m")
    asked = parser.parse_args()
    model = sr.load_model(asked.model, dtype=torch.float32)
    n, layers = (4, [1]) if asked.quick else (24, [4, 14, 24])
    own = asked.model == "smollm2-135m"
    saes = sr.load_saes(asked.model) if own else {layer: random_sae(model, layer, "topk", 96, 8) for layer in layers}
    task = discovery_task(None, n=2 * n)
    prompts = task.prompts(model, task.direct)
    seen, others = (sr.Divergence.over(model, part) for part in (prompts[:n], prompts[n:]))
    vector = torch.nn.functional.normalize(
        torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)), dim=0
    )
    once, rows = sr.LastPromptToken(), []
    for layer in layers:
        for edit in (sr.Add(Feature(layer, 3), 1.0, once), sr.AddVector(layer, vector, 1.0, once)):
            for row in landed(saes, seen, others, edit):
                rows.append(row)
                print(
                    f"{row.edit} at layer {row.layer}, {row.target:g} nats: Fisher {row.fisher:.2f}, secant "
                    f"{row.secant:.2f} (held out {row.secant_held_out:.2f}), ASC {row.asc:.3g}"
                )
    found = {
        "fisher_worst": max(factor(row.fisher) for row in rows),
        "secant_worst": max(factor(row.secant) for row in rows),
        "secant_held_out": max(factor(row.secant_held_out) for row in rows),
        "asc_median": median(row.asc for row in rows),
    }
    print(json.dumps({name: float(f"{value:.4g}") for name, value in found.items()} | {"states": [n, n]}))


if __name__ == "__main__":
    main()
