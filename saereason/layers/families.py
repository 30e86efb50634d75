"""Families of items from tasks and texts: what is asked, and which tokens of the gold text are scored."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saereason.metrics import LogProb, Scored
from saereason.model import Model, Rendered
from saereason.tasks import Item, Task, confirmation_task, country_facts, load_benchmark

from .localise import Family

OPENING, LONGEST = 8, 64
"""Tokens of a plain text that are given, and of all that is read of one."""

FEWEST, SPARE = 2, 64
"""Items of a family, and tokens for what a chat format adds to a question."""

COMPLETE = "Complete the sentence:"
"""What is asked of the beginning of a sentence."""


def family_of(model: Model, task: Task, *, name: str | None = None) -> Family:
    """A task's items under one metric, teacher-forced.

    Where every item has gold working with the places of what is worth scoring: those places, of numbers that were
    reasoned only the tokens with a digit (each computed result right after its equals sign, which nothing has stated
    before), in answer to the CoT prompt; of knowledge in answer to the bare question. Elsewhere the answer, after the
    direct prompt. Raises ValueError for items without either.
    """
    items, reasons = task.items, task.kind == "reasoning"
    if not items:
        raise ValueError(f"{task.name} has no items; give at least one.")
    if all(map(_is_worked, items)):
        metric = LogProb.of(
            model,
            task.prompts(model, task.cot if reasons else None),
            [item.solution for item in items],
            [item.spans for item in items],
            digits_only=reasons and all(re.search(r"\d", item.solution[a:b]) for item in items for a, b in item.spans),
        )
    else:
        bare = next((item.id for item in items if not item.answer), None)
        if bare is not None:
            raise ValueError(f"item {bare} of {task.name} has no answer to score; take another task.")
        prompts = task.prompts(model, task.direct or None)
        metric = LogProb.of(
            model, prompts, [_after(prompt, item.answer) for prompt, item in zip(prompts, items, strict=True)]
        )
    return Family(name or task.name, task.kind, metric, tuple(_is_numeric(model, item) for item in metric.items))


def plain_family(model: Model, texts: Sequence[str], *, name: str = "plain text") -> Family:
    """Plain text after its first tokens; texts that are shorter are left out."""
    rows = [model.tokenizer(text, verbose=False)["input_ids"][:LONGEST] for text in texts]
    rows = [row for row in rows if len(row) > OPENING]
    items = (Scored(tuple(r[:OPENING]), tuple(r[OPENING:]), (True,) * (len(r) - OPENING)) for r in rows)
    return Family(name, "neutral", LogProb(tuple(items)))


@dataclass(frozen=True)
class Source:
    """A benchmark, or a part of it, that is a family."""

    benchmark: str
    part: str | None = None

    @property
    def name(self) -> str:
        return self.benchmark if self.part is None else f"{self.benchmark} {self.part}"


SOURCES = (
    Source("gsm8k"),
    Source("prontoqa"),
    Source("logical_deduction"),
    Source("strategyqa"),
    Source("babi", "15"),
    Source("babi", "7"),
    Source("bbh", "multistep_arithmetic_two"),
    Source("bbh", "boolean_expressions"),
    Source("lre", "country_language"),
    Source("lre", "company_hq"),
    Source("lre", "landmark_in_country"),
    Source("lre", "person_plays_instrument"),
    Source("known_1000"),
    Source("pararel", "P176"),
    Source("mmlu", "high_school_geography"),
)
"""Published families of both kinds."""


def generated_tasks(n: int, *, seed: int = 0) -> list[Task]:
    """Word problems with known intermediate results, and facts about countries; nothing is read from disk."""
    problems = replace(confirmation_task(n=n, seed=seed), name="word problems")
    return [problems, *(_drawn(country_facts(relation), n, seed) for relation in ("capital", "currency"))]


def published_tasks(model: Model, folder: str | Path, n: int, *, seed: int = 0) -> list[Task]:
    """The tasks of `SOURCES` from files in their public formats, anywhere under a folder, zipped or not; `n` items of
    each, in an order drawn by the seed.

    Beginnings of sentences are asked to be completed, so that all families are in one chat format. A task with fewer
    items gives all it has; left out are items without gold working where most have it, those that do not fit the
    model's context, and tasks of which fewer than two do. Raises ValueError where a benchmark is not in the folder.
    """
    found = []
    for source in SOURCES:
        archives = sorted(Path(folder).rglob(f"*{source.benchmark}*.zip"))
        task = load_benchmark(source.benchmark, archives[0] if archives else folder, part=source.part)
        drawn = fitting(model, scored_alike(stated(_drawn(task, n, seed))))
        if len(drawn) >= FEWEST:
            found.append(replace(drawn, name=source.name))
    return found


def fitting(model: Model, task: Task) -> Task:
    """The items whose prompt and gold text fit the context with room to spare."""
    texts = {item.id: (item.question, item.solution or item.answer, task.cot) for item in task.items}
    return replace(task, items=tuple(item for item in task.items if model.fits(*texts[item.id], spare=SPARE)))


def scored_alike(task: Task) -> Task:
    """The items with gold working where most have it; elsewhere all, to be scored by their answers.

    Any of them make a family that is scored as any others are.
    """
    worked = tuple(filter(_is_worked, task.items))
    if 2 * len(worked) >= len(task.items):
        return replace(task, items=worked)
    return replace(task, items=tuple(replace(item, spans=()) for item in task.items))


def _is_worked(item: Item) -> bool:
    """True for gold working with the places of what is worth scoring."""
    return bool(item.solution and item.spans)


def stated(task: Task) -> Task:
    """A task of beginnings of sentences as questions, which the whole sentence answers; the answer is scored within it.

    Other tasks are returned as they are.
    """
    if task.chat is not False:
        return task
    items = []
    for item in task.items:
        opening = f"{item.question.rstrip()} "
        sentence, span = opening + item.answer, (len(opening), len(opening) + len(item.answer))
        items.append(replace(item, question=f"{COMPLETE} {item.question}", solution=sentence, spans=(span,)))
    return replace(task, items=tuple(items), chat=None)


def _drawn(task: Task, n: int, seed: int) -> Task:
    """The first `n` in an order drawn by the seed: fewer are the first of more."""
    order = random.Random(seed).sample(range(len(task.items)), len(task.items))
    return replace(task, items=tuple(task.items[i] for i in order[:n]))


def _is_numeric(model: Model, item: Scored) -> bool:
    """True where most of what is scored are digits."""
    text = model.decode([token for token, scored in zip(item.continuation, item.scored, strict=True) if scored])
    letters = re.findall(r"\w", text)
    return 2 * sum(map(str.isdigit, letters)) > len(letters)


def _after(prompt: Rendered, answer: str) -> str:
    """The answer as it follows the prompt: after a space, unless the prompt ends in one."""
    return answer if prompt.text[-1:].isspace() else f" {answer}"
