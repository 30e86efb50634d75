"""JSON that anyone may have written, line by line: what is wrong with it is an error that says where and what."""

import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from saereason.runs import write_file
from saereason.steering.exchange.reading import DAMAGE, reading


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write objects as gzipped JSONL in ASCII, so that any text survives; the same objects make the same file."""
    with write_file(path) as partial, partial.open("wb") as raw, gzip.GzipFile("", "wb", 5, raw, 0) as file:
        for line in lines:
            file.write(json.dumps(line, allow_nan=False).encode("ascii") + b"\n")


def each_line(path: Path, wanted: str, use: Callable[[dict[str, Any]], None]) -> None:
    """Give every object of a JSONL file, gzipped or not, to `use`.

    Raises ValueError, with the number of the line, for a line that is no object and for one that `use` cannot take.
    """
    with reading(path, wanted):
        for n, line in enumerate(_lines(path), 1):
            try:
                if line.strip():
                    use(_object(line))
            except DAMAGE as error:
                raise ValueError(f"line {n}: {str(error).rstrip('.') or type(error).__name__}") from error


def _lines(path: Path) -> Iterator[str]:
    """Lines end at line feeds alone: tokens may be any other character that breaks a line."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf8", newline="\n") as file:
                yield from file
        else:
            with path.open(encoding="utf8", newline="\n") as file:
                yield from file
    except zlib.error as error:
        raise ValueError(f"it is no whole gzip file: {error}") from error


def _object(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON from character {error.pos + 1} on") from error
    if not isinstance(said, dict):
        raise ValueError(f"it is {line.strip()!r:.60} and no object")
    return said


def number(said: Mapping[str, Any], key: str) -> float | None:
    """A finite number; None where there is none. The others below are alike. Raises ValueError for anything else."""
    found = said.get(key)
    return None if found is None else _finite(found, key)


def whole(said: Mapping[str, Any], key: str) -> int | None:
    found = number(said, key)
    if found is not None and found != int(found):
        raise ValueError(f"its {key} is {found}, which is no whole number")
    return None if found is None else int(found)


def text(said: Mapping[str, Any], key: str) -> str | None:
    found = said.get(key)
    if found is not None and not isinstance(found, str):
        raise ValueError(f"its {key} is {str(found)!r:.60}, which is no text")
    return found


def index_of(said: Mapping[str, Any], key: str) -> int:
    """A number from 0, which may be written as text. Raises ValueError where there is none, too."""
    found = said.get(key)
    if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 19:
        return int(found)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 2**63:
        raise ValueError(f"its {key} is {str(found)!r:.60}, which is no number of a feature or layer")
    return found


def objects(said: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = _list(said, key)
    if wrong := [each for each in found if not isinstance(each, dict)]:
        raise ValueError(f"one of its {key} is {str(wrong[0])!r:.60} and no object")
    return found


def texts(said: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = _list(said, key)
    if wrong := [each for each in found if not isinstance(each, str)]:
        raise ValueError(f"one of its {key} is {str(wrong[0])!r:.60} and no text")
    return tuple(found)


def numbers(said: Mapping[str, Any], key: str) -> tuple[float, ...]:
    return tuple(_finite(each, key) for each in _list(said, key))


def paired(keys: tuple[Any, ...], values: tuple[float, ...], what: str) -> tuple[tuple[Any, float], ...]:
    """Each with its value. Raises ValueError where they are not as many."""
    if len(keys) != len(values):
        raise ValueError(f"it has {len(keys)} {what} and {len(values)} values for them")
    return tuple(zip(keys, values, strict=True))


def _list(said: Mapping[str, Any], key: str) -> list[Any]:
    found = said.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise ValueError(f"its {key} is {str(found)!r:.60} and no list")
    return found


def _finite(found: Any, key: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise ValueError(f"its {key} has {str(found)!r:.60}, which is no number")
    return float(found)
