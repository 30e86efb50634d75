"""Texts that say the same in two ways, and texts that are right or wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .benchmarks import drawn
from .formats import MODEL_SOLUTIONS, check_format
from .hub import Hub, fetched_rows
from .logs import START
from .rows import Row, files_in, numbered_rows
from .worked import without_annotations

SOCRATIC = Hub("openai/gsm8k", "test", "socratic")
LOG_PROMPTS = {
    "verbose_concise": ("chain_of_thought", "concise"),
    "verbose_direct": ("chain_of_thought", "baseline"),
}
PAIRS = (*LOG_PROMPTS, "socratic_plain", "model_solutions")


@dataclass(frozen=True)
class TextPair:
    """Two answers to one question: `on` shows the behaviour, `off` does not."""

    id: str
    question: str
    on: str
    off: str


@dataclass(frozen=True)
class GradedText:
    """An answer to a question, and whether it is right."""

    id: str
    question: str
    text: str
    right: bool


def load_pairs(
    name: str, source: str | Path | None = None, *, n: int | None = None, seed: int = 0
) -> tuple[TextPair, ...] | tuple[GradedText, ...]:
    """Published pairs of texts, or graded texts: `n` of them, drawn by `seed`, or all.

    `verbose_concise` and `verbose_direct` are of the concise_cot_logs, a folder: the first of the responses under
    chain_of_thought, and under concise or baseline (which asks for the answer alone, and at times gets more).
    `socratic_plain` is GSM8K's socratic file (`openai/gsm8k` on the hub): working led by questions, and without them.
    `model_solutions` is GSM8K's example_model_solutions: graded texts, four to a question. Calculator annotations are
    taken out.

    Raises ValueError as `load_benchmark` does, and for a problem that lacks one of two texts.
    """
    if name not in PAIRS:
        raise ValueError(f"no pairs {name!r}; there are {sorted(PAIRS)}.")
    if source is None and name != "socratic_plain":
        raise ValueError(f"{name} is not on the hub; give `source`, a file or folder in the public format.")
    if name in LOG_PROMPTS:
        return drawn(_log_pairs(name, source), n, seed, name)  # pyright: ignore[reportArgumentType]  never None here
    if name == "socratic_plain":
        return drawn([_socratic(row) for row in _rows("gsm8k", source)], n, seed, name)
    return drawn([text for row in _rows(name, source) for text in _solutions(row)], n, seed, name)


def _rows(wanted: str, source: str | Path | None) -> list[Row]:
    if source is None:
        return [Row(str(n), f"{SOCRATIC.dataset}, row {n}", row) for n, row in fetched_rows(SOCRATIC, None)]
    if not Path(source).is_file():
        raise ValueError(f"no file at {source}; name the file itself.")
    rows = numbered_rows(Path(source))
    check_format(rows, Path(source), wanted)
    return [Row(str(n), f"{source}, row {n}", row) for n, row in rows]


def _socratic(row: Row) -> TextPair:
    """The plain working is the socratic one without what stands before ` ** `."""
    working, mark, final = row.text("answer").rpartition("####")
    lines = working.strip().split("\n")
    if not mark or not any(" ** " in line for line in lines):
        raise row.malformed("has no lines of a sub-question, ` ** ` and its working, closed by ####")
    on = "\n".join(line.replace(" ** ", " ", 1) for line in lines)
    off = "\n".join(line.split(" ** ", 1)[-1] for line in lines)
    texts = [f"{without_annotations(text)[0]}\nThe answer is {final.strip()}." for text in (on, off)]
    return TextPair(row.id, row.text("question"), *texts)


def _solutions(row: Row) -> list[GradedText]:
    texts = []
    for writer in MODEL_SOLUTIONS:
        found = row.fields.get(writer)
        if not isinstance(found, Mapping) or not isinstance(found.get("is_correct"), bool):
            raise row.malformed(f"has no graded solution as {writer!r}")
        text = without_annotations(Row(row.id, row.where, found).text("solution"))[0]
        texts.append(GradedText(f"{row.id}/{writer}", row.text("question"), text, found["is_correct"]))
    return texts


def _log_pairs(name: str, source: str | Path) -> list[TextPair]:
    found: dict[str, dict[tuple[str, str, int], Row]] = {prompt: {} for prompt in LOG_PROMPTS[name]}
    for file in files_in(source):
        if file.suffix != ".txt" or not file.read_text(encoding="utf8").startswith(START):
            continue
        for n, fields in numbered_rows(file):
            key = (fields["model"], fields["exam"], fields["problem"])
            row = Row(f"{fields['exam']}/{fields['problem']}", f"{file}, row {n}", fields)
            if key in found.get(fields["prompt"], {}):
                raise row.malformed(f"is there twice, in {found[fields['prompt']][key].where} too")
            found.get(fields["prompt"], {})[key] = row
    on, off = found.values()
    lacking = sorted(set(on) ^ set(off))
    if lacking or not on:
        what = f"lacks one of the two for {lacking[0]}" if lacking else "holds no such logs"
        raise ValueError(f"{source} {what}; {name} needs the logs of {' and '.join(LOG_PROMPTS[name])}.")
    return [_log_pair(on[key], off[key]) for key in on]


def _log_pair(on: Row, off: Row) -> TextPair:
    if on.fields["question"] != off.fields["question"]:
        raise on.malformed(f"asks another question than {off.where}")
    lines = [on.text("question"), "Options:", *(f"({a}) {choice}" for a, choice in on.fields["choices"].items())]
    return TextPair(on.id, "\n".join(lines), on.texts("responses")[0], off.texts("responses")[0])
