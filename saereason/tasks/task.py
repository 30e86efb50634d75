"""What a model is asked: items with a question and an answer, and how they are graded."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from saereason.model import Model, Rendered

from .arithmetic import Problem
from .prompts import COT, DIRECT, ask

Kind = Literal["reasoning", "knowledge", "neutral"]


@dataclass(frozen=True)
class Item:
    """One question. `solution` is a gold text that ends in the answer; `spans` are its characters worth scoring.

    `aliases` are other answers that count as right, and `score`, where there is one, tells of any answer how right it
    is, 1.0 being right; `answer` may then be empty.
    """

    id: str
    question: str
    answer: str
    solution: str = ""
    spans: tuple[tuple[int, int], ...] = ()
    aliases: tuple[str, ...] = ()
    score: Callable[[str], float] | None = field(default=None, compare=False, repr=False)

    @property
    def answers(self) -> tuple[str, ...]:
        """Every answer that counts as right, for `grade`."""
        return (self.answer, *self.aliases)


@dataclass(frozen=True)
class Task:
    """Items of one kind, with the two instructions under which they can be asked."""

    name: str
    kind: Kind
    items: tuple[Item, ...]
    direct: str = DIRECT
    cot: str = COT
    system: str | None = None
    chat: bool | None = None

    def __len__(self) -> int:
        return len(self.items)

    def prompts(self, model: Model, instruction: str | None = None) -> list[Rendered]:
        """Every item's question, with an instruction or plain, as the model reads it."""
        texts = [ask(item.question, instruction) if instruction else item.question for item in self.items]
        return [model.render(text, self.system, self.chat) for text in texts]

    def take(self, n: int) -> "Task":
        return replace(self, items=self.items[:n])

    def drop(self, n: int) -> "Task":
        return replace(self, items=self.items[n:])


def word_problems(problems: tuple[Problem, ...], *, name: str = "word problems") -> Task:
    """Generated problems as a task; the digits of every computed result are what is worth scoring."""
    items = tuple(
        Item(
            id=f"{p.template}/{'-'.join(map(str, p.numbers))}",
            question=p.question,
            answer=p.answer,
            solution=p.solution,
            spans=tuple(p.result_spans()),
        )
        for p in problems
    )
    return Task(name, "reasoning", items)


def load_task(path: str | Path, *, direct: str = DIRECT, cot: str = COT) -> Task:
    """A task from JSON lines with `question` and `answer`.

    Raises ValueError, naming the line, for anything else, and for a question that is there twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no task file at {path}; give a JSONL file with a question and an answer in each row.")
    lines = enumerate(path.read_bytes().split(b"\n"), 1)
    items = [_item(line, f"{path}, line {n}", str(n)) for n, line in lines if line.strip()]
    if not items:
        raise ValueError(f"{path} is empty; give a question and an answer in each row.")
    first: dict[str, str] = {}
    for item in items:
        if first.setdefault(item.question, item.id) != item.id:
            raise ValueError(
                f"{path}, line {item.id} asks the question of line {first[item.question]} again; each must be there "
                "once, or splits would share it."
            )
    return Task(path.stem, "reasoning", tuple(items), direct, cot)


def _item(line: bytes, where: str, id_: str) -> Item:
    try:
        row = json.loads(line)
    except ValueError as error:  # text that is not UTF-8 too
        raise ValueError(f"{where} is not JSON ({error}); each line must be one object.") from error
    if not isinstance(row, dict) or not {"question", "answer"} <= set(row):
        raise ValueError(f"{where} lacks a question or an answer; each row needs both.")
    if not isinstance(row["question"], str) or isinstance(row["answer"], bool | dict | list | None):
        raise ValueError(f"{where} has a question or an answer that is not text; an answer may be a number too.")
    question, answer = row["question"].strip(), _final(str(row["answer"]))
    if not question or not answer:
        raise ValueError(f"{where} has an empty question or answer; fill it in or take the row out.")
    return Item(id_, question, answer)


def _final(answer: str) -> str:
    """The answer itself where a solution precedes it in GSM8K's way (`… #### 72`)."""
    return answer.rsplit("####", 1)[-1].strip()
