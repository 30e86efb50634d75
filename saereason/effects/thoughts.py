"""What a thought is worth: how much likelier the right answer is after it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from saereason import hooks
from saereason.metrics import Scored, log_probs_after
from saereason.model import Model
from saereason.tasks import Item, Task

CLOSING = "\nThe answer is"
"""What stands between a text and the answer that is scored."""

BLANK = "…"
"""What stands in a thought where its answer was masked."""


@dataclass(frozen=True, eq=False)
class Gain:
    """Rise in nats per token of each right answer over that without a thought; NaN where all does not fit the context.

    `own` after the item's thought; `masked` after it with the answer blanked out, wherever it stands by itself; `other`
    after the thought of the next item that has another answer, NaN where no item has.
    """

    own: Float[np.ndarray, "item"]
    masked: Float[np.ndarray, "item"]
    other: Float[np.ndarray, "item"]


def information_gain(model: Model, task: Task, instruction: str | None, thoughts: Sequence[str]) -> Gain:
    """`log p(answer | question, thought) − log p(answer | question)` per token (RLP, arXiv 2510.01265), with controls.

    A thought that only states the answer gains by `own` and not by `masked`; one that helps with its form alone gains
    by `other` as well. Raises ValueError as `answer_log_probs`.
    """
    return Thoughts(model, task, instruction).gain(thoughts)


@dataclass(frozen=True, eq=False)
class Thoughts:
    """Thoughts about the items of a task, each of which is scored once however often it is asked about."""

    model: Model
    task: Task
    instruction: str | None
    known: dict[tuple[int, str], float] = field(default_factory=dict)
    """The log-probability of an item's answer after a thought; after none, ""."""

    def gain(self, thoughts: Sequence[str]) -> Gain:
        """As `information_gain`."""
        items = self.task.items
        check_thoughts(self.task, thoughts)
        places = [_other(items, n) for n in range(len(items))]
        bare, own, masked, of_others = self.log_probs(
            [""] * len(items),
            thoughts,
            [mask_answer(said, item) for said, item in zip(thoughts, items, strict=True)],
            ["" if place is None else thoughts[place] for place in places],
        )
        of_others = np.where([place is None for place in places], np.nan, of_others)
        return Gain(own - bare, masked - bare, of_others - bare)

    def log_probs(self, *ways: Sequence[str]) -> list[Float[np.ndarray, "item"]]:
        """As `answer_log_probs`, for several thoughts of each item, of which the item itself is read once.

        Nothing is shared or kept where an edit is in force, which may be of some items alone.
        """
        for thoughts in ways:
            check_thoughts(self.task, thoughts)
        if hooks.in_force():
            return [answer_log_probs(self.model, self.task, self.instruction, thoughts) for thoughts in ways]
        asked = [pair for thoughts in ways for pair in enumerate(thoughts)]
        new = [pair for pair in dict.fromkeys(asked) if pair not in self.known]
        self.known.update(zip(new, _answers_after(self.model, self.task, self.instruction, new).tolist(), strict=True))
        return [np.array([self.known[pair] for pair in enumerate(thoughts)]) for thoughts in ways]


def check_thoughts(task: Task, thoughts: Sequence[str]) -> None:
    """Raises ValueError for another number of thoughts than items."""
    if len(thoughts) != len(task):
        raise ValueError(f"there are {len(thoughts)} thoughts for {len(task)} items; give one each.")


def mask_answer(thought: str, item: Item) -> str:
    """The thought with a blank wherever an answer of the item stands by itself."""
    for answer in filter(None, item.answers):
        thought = re.sub(rf"(?<![\w.]){re.escape(answer)}(?!\w|[.,]\d)", BLANK, thought, flags=re.IGNORECASE)
    return thought


def _other(items: Sequence[Item], n: int) -> int | None:
    """The next item, from the first again after the last, with which this one shares no answer."""
    mine, following = set(items[n].answers), [*range(n + 1, len(items)), *range(n)]
    return next((m for m in following if mine.isdisjoint(items[m].answers)), None)


def answer_log_probs(
    model: Model, task: Task, instruction: str | None, thoughts: Sequence[str] | None = None
) -> Float[np.ndarray, "item"]:
    """Mean log-probability (nats) per token of each answer, after "The answer is", at once or after a thought.

    A thought that states the answer makes it likely by being copied. NaN where all does not fit the context. Raises
    ValueError for another number of thoughts than items.
    """
    said = [""] * len(task) if thoughts is None else list(thoughts)
    check_thoughts(task, said)
    return _answers_after(model, task, instruction, enumerate(said))


def _answers_after(
    model: Model, task: Task, instruction: str | None, pairs: Iterable[tuple[int, str]]
) -> Float[np.ndarray, "pair"]:
    """Of pairs of an item's place and a thought."""

    def tokens(text: str) -> tuple[int, ...]:
        return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    questions = [tuple(model.encode(prompt)) for prompt in task.prompts(model, instruction)]
    items, shared = [], []
    for place, thought in pairs:
        answer = tokens(f" {task.items[place].answer}")
        given = (*questions[place], *tokens(f"{thought}{CLOSING}" if thought else CLOSING.strip()))
        items.append(Scored(given, answer, (True,) * len(answer)))
        shared.append(len(questions[place]))
    found = np.full(len(items), np.nan)
    fits = [n for n, item in enumerate(items) if len(item.prompt) + len(item.continuation) <= model.n_ctx]
    if fits:
        found[fits] = log_probs_after(model, [items[n] for n in fits], [shared[n] for n in fits]).numpy()
    return found
