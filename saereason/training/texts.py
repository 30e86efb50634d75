"""What SAEs are trained on: problem texts of both kinds, and plain English that Python itself brings."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from saereason.model import Model
from saereason.tasks import COT, DIRECT, Task, problems, word_problems

from .sources import Framing


def plain_texts() -> list[str]:
    """Paragraphs of English prose from Python's own help topics (`pydoc_data`, PSF licence), about 26,000 words."""
    from pydoc_data.topics import topics

    paragraphs = []
    for _, topic in sorted(topics.items()):
        for paragraph in re.split(r"\n\s*\n", topic):
            text = " ".join(paragraph.split())
            if len(text) >= 200 and text[0].isupper() and text.count("::") == 0:
                paragraphs.append(text)
    return list(dict.fromkeys(paragraphs))


def problem_rows(model: Model, task: Task) -> list[list[int]]:
    """Every item's dialogue as token ids, by turns answered in steps and directly."""
    rows = []
    prompts = {True: task.prompts(model, task.cot), False: task.prompts(model, task.direct)}
    for n, item in enumerate(task.items):
        in_steps = n % 2 == 0 and bool(item.solution)
        answer = item.solution if in_steps else item.answer
        rows.append(model.encode(prompts[n % 2 == 0][n]) + _ids(model, answer))
    return rows


def plain_rows(model: Model, texts: Sequence[str], framing: Framing = Framing()) -> list[list[int]]:
    """Texts as rows of token ids; what is left of a text is a row of its own if half as long."""
    return framing.rows(model, (model.tokenizer(text, verbose=False)["input_ids"] for text in texts))


def default_rows(
    model: Model, *, n_problems: int = 1600, seed: int = 0, direct: str = DIRECT, cot: str = COT, skip: int = 0
) -> list[list[int]]:
    """Generated problems answered in both ways, and plain English (without its first `skip` paragraphs), mixed."""
    taught = word_problems(problems(n_problems, seed=seed + 1, split="train"))
    asked = replace(taught, direct=direct, cot=cot)
    return mixed([problem_rows(model, asked), plain_rows(model, plain_texts()[skip:])], seed=seed)


def split_rows(rows: Sequence[list[int]], n_held_out: int = 64) -> tuple[list[list[int]], list[list[int]]]:
    """Rows to train on and rows to evaluate on: the last `n_held_out`, or a tenth of a smaller set."""
    n = max(1, min(n_held_out, len(rows) // 10))
    return list(rows[:-n]), list(rows[-n:])


def mixed(rows: Sequence[Sequence[Sequence[int]]], *, seed: int) -> list[list[int]]:
    """All rows of all kinds in a fixed random order."""
    everything = [list(row) for kind in rows for row in kind]
    random.Random(seed).shuffle(everything)
    return everything


def _ids(model: Model, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]
