"""The demo's problems, texts and families, for the taught model or for a task of the user's own."""

import hashlib
from dataclasses import dataclass

from saereason.layers import Family
from saereason.metrics import LogProb, Scored
from saereason.model import Model
from saereason.tasks import Task, confirmation_task, country_facts, discovery_task, load_task, split_task
from saereason.tasks.task import Kind
from saereason.training import Framing, default_rows, mixed, plain_rows, plain_texts, problem_rows, split_rows

from .settings import Settings

OPENING = 8
"""Tokens of a plain text that are given before the rest is scored."""


@dataclass(frozen=True)
class Splits:
    """Problems to search on and problems to report on; they share none."""

    discovery: Task
    confirmation: Task


def splits(settings: Settings) -> Splits:
    """Discovery and confirmation problems. A task of the user's own is split by the hash of each question.

    Raises ValueError for a task of fewer than twenty items.
    """
    sizes = settings.sizes
    if settings.task is None:
        return Splits(
            discovery_task(None, n=sizes.n_discovery, direct=settings.direct, cot=settings.cot, seed=settings.seed),
            confirmation_task(n=sizes.n_confirmation, direct=settings.direct, cot=settings.cot, seed=settings.seed),
        )
    discovery, rest = split_task(load_task(settings.task, direct=settings.direct, cot=settings.cot), sizes.n_discovery)
    return Splits(discovery, rest.take(sizes.n_confirmation))


def training_rows(model: Model, settings: Settings, discovery: Task) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids to train SAEs on, and others to evaluate them on: problem texts of both kinds, plain English, and the
    user's own discovery prompts.
    """
    sizes = settings.sizes
    rows = default_rows(
        model,
        n_problems=sizes.n_problem_texts,
        seed=settings.seed,
        direct=settings.direct,
        cot=settings.cot,
        skip=sizes.n_neutral,
    )
    if settings.task is not None:
        rows = mixed([rows, problem_rows(model, discovery)], seed=settings.seed)
    return split_rows(rows, sizes.n_evaluation_rows)


def families(model: Model, settings: Settings, confirmation: Task) -> list[Family]:
    """Reasoning, knowledge and plain text, each with the log-probability that stands for it."""
    sizes = settings.sizes
    facts = _facts(sizes.n_knowledge)
    plain = plain_texts()[: sizes.n_neutral]
    knowledge = LogProb.of(
        model, facts.prompts(model), [i.solution for i in facts.items], [i.spans for i in facts.items]
    )
    reasoning, name = _reasoning(model, confirmation.take(sizes.n_reasoning))
    return [
        _family(name, "reasoning", reasoning),
        _family("country facts", "knowledge", knowledge),
        _family("plain text", "neutral", _continued(model, plain)),
    ]


def _reasoning(model: Model, task: Task) -> tuple[LogProb, str]:
    """Digits of every computed result in the gold working; where there is none, the answer after the direct prompt."""
    if all(item.solution for item in task.items):
        metric = LogProb.of(
            model,
            task.prompts(model, task.cot),
            [item.solution for item in task.items],
            [item.spans for item in task.items],
            digits_only=True,
        )
        return metric, "computed results"
    return LogProb.of(model, task.prompts(model, task.direct), [i.answer for i in task.items]), "direct answers"


def _facts(n: int) -> Task:
    """Capitals and, for every third item, currencies, spread over the alphabet."""
    items = []
    for relation, share in (("capital", 2), ("currency", 1)):
        task, wanted = country_facts(relation), n * share // 3
        items += [task.items[k * len(task) // wanted] for k in range(wanted)]
    return Task("country facts", "knowledge", tuple(items))


def _continued(model: Model, texts: list[str]) -> LogProb:
    """Plain text after its first tokens, up to 64 tokens a text."""
    rows = [row[:64] for row in plain_rows(model, texts, Framing(length=64))]
    return LogProb(tuple(Scored(tuple(r[:OPENING]), tuple(r[OPENING:]), (True,) * (len(r) - OPENING)) for r in rows))


def _family(name: str, kind: Kind, metric: LogProb) -> Family:
    tokens = [(item.prompt, item.continuation, item.scored) for item in metric.items]
    return Family(name, kind, metric, _digest(repr(tokens)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
