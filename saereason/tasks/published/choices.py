"""Multiple choice, all in one layout: the question, `Options:`, and a line `(A) …` for each; the answer is a letter."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from ..task import Item
from .rows import Row


def chosen_of(row: Row, question: str, choices: Sequence[str], right: int) -> Item:
    """A question whose answer is the letter of choice number `right` (from 0)."""
    if not 0 <= right < len(choices):
        raise row.malformed(f"has {len(choices)} choices and says that number {right + 1} is right")
    lines = [f"({letter}) {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)]
    return Item(row.id, "\n".join([question, "Options:", *lines]), ascii_uppercase[right])


def bbh(row: Row) -> Item:
    """The questions have the layout already, those that have options."""
    question, target = row.text("input"), row.text("target")
    letter = re.fullmatch(r"\(([A-Z])\)", target)
    if letter and f"\n{target} " not in question:
        raise row.malformed(f"has the answer {target}, which is not among its options")
    return Item(row.id, question, letter[1] if letter else target)


def logical_deduction(row: Row) -> Item:
    options = [re.sub(r"^[A-Z]\)\s*", "", option) for option in row.texts("options")]
    question = f"{row.text('context')}\n{row.text('question')}"
    return chosen_of(row, question, options, ascii_uppercase.find(row.text("answer")))


def mmlu(row: Row) -> Item:
    """The answer is a letter in the files, and the number of the choice (from 0) on the hub."""
    answer = row.fields.get("answer")
    right = answer if isinstance(answer, int) else ascii_uppercase.find(row.text("answer"))
    return chosen_of(row, row.text("question"), row.texts("choices"), right)


def exam(row: Row) -> Item:
    """A problem of the concise_cot_logs; its choices are lettered anew where they are numbered."""
    choices = row.fields["choices"]
    right = list(choices).index(row.text("correct")) if row.text("correct") in choices else -1
    return chosen_of(row, row.text("question"), list(choices.values()), right)
