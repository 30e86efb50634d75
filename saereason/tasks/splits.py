"""Problems to search on and problems to report on, which share none."""

import hashlib
from dataclasses import replace
from pathlib import Path

from .arithmetic import problems
from .prompts import COT, DIRECT
from .task import Task, load_task, word_problems
from .templates import HELD_OUT, TAUGHT

FEWEST_ITEMS = 20


def split_task(task: Task, n_discovery: int) -> tuple[Task, Task]:
    """A task of one's own in two by the hash of each question: at most half to search on, the rest to report on.

    Raises ValueError for a task of fewer than twenty items.
    """
    if len(task) < FEWEST_ITEMS:
        raise ValueError(f"{task.name} has {len(task)} items; give at least {FEWEST_ITEMS}, half to search on.")
    shuffled = replace(task, items=tuple(sorted(task.items, key=lambda item: _digest(item.question))))
    n = min(n_discovery, len(task) // 2)
    return shuffled.take(n), shuffled.drop(n)


def discovery_task(
    path: Path | None, *, n: int, direct: str | None = None, cot: str | None = None, seed: int = 0
) -> Task:
    """Problems to search on: of a file's, or generated from taught templates."""
    if n < 2:
        raise ValueError(f"{n} problems to search on were asked for; give at least 2.")
    ways = {"direct": DIRECT if direct is None else direct, "cot": COT if cot is None else cot}
    if path is not None:
        return split_task(load_task(path, **ways), n)[0]
    return replace(word_problems(problems(n, seed=seed, split="discovery", templates=TAUGHT)), **ways)


def confirmation_task(*, n: int, direct: str = DIRECT, cot: str = COT, seed: int = 0) -> Task:
    """Generated problems to report on: new numbers for taught templates, and templates that no training saw."""
    drawn = problems(n, seed=seed, split="confirmation", templates=(*TAUGHT, *HELD_OUT))
    return replace(word_problems(drawn), direct=direct, cot=cot)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
