"""Form or inference: demonstrations that only look right, and a chain with one of its results changed."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from saereason.generate import generate
from saereason.model import Model
from saereason.tasks import Problem, Step, Task
from saereason.tasks.arithmetic import LARGEST_RESULT, OPERATIONS, working
from saereason.tasks.grading import answer_span, value

from .mechanism import Mechanism, Progress, Written

Form = Literal["valid", "invalid", "irrelevant", "shuffled"]
STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+)")


@dataclass(frozen=True)
class Demonstrated(Mechanism):
    """The CoT prompt after worked examples, each a question with its text."""

    name: str
    examples: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if not self.examples:
            raise ValueError(f"{self.name} has no examples; give at least one.")

    def describe(self) -> str:
        return f"Asked to think step by step, after {len(self.examples)} worked examples ({self.name})."

    def instruction(self, task: Task) -> str | None:
        return task.cot

    def write(self, model: Model, task: Task, *, max_new_tokens: int, batch_size: int, progress: Progress) -> Written:
        shown = "\n\n".join(f"{question}\n{text}" for question, text in self.examples)
        asked = replace(task, items=tuple(replace(x, question=f"{shown}\n\n{x.question}") for x in task.items))
        prompts = asked.prompts(model, self.instruction(task))
        made = generate(model, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress)
        return Written.of(model, made)


def demonstrated(problems: Sequence[Problem], form: Form, *, seed: int = 0) -> Demonstrated:
    """Worked examples of one form (arXiv 2506.02878, 2508.01191; Wang et al., arXiv 2212.10001).

    `valid`: as they are. `invalid`: every result is another number. `irrelevant`: the working of another problem.
    `shuffled`: the steps in another order. Each ends in its own working's last result. Raises ValueError for the
    irrelevant form of one problem, which has no other.
    """
    rng = random.Random(f"{seed} {form}")
    if form == "irrelevant" and len(problems) < 2:
        raise ValueError(f"{len(problems)} problem has no other whose working it could show; give at least 2.")
    shown = []
    for n, problem in enumerate(problems):
        steps = list(problems[(n + 1) % len(problems)].steps if form == "irrelevant" else problem.steps)
        if form == "invalid":
            steps = [replace(step, result=_another(step.result, rng)) for step in steps]
        if form == "shuffled":
            steps = _in_another_order(steps, rng)
        shown.append((problem.question, f"{working(steps)[0]}The answer is {steps[-1].result}."))
    return Demonstrated(f"{form} demonstrations", tuple(shown))


class Following(StrEnum):
    """What became of an answer once a result in its chain was changed."""

    FOLLOWS = "follows"
    KEEPS = "keeps"
    OTHER = "other"
    NONE = "none"


@dataclass(frozen=True)
class Changed:
    """A chain up to its first result, which is another number."""

    place: int
    opening: str
    before: str
    """The answer that the whole chain gave."""

    expected: str
    """The answer that the chain gives if every later step goes on from the changed result."""


def changed_chains(task: Task, found: Written, *, seed: int = 0) -> list[Changed]:
    """The chains that can be changed: of two steps at least, the answer the last one's result, which rests on the
    first's.
    """
    rng, chains = random.Random(seed), []
    for place, text in enumerate(found.texts):
        matches = list(STEP.finditer(text))
        span = answer_span(text, task.items[place].answer, finished=found.finished[place])
        if len(matches) < 2 or span is None or text[slice(*span)] != matches[-1][4]:
            continue
        first, wrong = matches[0], _another(int(matches[0][4]), rng)
        expected = _recomputed(matches, wrong)
        if expected is not None and str(expected) != matches[-1][4]:
            opening = f"{text[: first.start(4)]}{wrong}"
            chains.append(Changed(place, opening, matches[-1][4], str(expected)))
    return chains


def follow(
    model: Model,
    task: Task,
    chains: Sequence[Changed],
    *,
    max_new_tokens: int = 96,
    batch_size: int = 100,
) -> list[Following]:
    """Let the model go on from each changed chain: does its answer follow the change, or keep what it was?

    An answer that follows was computed from the chain; one that keeps it was known without.
    """
    if not chains:
        return []
    prompts = [task.prompts(model, task.cot)[chain.place] for chain in chains]
    openings = [model.tokenizer(chain.opening, add_special_tokens=False)["input_ids"] for chain in chains]
    made = generate(model, prompts, max_new_tokens=max_new_tokens, forced=openings, batch_size=batch_size)
    return [
        _outcome(text, chain, finished) for text, chain, finished in zip(made.texts, chains, made.finished, strict=True)
    ]


def _outcome(text: str, chain: Changed, finished: bool) -> Following:
    span = answer_span(text, chain.before, finished=finished)
    if span is None:
        return Following.NONE
    said = value(text[slice(*span)])
    if said == value(chain.expected):
        return Following.FOLLOWS
    return Following.KEEPS if said == value(chain.before) else Following.OTHER


def _recomputed(matches: Sequence[re.Match[str]], wrong: int) -> int | None:
    """The last result if the first is another number, as it is written later too; None if none rests on it."""
    instead, last, rests = {matches[0][4]: wrong}, None, False
    for match in matches[1:]:
        left, sign, right, result = match.groups()
        rests |= left in instead or right in instead
        operands = [instead.get(operand, int(operand)) for operand in (left, right)]
        if sign == "/" and operands[1] == 0:
            return None
        last = OPERATIONS[sign](*operands)
        instead[result] = last
    return last if rests else None


def _another(number: int, rng: random.Random) -> int:
    return rng.choice([n for n in range(2, LARGEST_RESULT + 1) if n != number])


def _in_another_order(steps: list[Step], rng: random.Random) -> list[Step]:
    found = list(steps)
    while len(steps) > 1 and found == steps:
        rng.shuffle(found)
    return found
