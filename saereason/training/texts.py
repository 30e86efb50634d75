"""What SAEs are trained on: problem texts of both kinds, and plain English that Python itself brings."""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from saereason.model import Model
from saereason.tasks import COT, DIRECT, Task, problems, word_problems


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
        ids = model.tokenizer(text, verbose=False)["input_ids"]
        rows += [ids[n : n + length] for n in range(0, len(ids), length) if n == 0 or len(ids) - n >= length // 2]
    return rows


def default_rows(
    model: Model, *, n_problems: int = 1600, seed: int = 0, direct: str = DIRECT, cot: str = COT, skip: int = 0
) -> list[list[int]]:
    """Generated problems answered in both ways, and plain English (without its first `skip` paragraphs), mixed."""
    taught = word_problems(problems(n_problems, seed=seed + 1, split="train"))
    asked = replace(taught, direct=direct, cot=cot)
    return mixed([problem_rows(model, asked), plain_rows(model, plain_texts()[skip:])], seed=seed)


def text_rows(model: Model, path: Path) -> list[list[int]]:
    """A text file's paragraphs as rows. Raises ValueError for a missing or empty file."""
    if not path.is_file():
        raise ValueError(f"no text file at {path}; give one in UTF-8.")
    try:
        paragraphs = [p.strip() for p in path.read_text(encoding="utf8").split("\n\n") if p.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}); convert it first.") from error
    if not paragraphs:
        raise ValueError(f"{path} holds no text; give paragraphs with empty lines between.")
    return mixed([plain_rows(model, paragraphs)], seed=0)


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
