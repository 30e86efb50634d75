"""How long the lab takes, about, from what little of everything takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from saereason.generate import generate
from saereason.layers import Family, Operator, SkipByGradient
from saereason.layers.contrasts import POSITIONS
from saereason.layers.probes import folds, predicted
from saereason.layers.steps import results_of
from saereason.metrics import log_probs
from saereason.model import Model
from saereason.saes import SAE

from .subjects import FEATURES, GRADED, MAPPED, PATCHING, PROBED, PROBES, SIMILAR, SIZES, STEPS, THOUGHT, Sizes, Subject

GRADIENT_PASSES = 4.0
"""Forward passes that a pass forward and back takes, about."""

LABELS = 8
"""Of a probe, about."""

WRITTEN = (2, 8)
"""Tokens of an answer, of the two whose times are told apart."""

PROMPT_TOKENS, TIMES_READ = 75, 6
"""Tokens of a problem, and how often each is read to compare states: in four wordings, and in two by random weights."""

FEATURE_OPERATORS = 4
"""Candidate and matched features, without and with."""


def estimate(
    model: Model,
    saes: Mapping[int, SAE],
    subjects: Sequence[Subject],
    operators: Sequence[Operator],
    parts: Sequence[str] = (),
    sizes: Sizes = SIZES,
) -> float:
    """About how many seconds the lab takes, by a clean pass over a batch and a short answer where any are written.

    Operators on features, a part, need not be there yet.
    """
    families = [subject.family for subject in subjects]
    a_token = seconds_a_token(model, families[0])
    passes = passes_of(model, saes, operators) + (feature_passes(model, saes) if FEATURES in parts else 0)
    found = a_token * sum(map(n_tokens, families)) * passes
    return found + (seconds_of(subjects, parts, sizes, Pace.of(model, subjects, a_token)) if parts else 0)


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


def n_probed(subject: Subject) -> int:
    """Items that its probes are of."""
    more = 0 if subject.whole is None else len(subject.whole)
    return max(len(subject.family.metric), min(PROBED, more))


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
    predicted(values[: 2 * LABELS], labels[: 2 * LABELS], folds(labels[: 2 * LABELS], 0))  # what is loaded once is
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
        n_items = max(map(n_probed, subjects))
        probe = seconds_a_probe(model, n_items) / n_items
        return cls(per_token, seconds_a_word(model, subjects[0].family), probe, model.n_layers)


def seconds_of(subjects: Sequence[Subject], parts: Sequence[str], sizes: Sizes, pace: Pace) -> float:
    """About how long the parts take."""
    asked = [subject for subject in subjects if subject.task is not None]
    similar = pace.read * sizes.compared * PROMPT_TOKENS * TIMES_READ if SIMILAR in parts else 0.0
    return similar + sum(_seconds(subject, sizes, pace).get(part, 0.0) for subject in asked for part in parts)


def _seconds(subject: Subject, sizes: Sizes, pace: Pace) -> dict[str, float]:
    """Of each part, for one family."""
    n, half = len(subject.family.metric), (pace.layers + 1) / 2
    probed = n_probed(subject)
    reasons = subject.family.kind == "reasoning"
    read = pace.read * n_tokens(subject.family) / n
    steps = min(MAPPED, max(len(results_of(item)) for item in subject.family.metric.items))
    longest = sizes.tokens if reasons else sizes.short
    written = pace.written * (sizes.tokens + sizes.short)
    return {
        PATCHING: read * min(n, sizes.patched) * (2 + 2 * len(POSITIONS) * half / 2),
        PROBES: probed * (read + pace.probe),
        STEPS: steps * (n * read * (1 + half) + (steps + 1) * probed * (read + pace.probe)) if steps > 1 else 0.0,
        GRADED: (pace.layers + 1) * min(n, sizes.graded) * (read + pace.written * longest),
        THOUGHT: min(n, sizes.thought) * (2 * read + written),
    }
