"""What commands find, for two readers: tables that fit a terminal, and JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from saereason.features import Feature
from saereason.visible import one_line


@dataclass(frozen=True)
class Rows:
    """A table of values as they are: a terminal rounds them, JSON does not."""

    header: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    title: str = ""

    def records(self) -> list[dict[str, Any]]:
        return [dict(zip(self.header, row, strict=True)) for row in self.rows]

    def fitted(self, console: Console) -> Table:
        """As wide as the console at most; columns on the right that find no room are named below the table."""
        wide = console.options.update(width=10_000)
        n = len(self.header)
        while n > 1 and console.measure(self._first(n), options=wide).minimum > console.width:
            n -= 1
        return self._first(n)

    def _first(self, n: int) -> Table:
        left_out = ", ".join(map(one_line, self.header[n:]))
        caption = Text(f"No room for {left_out}; --json has all.") if left_out else None
        title = Text(one_line(self.title)) if self.title else None
        table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
        for place, name in enumerate(self.header[:n]):
            table.add_column(Text(one_line(name)), justify="right" if place else "left")
        for row in self.rows:
            table.add_row(*(Text(cell(value)) for value in row[:n]))
        return table


def cell(value: Any) -> str:
    """A value as a terminal shows it; no character of a text hides, and none starts a line."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or 1e-3 <= abs(value) < 1e5 else f"{value:.3g}"
    return one_line(str(value))


def as_document(found: Mapping[str, Any]) -> str:
    """One JSON document, in ASCII so that no terminal and no pipe takes it amiss."""
    return json.dumps(plain(found), indent=1, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """A result as JSON holds it: numbers as numbers (null where not finite), tables as lists of objects."""
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, Rows):
        return plain(value.records())
    if hasattr(value, "to_dict"):  # a pandas table
        return plain(value.to_dict("records"))
    if hasattr(value, "tolist"):  # of numpy
        return plain(value.tolist())
    return plain(_fields(value)) if is_dataclass(value) and not isinstance(value, Feature) else str(value)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}
