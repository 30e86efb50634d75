"""What SAEs are trained on: problem texts of both kinds, and plain English that Python itself brings."""

import random
import re
from collections.abc import Sequence

from saereason.model import Model
from saereason.tasks.task import Task


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


def plain_rows(model: Model, texts: Sequence[str], *, length: int = 128) -> list[list[int]]:
    """Texts as rows of at most `length` token ids; what is left of a text is a row of its own if half as long."""
    rows = []
    for text in texts:
        ids = model.encode(text)
        rows += [ids[n : n + length] for n in range(0, len(ids), length) if n == 0 or len(ids) - n >= length // 2]
    return rows


def mixed(rows: Sequence[Sequence[Sequence[int]]], *, seed: int) -> list[Sequence[int]]:
    """All rows of all kinds in a fixed random order."""
    everything = [row for kind in rows for row in kind]
    random.Random(seed).shuffle(everything)
    return everything


def _ids(model: Model, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]
