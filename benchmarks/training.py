"""Training six SAEs at once: saereason against SAELens's `MultiSAETrainingRunner`, with its defaults and at its best.

    python -m benchmarks.training --out runs/bench/training.html

SmolLM2-135M-Instruct; Top-K SAEs of 4,608 features, k 32, at layers 4, 8, 12, 16, 20 and 24; 106,496 tokens on each
side, in batches of 4,096 (SAELens's default). Alike on all sides: the rows of 128 token ids and their order, the
initial weights (SAELens's), the learning rate with SAELens's schedule, gradients clipped to norm 1, inputs scaled to a
mean norm of √d_model, features that count as dead after 1,000 steps, and a buffer of two batches. The decoder's bias
starts at the mean activation on all sides: SAELens has no setting for that and would start at 0, from where 26 steps
are too few to find the mean (explained variance then stays below 0), so it is set for it by hand.

SAELens runs the plain Hugging Face model (`AutoModelForCausalLM`), hooks just the six blocks and stops after the last:
its fastest way. "Defaults" is float32; "best flags" adds `autocast` and `autocast_lm`.

The first token of a row has an enormous residual norm. saereason leaves it out; in SAELens it would set the scale and
dominate the loss, to its disadvantage. So SAELens leaves it out too, with its own setting `seqpos_slice=(1, None)`, and
both sides are measured without it, on one set of held-out residuals that neither was trained on.

Buffers are filled and scales taken before the clock starts. Each round then trains every side on two batches, in turn,
and has one refill of saereason's buffer and two of SAELens's: it keeps half of its buffer for mixing and refills when
the other half is served, so that either puts 64 rows through the model in a round. When it ends SAELens has read almost
two batches ahead, so it trains on a random choice of slightly more rows. Its progress bar, checkpoints and evaluations
are left out.

`over_default`, `over_best`: tokens a second over SAELens's, the median of the rounds' ratios. `ev_gap`: explained
variance, ours less theirs (best flags), at the worst layer. `dead_gap`: the largest difference in the share of features
that never fired on the held-out rows. `memory_ratio`: peak memory, each side being a process of its own. Then, for
saereason alone, what training costs by size, and where the time goes in the setting above.
"""

import argparse
import contextlib
import json
import logging
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import saereason as sr
from saereason.hooks import read
from saereason.model import pad
from saereason.runs import write_text

from . import interleaved, report
from ._costs import Cost, Forward, costs_by_size, costs_of, plot_costs, table
from ._sides import Side, Work, load_as_saelens, ours, theirs

OURS, DEFAULTS, BEST = "saereason", "SAELens, defaults", "SAELens, best flags"
QUICK = {"layers": (1, 3), "d_sae": 96, "k": 8, "length": 32, "batch_size": 256, "lr": 1e-2, "rounds": 6}
QUICK |= {"n_problems": 20, "n_held_out": 16, "counts": (1, 4), "widths": (64, 128)}


@dataclass(frozen=True)
class Outcome:
    """What came of one side: by layer, and what it told of its loss."""

    explained_variance: list[float]
    dead: list[float]
    losses: list[float]
    peak: int
    """Most memory that its process has held while training, bytes."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description="saereason against SAELens")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/training.html"), help="file for the figure")
    parser.add_argument("--model", default="smollm2-135m", help="what load_model takes")
    parser.add_argument("--quick", action="store_true", help="a small piece of work, to see that everything runs")
    parser.add_argument("--side", choices=(OURS, DEFAULTS, BEST), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    work = replace(Work(), **QUICK) if asked.quick else Work()
    if asked.side:
        return serve(asked.model, work, asked.side)
    rates, outcomes = compare(asked.model, work, quick=asked.quick)
    costs, own, forward = size_up(asked.model, work)
    where = (
        f"{sum(rates[OURS]) / len(rates[OURS]):,.0f} tokens a second with {len(work.layers)} layers of {work.d_sae:,}."
    )
    write_text(asked.out, plot_costs(costs, where).to_html(include_plotlyjs=True))
    tell(outcomes, costs, own, forward, asked.out)
    mine, best = outcomes[OURS], outcomes[BEST]
    report(
        rates,
        {"over_default": (OURS, DEFAULTS), "over_best": (OURS, BEST)},
        ev_gap=round(min(_differences(mine.explained_variance, best.explained_variance)), 4),
        dead_gap=round(max(map(abs, _differences(mine.dead, best.dead))), 4),
        memory_ratio=round(mine.peak / best.peak, 3),
        peak_gigabytes={name: round(outcome.peak / 1e9, 2) for name, outcome in outcomes.items()},
        milliseconds_per_1000_tokens={part: round(getattr(own, part), 1) for part in ("forward", "buffer", "step")},
        forward_gflops=round(forward.matrices, 1),
        gemm_gflops=round(forward.gemm, 1),
        forward_of_gemm=round(forward.matrices / forward.gemm, 3),
        outcomes={name: asdict(outcome) for name, outcome in outcomes.items()},
        tokens=work.n_steps * work.batch_size,
        work=asdict(work),
        unit="tokens a second",
        threads=torch.get_num_threads(),
    )
    return None


def compare(model: str, work: Work, *, quick: bool) -> tuple[dict[str, list[float]], dict[str, Outcome]]:
    """Speed by side, tokens a second of each round, and what came of the same training."""
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(Process.started(model, name, quick=quick)) for name in (OURS, DEFAULTS, BEST)
        }
        rates = interleaved({name: side.train for name, side in sides.items()}, rounds=work.rounds)
        return rates, {name: Outcome(**side.ask("end")) for name, side in sides.items()}


@dataclass(frozen=True, eq=False)
class Process:
    """A side in a process of its own, which waits until it is asked: how memory is kept there is its own affair."""

    program: subprocess.Popen[str]

    @classmethod
    @contextlib.contextmanager
    def started(cls, model: str, side: str, *, quick: bool) -> Iterator["Process"]:
        command = [sys.executable, "-m", "benchmarks.training", "--model", model, "--side", side]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([*command, *(["--quick"] if quick else [])], **pipes) as program:
            process = cls(program)
            process.ask("start")
            yield process
            program.stdin.close()

    def ask(self, what: str) -> Any:
        print(what, file=self.program.stdin, flush=True)
        return json.loads(self.program.stdout.readline())

    def train(self) -> int:
        return self.ask("train")


def serve(name: str, work: Work, side: str) -> None:
    """Train one side round by round, as asked on standard input, and say at the end what came of it."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    model = sr.load_model(name) if side == OURS else load_as_saelens(name)
    rows, held_out = work.rows(model)
    trained = ours(model, rows, work) if side == OURS else theirs(model, rows, work, best=side == BEST)
    for line in sys.stdin:
        asked = line.strip()
        answer = {
            "start": lambda: True,
            "train": trained.train,
            "end": lambda: asdict(judge(name, trained, held_out, work)),
        }
        print(json.dumps(answer[asked]()), file=answers, flush=True)


def residuals(model: sr.Model, rows: Sequence[Sequence[int]], layers: Sequence[int]) -> dict[int, Tensor]:
    """Held-out residuals, `[token, d_model]` by layer, without the first token of each row."""
    parts = [
        read(model, pad(rows[n : n + 16], pad_token=0, side="right", device=model.device), layers)
        for n in range(0, len(rows), 16)
    ]
    return {layer: torch.cat([part[layer][:, 1:].flatten(0, 1) for part in parts]) for layer in layers}


@torch.no_grad()
def judge(name: str, side: Side, rows: Sequence[Sequence[int]], work: Work) -> Outcome:
    """Explained variance, 1 − Σ|x − x̂|² / Σ|x − mean x|², and the share of features that never fired."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    resid = residuals(sr.load_model(name), rows, work.layers)
    explained, dead = [], []
    for layer, sae in sorted(side.finish().items()):
        x = resid[layer]
        acts = sae.encode(x)
        error, spread = x - sae.decode(acts), x - x.mean(0)
        explained.append(round(1 - (error.double().square().sum() / spread.double().square().sum()).item(), 4))
        dead.append(round((acts > 0).any(0).logical_not().double().mean().item(), 4))
    return Outcome(explained, dead, [round(loss, 2) for loss in side.losses], most)


def size_up(name: str, work: Work) -> tuple[list[Cost], Cost, Forward]:
    """Costs by number of layers and width; those of the benchmark's own setting, and its forward pass."""
    model = sr.load_model(name)
    rows, _ = work.rows(model)
    (own,), forward = costs_of(model, rows, work.layers, (work.d_sae,), work)
    return list(costs_by_size(model, rows, work)), own, forward


def tell(outcomes: Mapping[str, Outcome], costs: Sequence[Cost], own: Cost, forward: Forward, out: Path) -> None:
    for name, outcome in outcomes.items():
        print(f"{name}: explained variance {outcome.explained_variance}, dead {outcome.dead}")
    print(f"\nwhat saereason's training costs, ms for 1,000 tokens\n{table(costs)}\n(figure: {out})")
    print(f"\nin the setting above\n{table([own])}")
    share = forward.matrices / forward.gemm
    print(f"the forward pass multiplies block matrices at {forward.matrices:.0f} GFLOP/s, {share:.0%} of one large")
    print(f"product's {forward.gemm:.0f}\n")


def _differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


if __name__ == "__main__":
    main()
