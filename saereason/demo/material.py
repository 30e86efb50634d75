"""The demo's problems, texts and families, for the taught model or for a task of the user's own."""

from dataclasses import dataclass

from saereason.layers import Family, family_of, plain_family
from saereason.model import Model
from saereason.tasks import Task, confirmation_task, country_facts, discovery_task, load_task, split_task
from saereason.training import default_rows, mixed, plain_texts, problem_rows, split_rows

from .settings import Settings


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
    task = confirmation.take(sizes.n_reasoning)
    worked = all(item.solution for item in task.items)
    return [
        family_of(model, task, name="computed results" if worked else "direct answers"),
        family_of(model, _facts(sizes.n_knowledge)),
        plain_family(model, plain_texts()[: sizes.n_neutral]),
    ]


def _facts(n: int) -> Task:
    """Capitals and, for every third item, currencies, spread over the alphabet."""
    items = []
    for relation, share in (("capital", 2), ("currency", 1)):
        task, wanted = country_facts(relation), n * share // 3
        items += [task.items[k * len(task) // wanted] for k in range(wanted)]
    return Task("country facts", "knowledge", tuple(items))
