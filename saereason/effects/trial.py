"""Prompts to be continued, and how what the model writes is judged."""

import re
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from saereason.model import Model, Rendered
from saereason.tasks import Outcome, Task, grade


@runtime_checkable
class Judge(Protocol):
    """Says what became of the answer to prompt number `item`; only `Outcome.RIGHT` counts for the behaviour."""

    def __call__(self, item: int, text: str, tokens: Sequence[int], *, finished: bool) -> Outcome: ...


@dataclass(frozen=True)
class Grades:
    """Right where the text gives one of the item's answers, or one of full score, as `grade` reads it."""

    answers: tuple[tuple[str, ...], ...]
    scores: tuple[Callable[[str], float] | None, ...] = ()

    def __post_init__(self) -> None:
        if self.scores and len(self.scores) != len(self.answers):
            raise ValueError(
                f"there are {len(self.scores)} scores for {len(self.answers)} items; give one each or none."
            )

    def __len__(self) -> int:
        return len(self.answers)

    def __call__(self, item: int, text: str, tokens: Sequence[int], *, finished: bool) -> Outcome:
        score = self.scores[item] if self.scores else None
        return grade(text, self.answers[item], finished=finished, tokens=tokens, score=score)


@dataclass(frozen=True)
class Opens:
    """Right where the answer opens with the item's token ids."""

    tokens: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def __call__(self, item: int, text: str, tokens: Sequence[int], *, finished: bool) -> Outcome:  # noqa: ARG002
        wanted = self.tokens[item]
        return Outcome.RIGHT if tuple(tokens[: len(wanted)]) == wanted else Outcome.WRONG


@dataclass(frozen=True)
class Shows:
    """Right where the text matches a regular expression at least so many times, finished or not."""

    pattern: str
    times: int = 1

    def __call__(self, item: int, text: str, tokens: Sequence[int], *, finished: bool) -> Outcome:  # noqa: ARG002
        return Outcome.RIGHT if len(re.findall(self.pattern, text)) >= self.times else Outcome.WRONG


@dataclass(frozen=True)
class Trial:
    """Prompts, each with an id, and the judge of what is written after them."""

    prompts: tuple[str | Rendered, ...]
    judge: Judge
    ids: tuple[str, ...]
    max_new_tokens: int = 96

    def __post_init__(self) -> None:
        if not self.prompts or len(set(self.ids)) < len(self.prompts) or len(self.ids) != len(self.prompts):
            raise ValueError(
                f"a trial has {len(self.prompts)} prompts and {len(set(self.ids))} different ids; give at least one "
                "prompt, and an id for each."
            )
        if isinstance(self.judge, Sized) and len(self.judge) < len(self.prompts):
            raise ValueError(
                f"the judge knows {len(self.judge)} items and there are {len(self.prompts)} prompts; give as many."
            )

    @classmethod
    def of(cls, model: Model, task: Task, instruction: str | None = None, *, max_new_tokens: int = 96) -> "Trial":
        """Every item of a task, asked with an instruction or plain, and graded by its answers."""
        grades = Grades(tuple(item.answers for item in task.items), tuple(item.score for item in task.items))
        ids = tuple(item.id for item in task.items)
        return cls(tuple(task.prompts(model, instruction)), grades, ids, max_new_tokens)

    def __len__(self) -> int:
        return len(self.prompts)
