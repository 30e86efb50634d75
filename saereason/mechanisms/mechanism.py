"""What all mechanisms are: ways to make a model reason, as frozen values."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from saereason.effects import Trial
from saereason.generate import Generation, generate
from saereason.model import Model, Rendered
from saereason.saes import SAE
from saereason.tasks import Task

Progress = Callable[[int, int], None]
Prompt = str | Rendered


def unseen(done: int, total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True)
class Written:
    """What a mechanism wrote, in the order of the items."""

    prompts: tuple[tuple[int, ...], ...]
    """Token ids that each answer continues."""

    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    finished: tuple[bool, ...]

    spent: tuple[int, ...]
    """Tokens written for each item in all, in every call and on every path."""

    consistent: tuple[bool | None, ...] | None = None
    """For a mechanism that checks itself: did each answer pass; None for one that it could not check."""

    @classmethod
    def of(cls, model: Model, made: Generation, spent: Sequence[int] | None = None) -> "Written":
        """Of one call; with what earlier calls spent."""
        before = [0] * len(made.tokens) if spent is None else spent
        total = tuple(a + len(b) for a, b in zip(before, made.tokens, strict=True))
        prompts = tuple(tuple(model.encode(prompt)) for prompt in made.prompts)
        return cls(prompts, made.texts, made.tokens, made.finished, total)

    def part(self, items: slice) -> "Written":
        """What was written for some of the items."""
        checked = self.consistent[items] if self.consistent else None
        return Written(
            self.prompts[items], self.texts[items], self.tokens[items], self.finished[items], self.spent[items], checked
        )


class Mechanism:
    """A way to make a model reason. Frozen dataclasses inherit from it."""

    name: str

    def describe(self) -> str:
        """What it does, in a sentence."""
        raise NotImplementedError

    def instruction(self, task: Task) -> str | None:
        """What is asked for below the question: an answer at once, unless the mechanism is another way of asking."""
        return task.direct or None

    @contextmanager
    def apply(self, model: Model, saes: Mapping[int, SAE] | None) -> Iterator[Model]:  # noqa: ARG002
        """Within the block the model given runs as the mechanism makes it."""
        yield model

    def write(self, model: Model, task: Task, *, max_new_tokens: int, batch_size: int, progress: Progress) -> Written:
        """Answers to a task by the model as it now runs; greedy, unless decoding is what the mechanism changes."""
        prompts = task.prompts(model, self.instruction(task))
        return Written.of(
            model, generate(model, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress)
        )


def elicit(
    model: Model,
    saes: Mapping[int, SAE] | None,
    mechanism: Mechanism,
    task: Task,
    *,
    max_new_tokens: int = 96,
    batch_size: int = 100,
    progress: Progress = unseen,
) -> Written:
    """What the model writes in answer to a task under a mechanism."""
    with mechanism.apply(model, saes) as changed:
        return mechanism.write(changed, task, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress)


def answer_rows(trial: Trial, found: Written) -> list[dict[str, Any]]:
    """A row for each item: `item`, `text`, `outcome`, `n_tokens` of the answer, `spent` in all, `first_token`,
    `consistent`.
    """
    checked = found.consistent or (None,) * len(trial)
    rows = zip(trial.ids, found.texts, found.tokens, found.finished, found.spent, checked, strict=True)
    return [
        {
            "item": id_,
            "text": text,
            "outcome": trial.judge(n, text, tokens, finished=finished).value,
            "n_tokens": len(tokens),
            "spent": spent,
            "first_token": tokens[0] if tokens else -1,
            "consistent": consistent,
        }
        for n, (id_, text, tokens, finished, spent, consistent) in enumerate(rows)
    ]
