"""Facts: sentences to go on from (LRE, known_1000, ParaRel), and questions with several right answers (NQ-open)."""

import json
import re
from collections.abc import Sequence

from ..task import Item
from .rows import File, Numbered, Row, numbered_rows

PATTERN_END = re.compile(r"\s*\[Y\]\s*\.?$")


def lre(row: Row) -> Item:
    """The sentence is the relation's first zero-shot template, or else its first template, with the subject."""
    templates = row.texts("prompt_templates_zs" if row.fields.get("prompt_templates_zs") else "prompt_templates")
    if "{}" not in templates[0]:
        raise row.malformed(f"has a template without a place for the subject ({templates[0]!r})")
    return _continued(row, templates[0].replace("{}", _unescaped(row.text("subject"))), _unescaped(row.text("object")))


def known_1000(row: Row) -> Item:
    return _continued(row, row.text("prompt"), row.text("attribute"))


def pararel(row: Row) -> Item:
    pattern = PATTERN_END.sub("", row.text("pattern"))
    return _continued(row, pattern.replace("[X]", row.text("sub_label")), row.text("obj_label"))


def with_pattern(rows: list[Numbered], file: File, files: Sequence[File]) -> list[Numbered]:
    """Triples, each with the relation's first pattern that ends in the object."""
    part = re.split(r"__|/", file.name)[-1]
    beside = [other for other in files if "graphs_json" in str(other) and str(other).endswith(part)]
    if len(beside) != 1:
        raise ValueError(f"{len(beside)} files of patterns go with {file}; give a folder that has `graphs_json` too.")
    patterns = [row.get("pattern") for _, row in numbered_rows(beside[0])]
    usable = [pattern for pattern in patterns if isinstance(pattern, str) and PATTERN_END.search(pattern)]
    if not usable or "[X]" not in usable[0]:
        raise ValueError(f"{beside[0]} has no pattern with [X] that ends in [Y]; add one.")
    return [(n, {**fields, "pattern": usable[0]}) for n, fields in rows]


def nq_open(row: Row) -> Item:
    first, *others = row.texts("answer")
    return Item(row.id, row.text("question"), first, aliases=tuple(others))


def _continued(row: Row, sentence: str, answer: str) -> Item:
    """The solution is what follows the sentence, a space and the answer."""
    return Item(row.id, sentence, answer, f" {answer}", ((1, 1 + len(answer)),))


def _unescaped(text: str) -> str:
    """LRE has some letters as `\\u00ed`, escaped twice."""
    return re.sub(r"\\u[0-9a-fA-F]{4}", lambda found: json.loads(f'"{found[0]}"'), text)
