"""Families of both kinds, the operators of the battery, how much of each part, and how long that takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np

from saereason.generate import generate
from saereason.layers import (
    Family,
    MeanOfBlock,
    Operator,
    SkipBlock,
    SkipByGradient,
    SkipPart,
    SpliceSAE,
    family_of,
    generated_tasks,
    plain_family,
    published_tasks,
)
from saereason.layers.contrasts import POSITIONS
from saereason.layers.families import fitting
from saereason.layers.probes import folds, predicted
from saereason.layers.steps import results_of
from saereason.metrics import log_probs
from saereason.model import Model
from saereason.saes import SAE
from saereason.tasks import Task

DEFAULT, ALL = "default", "all"
"""What may stand for names of families or operators."""

MEAN_TEXTS = 32
"""Plain texts that the mean contribution of a block is of."""

GRADIENT_PASSES = 4.0
"""Forward passes that a pass forward and back takes, about."""

MAPPED = 3
"""Results of an item that are mapped."""

LABELS = 8
"""Of a probe, about."""

WRITTEN = (2, 8)
"""Tokens of an answer, of the two whose times are told apart."""

FEATURE_OPERATORS = 4
"""Candidate and matched features, without and with."""

FEATURES, PATCHING, PROBES, STEPS = "features", "patching", "probes", "steps"
GRADED, THOUGHT, SIMILAR = "graded answers", "fast and slow", "similar states"
PARTS = (FEATURES, PATCHING, PROBES, STEPS, GRADED, THOUGHT, SIMILAR)
"""What there is beside the operators, and can be asked for as they can."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A family, and the task that it was made of; plain text has none."""

    family: Family
    task: Task | None

    @property
    def name(self) -> str:
        return self.family.name


@dataclass(frozen=True)
class Sizes:
    """How much of each part."""

    patched: int = 60
    """Pairs of texts a family."""

    graded: int = 40
    """Items a family whose answers are written with each block skipped."""

    thought: int = 60
    """Items a family that are answered at once and after thinking."""

    compared: int = 60
    """Items whose states under fast and slow prompts are compared."""

    tokens: int = 96
    """Longest answer after thinking."""

    short: int = 12
    """Longest answer at once."""


N = TypeVar("N", Subject, Operator)


def named(names: str, there: Sequence[N], what: str, *, others: Sequence[str] = ()) -> list[N]:
    """Those that are asked for by name, with commas between; names of others may be among them.

    Raises ValueError for a name that none has.
    """
    asked, known = [name.strip() for name in names.split(",")], (*(each.name for each in there), *others)
    if unknown := [name for name in asked if name not in known]:
        raise ValueError(
            f"{what} are {names!r}; {unknown[0]!r} is none of {', '.join(known)}. "
            "Give `default`, `all`, or some of these with commas between."
        )
    return [each for each in there if each.name in asked]


def parts_of(which: str) -> tuple[str, ...]:
    """Of the parts, those among names of operators and parts with commas between; for `all` all, for `default` none."""
    asked = PARTS if which == ALL else [name.strip() for name in which.split(",")]
    return tuple(name for name in PARTS if name in asked)


def battery(model: Model, saes: Mapping[int, SAE], texts: Sequence[str], which: str = DEFAULT) -> list[Operator]:
    """Skipping each block, and its gradient; or `all` operators, one with means over some of the texts; or some of all.

    Names of parts may stand among theirs. Raises ValueError as `named` does.
    """
    found: list[Operator] = [SkipBlock(), SkipByGradient()]
    if which == DEFAULT:
        return found
    mean = MeanOfBlock.of(model, texts[-MEAN_TEXTS:])
    found += [SkipBlock(0.5), SkipBlock(1.5), mean, SkipPart("attention"), SkipPart("MLP")]
    found += [SpliceSAE()] if saes else []
    return found if which == ALL else named(which, found, "operators", others=PARTS)


def subjects_of(
    model: Model,
    texts: Sequence[str],
    n: int,
    which: str = DEFAULT,
    *,
    task: Task | None = None,
    data: Path | None = None,
    seed: int = 0,
) -> list[Subject]:
    """Word problems (or a task of one's own) and capitals; or `all`, those in a folder of data too; or some of all.

    `n` items of each, and after them plain text, a quarter as many. Raises ValueError as `named` does.
    """
    problems, *facts = generated_tasks(n, seed=seed)
    first = problems if task is None else fitting(model, task).take(n)
    tasks = [first, *facts[:1]]
    if which != DEFAULT:
        tasks = [first, *facts, *(published_tasks(model, data, n, seed=seed) if data is not None else [])]
    asked = [Subject(family_of(model, each), each) for each in tasks]
    if which not in (DEFAULT, ALL):
        asked = named(which, asked, "families" if data is not None else "families without --data, a folder of others,")
    return [*asked, Subject(plain_family(model, texts[: max(2, n // 4)]), None)]


def seconds_a_token(model: Model, family: Family) -> float:
    """Of a clean pass over one batch of the family."""
    metric = family.metric
    items = [metric.items[n] for n in metric.batches()[0]]
    log_probs(model, items[:1])
    start = perf_counter()
    log_probs(model, items)
    return (perf_counter() - start) / sum(len(item.prompt) + len(item.continuation) for item in items)


def passes_of(model: Model, saes: Mapping[int, SAE], operators: Sequence[Operator]) -> float:
    """Forward passes that the operators come to, and the logit lens."""
    passes = 1.0
    for operator in operators:
        resumed = sum(1 - layer / model.n_layers for layer in operator.layers(model, saes))
        passes += GRADIENT_PASSES if isinstance(operator, SkipByGradient) else 1 + resumed
    return passes


def feature_passes(model: Model, saes: Mapping[int, SAE]) -> float:
    """Forward passes that the operators on features come to, before there are any."""
    return FEATURE_OPERATORS * sum((2 - layer / model.n_layers for layer in saes), 0.0)


def n_tokens(family: Family) -> int:
    return sum(len(item.prompt) + len(item.continuation) for item in family.metric.items)


def seconds_a_word(model: Model, family: Family) -> float:
    """Of one more token written, many answers at a time; the time for reading the prompts is not in it."""
    texts = [model.decode(list(item.prompt)) for item in family.metric.items[:32]]
    spent, words = [], []
    for most in WRITTEN:
        start = perf_counter()
        written = generate(model, texts, max_new_tokens=most, batch_size=32)
        spent.append(perf_counter() - start)
        words.append(sum(map(len, written.tokens)))
    return max(0.0, spent[1] - spent[0]) / max(1, words[1] - words[0])


def seconds_a_probe(model: Model, n: int) -> float:
    """Of probing every layer for labels of `n` items, and for shuffled ones, by one layer of noise."""
    values = np.random.default_rng(0).standard_normal((n, model.d_model)).astype(np.float32)
    labels = np.arange(n) % LABELS
    start = perf_counter()
    predicted(values, labels, folds(labels, 0))
    return 2 * model.n_layers * (perf_counter() - start)


@dataclass(frozen=True)
class Pace:
    """Seconds of a token that is read and of one that is written, of an item's probes, and passes of an operator."""

    read: float
    written: float
    probe: float
    layers: int

    @classmethod
    def of(cls, model: Model, subjects: Sequence[Subject], per_token: float) -> "Pace":
        n_items = max(len(subject.family.metric) for subject in subjects)
        probe = seconds_a_probe(model, n_items) / n_items
        return cls(per_token, seconds_a_word(model, subjects[0].family), probe, model.n_layers)


def seconds_of(subjects: Sequence[Subject], parts: Sequence[str], sizes: Sizes, pace: Pace) -> float:
    """About how long the parts take."""
    asked = [subject for subject in subjects if subject.task is not None]
    return sum(_seconds(subject, sizes, pace).get(part, 0.0) for subject in asked for part in parts)


def _seconds(subject: Subject, sizes: Sizes, pace: Pace) -> dict[str, float]:
    """Of each part, for one family."""
    n, half = len(subject.family.metric), (pace.layers + 1) / 2
    reasons = subject.family.kind == "reasoning"
    read = pace.read * n_tokens(subject.family) / n
    steps = min(MAPPED, max(len(results_of(item)) for item in subject.family.metric.items))
    longest = sizes.tokens if reasons else sizes.short
    written = pace.written * (sizes.tokens + sizes.short)
    return {
        PATCHING: read * min(n, sizes.patched) * (2 + 2 * len(POSITIONS) * half / 2),
        PROBES: pace.probe * n,
        STEPS: steps * n * (read * (1 + half) + (steps + 1) * pace.probe) if steps > 1 else 0.0,
        GRADED: (pace.layers + 1) * min(n, sizes.graded) * (read + pace.written * longest),
        THOUGHT: min(n, sizes.thought) * (2 * read + written) if reasons else 0.0,
    }
