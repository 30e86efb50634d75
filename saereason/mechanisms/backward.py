"""Backward reasoning: an answer is checked by the question turned round (RevThink, arXiv 2411.19865)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from saereason.generate import generate
from saereason.model import Model
from saereason.tasks import Item, Task
from saereason.tasks.grading import NUMBER, answer_span, value

from .mechanism import Mechanism, Progress, Written

UNKNOWN = "x"
"""What stands for the number that is asked for."""


@dataclass(frozen=True)
class Inverse:
    """A question turned round: given the answer, what was this number?"""

    place: int
    question: str
    number: str


@dataclass(frozen=True)
class BackwardCheck(Mechanism):
    """The answer to the CoT prompt, and whether it is consistent: does it lead back to a number of the question?

    It is the question's last number. No answer is changed. An item without a number, or an answer that gives none,
    cannot be checked.
    """

    name: str = "backward check"

    def describe(self) -> str:
        return "Asked to think step by step, and then for a number of the question given the answer."

    def instruction(self, task: Task) -> str | None:
        return task.cot

    def write(self, model: Model, task: Task, *, max_new_tokens: int, batch_size: int, progress: Progress) -> Written:
        def asked(questions: Sequence[str], show: Progress) -> Written:
            prompts = [model.render(f"{each}\n{task.cot}", task.system, task.chat) for each in questions]
            made = generate(model, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=show)
            return Written.of(model, made)

        forward = asked([item.question for item in task.items], progress)
        turned = inverses(task.items, forward)
        checks: list[bool | None] = [None] * len(task)
        spent = list(forward.spent)
        if turned:
            back = asked([each.question for each in turned], lambda done, total: None)
            for n, each in enumerate(turned):
                span = answer_span(back.texts[n], each.number, finished=back.finished[n])
                checks[each.place] = span is not None and value(back.texts[n][slice(*span)]) == value(each.number)
                spent[each.place] += back.spent[n]
        return replace(forward, spent=tuple(spent), consistent=tuple(checks))


def inverses(items: Sequence[Item], forward: Written) -> list[Inverse]:
    """The questions that can be turned round, each with the answer that was given and its last number unknown."""
    found = []
    for place, (item, text, finished) in enumerate(zip(items, forward.texts, forward.finished, strict=True)):
        span = answer_span(text, item.answer, finished=finished)
        numbers = list(re.finditer(NUMBER, item.question))
        if span is None or not numbers:
            continue
        start, end = numbers[-1].span()
        question = f"{item.question[:start]}{UNKNOWN}{item.question[end:]}"
        said = f"The answer to this is {text[slice(*span)]}. What number is {UNKNOWN}?"
        found.append(Inverse(place, f"{question}\n{said}", numbers[-1][0]))
    return found
