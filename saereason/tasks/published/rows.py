"""Rows of the files in which benchmarks are published: JSON, JSON lines, CSV and two kinds of plain text."""

import csv
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import logs, stories

File = Path | zipfile.Path
Numbered = tuple[int, Mapping[str, Any]]
"""A row and where it stands, from 1: the line in a file of lines, else the place in the list."""


@dataclass(frozen=True)
class Row:
    """One record; `id` is unique within its benchmark, and `where` is what messages call it."""

    id: str
    where: str
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """A field that must be text."""
        found = self.fields.get(name)
        if not isinstance(found, str) or not found.strip():
            raise self.malformed(f"has no text as {name!r} ({found!r})")
        return found.strip()

    def texts(self, name: str) -> tuple[str, ...]:
        """A field that must be a list of texts, at least one."""
        found = self.fields.get(name)
        if not isinstance(found, list | tuple) or not found or not all(isinstance(t, str) and t.strip() for t in found):
            raise self.malformed(f"has no list of texts as {name!r} ({found!r})")
        return tuple(text.strip() for text in found)

    def malformed(self, reason: str) -> ValueError:
        return ValueError(f"{self.where} {reason}; mend it or take it out.")


def files_in(source: str | Path) -> Sequence[File]:
    """The file itself, or everything in a folder or a zip file, sorted."""
    path = Path(source)
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if not path.is_file():
        raise ValueError(f"no file or folder at {path}; give a copy of the benchmark in its public format.")
    if path.suffix != ".zip":
        return [path]
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a zip file; check the file.")
    with zipfile.ZipFile(path) as archive:
        return [zipfile.Path(path, name) for name in sorted(archive.namelist()) if not name.endswith("/")]


def numbered_rows(file: File) -> list[Numbered]:
    """Every row of a file. Raises ValueError, naming the row, for what cannot be read."""
    readers = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".txt": _text}
    if file.suffix not in readers:
        raise ValueError(f"{file} ends in {file.suffix or 'nothing'}; give a file that ends in one of {list(readers)}.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error.reason}); convert it.") from error
    rows = list(readers[file.suffix](text, str(file)))
    if not rows:
        raise ValueError(f"{file} is empty; give a file with at least one row.")
    return rows


def _json_lines(text: str, where: str) -> Iterator[Numbered]:
    for n, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield n, _object(_parsed(line, f"{where}, row {n}"), f"{where}, row {n}")


def _json(text: str, where: str) -> Iterator[Numbered]:
    """A list of objects; or an object that holds one as `examples` or `samples`, with what it says of all."""
    found = _parsed(text, where)
    if isinstance(found, dict):
        lists = [found[name] for name in ("examples", "samples") if isinstance(found.get(name), list)]
        if not lists:
            raise ValueError(f"{where} holds one object with {sorted(found)}; give a list, `examples` or `samples`.")
        about = {name: value for name, value in found.items() if name not in ("examples", "samples")}
        found = [about | _object(row, f"{where}, row {n}") for n, row in enumerate(lists[0], 1)]
    if not isinstance(found, list):
        raise ValueError(f"{where} holds a {type(found).__name__}; give a list of objects.")
    for n, row in enumerate(found, 1):
        yield n, _object(row, f"{where}, row {n}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON ({error}); mend it, or name a file of JSON lines .jsonl.") from error


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is a {type(row).__name__}; each row must be an object.")
    return row


def _csv(text: str, where: str) -> Iterator[Numbered]:
    """Without a header: the question, the choices, the letter of the right one."""
    for n, cells in enumerate(csv.reader(io.StringIO(text, newline="")), 1):
        if len(cells) < 4:
            raise ValueError(f"{where}, row {n} has {len(cells)} cells; a row is a question, choices and a letter.")
        yield n, {"question": cells[0], "choices": cells[1:-1], "answer": cells[-1]}


def _text(text: str, where: str) -> Iterator[Numbered]:
    return (logs.problems if text.startswith(logs.START) else stories.questions)(text, where)
