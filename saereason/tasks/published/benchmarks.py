"""Published benchmarks as tasks, from a file in the public format or from the hub."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ..grading import is_choice, is_number
from ..prompts import DIRECT
from ..task import Item, Task
from .formats import check_format
from .generated import PREFIX, generated_items
from .hub import fetched_rows
from .rows import File, Row, files_in, numbered_rows
from .table import BENCHMARKS, Benchmark

T = TypeVar("T")
MOST_NAMED = 12
"""Parts that a message lists."""


def load_benchmark(
    name: str, source: str | Path | None = None, *, part: str | int | None = None, n: int | None = None, seed: int = 0
) -> Task:
    """A published benchmark: `n` of its items, drawn by `seed` and in the order of the file, or all.

    `source` is a file, a folder or a zip file in the public format; without it the hub is asked, and only then. `part`
    is a task (`bbh`, `babi`), a relation (`lre`, `pararel`) or a subject (`mmlu`); of a folder, None takes all parts.

    On the hub: gsm8k is `openai/gsm8k`, svamp `ChilleD/SVAMP`, bbh `SaylorTwift/bbh`, strategyqa
    `tasksource/strategy-qa`, prontoqa `renma/ProntoQA`, babi `Muennighoff/babi`, mmlu `cais/mmlu`, nq_open
    `google-research-datasets/nq_open`. logical_deduction, lre, known_1000 and pararel need a source, and so do arc and
    aqua, which are read from the concise_cot_logs. `reasoning-gym/…`, with the name of a generator of that package, is
    `n` generated items, graded by the generator's own rule.

    A question that is there several times is one item, with every answer. Raises ValueError for a benchmark, source or
    part that is not there, a file of another format, a row that cannot be read (with its number), a question with two
    answers where only one can be right, and fewer than `n` items.
    """
    if name.startswith(PREFIX):
        return _generated(name, source, part, n, seed)
    if name not in BENCHMARKS:
        raise ValueError(f"no benchmark {name!r}; there are {sorted(BENCHMARKS)}, and {PREFIX}… with a generator.")
    benchmark, part = BENCHMARKS[name], None if part is None else str(part)
    if part is not None and not benchmark.has_parts:
        raise ValueError(f"{name} has no parts, and part {part!r} was asked for; leave it out.")
    rows = _hub_rows(name, benchmark, part) if source is None else _file_rows(name, benchmark, source, part)
    items = _merged([benchmark.item(row) for row in rows], name)
    return Task(
        name if part is None else f"{name} {part}",
        benchmark.kind,
        drawn(items, n, seed, name),
        direct="" if benchmark.cloze else _instruction(items),
        chat=False if benchmark.cloze else None,
    )


def _generated(name: str, source: str | Path | None, part: str | int | None, n: int | None, seed: int) -> Task:
    if source is not None or part is not None:
        raise ValueError(f"{name} is generated, and a source or a part was given ({source or part}); leave it out.")
    items = generated_items(name, n, seed)
    exact = all(is_number(item.answer) or is_choice(item.answer) for item in items)
    return Task(name, "reasoning", items, direct=_instruction(items) if exact else "Give the answer and nothing else.")


def drawn(things: Sequence[T], n: int | None, seed: int, name: str) -> tuple[T, ...]:
    """`n` of the things, in their order; the same seed draws the same, and fewer are among more."""
    if n is None:
        return tuple(things)
    if not 1 <= n <= len(things):
        raise ValueError(f"{n} of {name} were asked for and there are {len(things)}; give a number from 1 to that.")
    order = random.Random(seed).sample(range(len(things)), len(things))
    return tuple(things[i] for i in sorted(order[:n]))


def _file_rows(name: str, benchmark: Benchmark, source: str | Path, part: str | None) -> list[Row]:
    files, rows = files_in(source), []
    for label, file in _parts(name, benchmark, source, files, part).items():
        read = numbered_rows(file)
        check_format(read, file, benchmark.format or name)
        read = benchmark.complete(read, file, files)
        within = f"{label}/" if benchmark.has_parts else ""
        rows += [_row(benchmark, n, fields, str(file), within) for n, fields in read]
    return rows


def _hub_rows(name: str, benchmark: Benchmark, part: str | None) -> list[Row]:
    hub = benchmark.hub
    if hub is None:
        raise ValueError(f"{name} is not on the hub in a format that is read here; give `source`, a file or folder.")
    if benchmark.has_parts and part is None:
        raise ValueError(f"{name} is read from the hub by parts, and none was named; give `part`.")
    within = f"{part}/" if part else ""
    return [_row(benchmark, n, fields, hub.dataset, within) for n, fields in fetched_rows(hub, part)]


def _row(benchmark: Benchmark, n: int, fields: Mapping[str, Any], file: str, within: str) -> Row:
    row = Row(f"{within}{n}", f"{file}, row {n}", fields)
    if benchmark.exam and not str(fields.get("exam")).startswith(benchmark.exam):
        raise row.malformed(f"is of the exam {fields.get('exam')}, not {benchmark.exam}")
    if benchmark.id is None:
        return row
    if not isinstance(fields.get(benchmark.id), str | int):
        raise row.malformed(f"has no {benchmark.id!r} to know it by")
    return replace(row, id=f"{within}{fields[benchmark.id]}")


def _parts(
    name: str, benchmark: Benchmark, source: str | Path, files: Sequence[File], part: str | None
) -> dict[str, File]:
    """The files to read, by part; a file that was named itself may be called anything."""
    holding: dict[str, list[File]] = {}
    for file in files:
        match = re.fullmatch(rf"(?:.*/)?{benchmark.pattern}", str(file).replace("\\", "/"))
        if match is None and file != Path(source):
            continue
        label = (match[1] if match else Path(file.name).stem) if benchmark.has_parts else name
        holding.setdefault(label, []).append(file)
    found = {label: _one(source, label, name, those) for label, those in holding.items()}
    if not found:
        raise ValueError(f"none of the {len(files)} files in {source} is named as those of {name} are; name a file.")
    if part is None:
        return {label: found[label] for label in sorted(found, key=lambda t: (len(t), t) if t.isdigit() else (0, t))}
    if part not in found:
        named = sorted(found)[:MOST_NAMED]
        raise ValueError(
            f"no part {part!r} of {name} in {source}; there are {named}{' …' * (len(found) > MOST_NAMED)}."
        )
    return {part: found[part]}


def _one(source: str | Path, label: str, name: str, files: Sequence[File]) -> File:
    """The only file, or the only one with the benchmark's name in its path."""
    likely = files if len(files) == 1 else [file for file in files if name in str(file).casefold()]
    if len(likely) != 1:
        raise ValueError(f"{source} holds {label} twice, as {files[0]} and {files[1]}; name one of them.")
    return likely[0]


def _merged(items: Sequence[Item], name: str) -> list[Item]:
    """Items with every question once."""
    first: dict[str, Item] = {}
    ids: set[str] = set()
    for item in items:
        if item.id in ids:
            raise ValueError(f"{name} has {item.id} twice; each row must have an id of its own.")
        ids.add(item.id)
        known = first.setdefault(item.question, item)
        more = tuple(dict.fromkeys(answer for answer in item.answers if answer not in known.answers))
        if more and any(is_choice(answer) or is_number(answer) for answer in (known.answer, *more)):
            both = f"{known.id} ({known.answer!r}) and {item.id} ({item.answer!r})"
            raise ValueError(f"{name} has one question with two answers, as {both}; take one out.")
        first[item.question] = replace(known, aliases=(*known.aliases, *more))
    return list(first.values())


def _instruction(items: Sequence[Item]) -> str:
    """How to ask for nothing but the answer, by what the answers are."""
    answers = {item.answer.casefold() for item in items}
    if answers <= {"yes", "no"}:
        return "Answer with only yes or no."
    if answers <= {"true", "false"}:
        return "Answer with only true or false."
    if all(len(answer) == 1 and answer.isalpha() for answer in answers):
        return "Answer with only the letter of the right option."
    return DIRECT if all(map(is_number, answers)) else "Answer with only a word or a name."
