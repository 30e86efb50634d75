"""What the lab does beside the battery: patching, features, steps, probes, graded answers, thinking fast and slow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from saereason.effects import Trial, answer_log_probs, sweep
from saereason.examples import Examples
from saereason.layers import (
    CANDIDATES,
    MATCHED,
    Curve,
    FastSlow,
    GradedCurve,
    Operator,
    Patching,
    Probed,
    Similarity,
    SkipBlock,
    StepMap,
    UnsuitedError,
    WithFeatures,
    WithoutFeatures,
    answer_place,
    beyond,
    candidate_features,
    contrasts,
    fast_slow,
    graded,
    patching,
    probed,
    similarities,
    step_map,
)
from saereason.layers.fast_slow import PARSED
from saereason.loading import random_copy
from saereason.model import Model
from saereason.progress import Steps
from saereason.runs import Run
from saereason.saes import SAE
from saereason.stats import Estimate, mean_interval
from saereason.steering import Divergence
from saereason.tasks import confirmation_task, discovery_task

from .subjects import (
    GRADED,
    MAPPED,
    PARTNERS,
    PATCHING,
    PROBED,
    PROBES,
    SIMILAR,
    STEPS,
    THOUGHT,
    Sizes,
    Subject,
)

N_FEATURES, SEARCHED, BUDGET_TEXTS = 5, 64, 24
"""Candidate features a layer, problems that they are searched on, and texts that their KL is measured over."""

WORDINGS = {
    "fast": ("Answer with only a number.", "Give just the number, nothing else."),
    "slow": ("Let's think step by step.", "Work it out one step at a time before you answer."),
}

T = TypeVar("T")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Thought:
    """What thinking does to the answers of one domain."""

    whole: FastSlow
    parsed: FastSlow | None
    """Of the items that are parsed in both; None where none is."""

    gain: Estimate
    """Rise of the answer's log-probability per token, of the items that fit, with its interval over them."""


@dataclass(frozen=True, eq=False)
class Parts:
    """What was found beside the battery; empty where it was not asked for."""

    curves: tuple[Curve, ...] = ()
    """Curves that say something of kinds, as those of the battery do."""

    patched: tuple[Patching, ...] = ()
    probed: tuple[Probed, ...] = ()
    steps: tuple[StepMap, ...] = ()
    graded: tuple[GradedCurve, ...] = ()
    thought: tuple["Thought", ...] = ()

    similar: tuple[Similarity, ...] = ()
    left_out: tuple[str, ...] = ()
    """Families that a part could not serve, and why."""


def feature_operators(
    model: Model, saes: Mapping[int, SAE], texts: Sequence[str], bars: Steps, *, n: int = N_FEATURES, seed: int = 0
) -> list[Operator]:
    """The features of each layer that go most with CoT mode, taken out and put in at one KL, and as many that match."""
    if not saes:
        return []
    with bars.step("features that go with CoT mode"):
        problems = discovery_task(None, n=SEARCHED, seed=seed)
        pairs = Examples.pair(model, problems.prompts(model, problems.cot), problems.prompts(model, problems.direct))
        rows = [model.encode(text) for text in texts[:SEARCHED]]
        groups = candidate_features(model, saes, pairs, rows, n, seed=seed)
    budget = Divergence.over(model, texts[-BUDGET_TEXTS:])
    found: list[Operator] = [WithoutFeatures(group, features) for group, features in groups.items()]
    for group, features in groups.items():
        with bars.step(f"sizes of {group}") as show:
            found.append(WithFeatures.of(group, features, saes, budget, progress=show))
    return found


def over_matched(curves: Sequence[Curve]) -> list[Curve]:
    """What candidate features do beyond matched ones, for every family and operator that has both."""
    found = []
    by_name = {(curve.family, curve.operator): curve for curve in curves}
    for (family, operator), curve in by_name.items():
        control = by_name.get((family, operator.replace(CANDIDATES, MATCHED)))
        if CANDIDATES in operator and control is not None:
            found.append(beyond(curve, control))
    return found


def measure_parts(
    model: Model, subjects: Sequence[Subject], parts: Sequence[str], sizes: Sizes, run: Run, bars: Steps
) -> Parts:
    """The parts asked for, for every family that they can serve; what the run holds is not done again."""
    left_out: list[str] = []
    asked = [subject for subject in subjects if subject.task is not None]
    stepwise = [subject for subject in asked if _has_steps(subject)]

    def of(part: str, served: Sequence[Subject], do: Callable[[Subject], T]) -> list[T]:
        if part not in parts:
            return []
        with bars.step(part) as show:
            return _each(served, do, show, left_out)

    patched = of(PATCHING, asked, lambda s: _patched(model, s, sizes.patched, run))
    read = of(PROBES, asked, lambda s: _probed(model, s, run))
    steps = of(
        STEPS, stepwise, lambda s: step_map(model, s.family, n_steps=MAPPED, read_in=s.most(model, PROBED), run=run)
    )
    written = of(GRADED, asked, lambda s: _graded(model, s, sizes, run))
    thought = of(THOUGHT, asked, lambda s: _thought(model, s, sizes, run))
    similar: tuple[Similarity, ...] = ()
    if SIMILAR in parts:
        with bars.step(SIMILAR):
            similar = _similar(model, sizes.compared)
    curves = (*(found.arrival() for found in patched), *(found.curve for found in written))
    return Parts(
        curves, tuple(patched), tuple(read), tuple(steps), tuple(written), tuple(thought), similar, tuple(left_out)
    )


def _each(subjects: Sequence[Subject], do: Callable[[Subject], T], show: Progress, left_out: list[str]) -> list[T]:
    """What is done with each subject; those that it refuses are noted with the reason."""
    found = []
    for n, subject in enumerate(subjects, 1):
        try:
            found.append(do(subject))
        except UnsuitedError as error:
            left_out.append(str(error))
        show(n, len(subjects))
    return found


def _patched(model: Model, subject: Subject, n: int, run: Run) -> Patching:
    pairs = contrasts(subject.family, n, among=subject.most(model, PARTNERS))
    return patching(model, pairs, family=subject.name, kind=subject.family.kind, run=run)


def _probed(model: Model, subject: Subject, run: Run) -> Probed:
    family = subject.most(model, PROBED)
    return probed(model, family, answer_place(family), run=run)


def _graded(model: Model, subject: Subject, sizes: Sizes, run: Run) -> GradedCurve:
    reasons = subject.family.kind == "reasoning"
    assert subject.task is not None
    task = subject.task.take(sizes.graded)
    instruction, tokens = (task.cot, sizes.tokens) if reasons else (task.direct or None, sizes.short)
    trial = Trial.of(model, task, instruction, max_new_tokens=tokens)
    return graded(model, None, trial, SkipBlock(), name=subject.name, kind=subject.family.kind, run=run)


def _thought(model: Model, subject: Subject, sizes: Sizes, run: Run) -> Thought:
    assert subject.task is not None
    task, tables = subject.task.take(sizes.thought), []
    ways = ((task.direct or None, sizes.short), (task.cot, sizes.tokens))
    for instruction, tokens in ways:
        trial = Trial.of(model, task, instruction, max_new_tokens=tokens)
        tables.append(sweep(model, None, trial, [], run=run).of("clean"))
    outcomes = [list(table["outcome"]) for table in tables]
    parsed = any(all(outcome in PARSED for outcome in pair) for pair in zip(*outcomes, strict=True))
    fast = answer_log_probs(model, task, ways[0][0])
    gain = answer_log_probs(model, task, ways[1][0], list(tables[1]["text"])) - fast
    if not np.isfinite(gain).any():
        raise UnsuitedError(f"no item of {subject.name} fits the context together with the model's own thought.")
    return Thought(
        fast_slow(subject.name, *outcomes),
        fast_slow(subject.name, *outcomes, parsed_only=True) if parsed else None,
        mean_interval(gain[np.isfinite(gain)]),
    )


def _similar(model: Model, n: int) -> tuple[Similarity, ...]:
    problems = confirmation_task(n=n)
    fast, slow = (tuple(problems.prompts(model, words) for words in WORDINGS[side]) for side in ("fast", "slow"))
    return tuple(similarities(model, (fast[0], fast[1]), (slow[0], slow[1]), random_model=random_copy(model)))


def _has_steps(subject: Subject) -> bool:
    """True where the items' working has more than one result that is scored."""
    return subject.task is not None and any(len(item.spans) > 1 for item in subject.task.items)
