"""A run as one HTML page that needs nothing but itself: no network, no other file."""

import hashlib
import html
import math
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from urllib.parse import quote

from . import plots
from .runs import installed, write_text
from .stats import Estimate

Cell = str | int | float | Real | Estimate | None


@dataclass(frozen=True)
class Table:
    """Rows under a header. Columns of figures are set to the right; None shows as a dash."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for n, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ValueError(f"row {n} of {self.title!r} has {len(row)} cells; the header has {len(self.header)}.")


@dataclass(frozen=True, eq=False)
class Figure:
    """A plotly figure, as the functions in `plots` return it."""

    title: str
    figure: plots.Figure
    caption: str = ""


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    title: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class SideBySide:
    """Pairs of texts, such as a model's answers with and without an edit."""

    title: str
    labels: tuple[str, str]
    items: tuple[tuple[str, str, str, str], ...]
    """Question, left text, right text and note of each."""


@dataclass(frozen=True)
class Code:
    """Text whose every line and space counts."""

    title: str
    text: str


@dataclass(frozen=True)
class Link:
    """Another page of the run, which lies beside this one."""

    title: str
    file: str
    text: str


Section = Table | Figure | Text | SideBySide | Code | Link


@dataclass(frozen=True, eq=False)
class Page:
    """What a report says. Every text may be hostile: it is shown as it is and never becomes part of the page."""

    title: str

    lead: str
    """One paragraph in plain words."""

    sections: tuple[Section, ...]


def write_report(run_folder: Path, page: Page) -> Path:
    """Write `report.html` in a run's folder, whole or not at all, and return its path."""
    path = run_folder / "report.html"
    write_text(path, _html(page))
    return path


def _html(page: Page) -> str:
    """The same page gives the same bytes."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf8")
    script = plots.plotly_script() if any(isinstance(section, Figure) for section in page.sections) else ""
    bodies = "\n".join(_section(section, f"section-{n}") for n, section in enumerate(page.sections, 1))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(plots.visible(page.title))}</title>
<style>
{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<h1>{_shown(page.title)}</h1>
<p class="lead">{_shown(page.lead)}</p>
{_contents(page.sections)}</header>
<main id="content" tabindex="-1">
{bodies}
</main>
<footer><p>Written by saereason {html.escape(installed("saereason") or "")}. This page loads nothing else.</p></footer>
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""


def _policy(script: str) -> str:
    """Forbids all loading, and every script but this one."""
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"script-src 'sha256-{digest}'" if script else "script-src 'none'"
    return (
        f"default-src 'none'; {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _contents(sections: Sequence[Section]) -> str:
    if len(sections) <= 3:
        return ""
    links = "\n".join(f'<li><a href="#section-{n}">{_shown(s.title)}</a></li>' for n, s in enumerate(sections, 1))
    return f'<nav aria-label="Contents">\n<ol>\n{links}\n</ol>\n</nav>\n'


def _section(section: Section, id_: str) -> str:
    match section:
        case Table():
            body = _table(section)
        case Figure():
            drawn = plots.figure_html(section.figure, f"{id_}-figure", label=section.title)
            body = f"<figure>\n{drawn}\n{_optional('figcaption', section.caption)}</figure>"
        case Text():
            body = "\n".join(f"<p>{_shown(paragraph)}</p>" for paragraph in section.paragraphs)
        case SideBySide():
            body = "\n".join(_pair(section.labels, item) for item in section.items)
        case Code():
            body = f"{_scroller('pre', section.title)}<code>{_shown(section.text)}</code></pre>"
        case Link():
            beside = quote(section.file, safe="", errors="replace")
            body = f'<p><a href="{html.escape(beside)}">{_shown(section.text)}</a></p>'
    return f'<section id="{id_}">\n<h2>{_shown(section.title)}</h2>\n{body}\n</section>'


def _pair(labels: tuple[str, str], item: tuple[str, str, str, str]) -> str:
    question, *texts, note = item
    sides = "\n".join(
        f'<div><h4>{_shown(label)}</h4>\n<div class="text" dir="auto">{_shown(text)}</div></div>'
        for label, text in zip(labels, texts, strict=True)
    )
    return (
        f'<article>\n<h3 dir="auto">{_shown(question)}</h3>\n<div class="pair">\n{sides}\n</div>\n'
        f"{_optional('p', note)}</article>"
    )


def _table(table: Table) -> str:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.header)
    right = [_numeric(column) for column in columns]
    head = _cells("th", table.header, right, ' scope="col"')
    rows = "\n".join(f"<tr>{_cells('td', row, right)}</tr>" for row in table.rows)
    return (
        f"{_scroller('div', table.title)}\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n"
        f"</table>\n</div>\n{_optional('p', table.note)}"
    )


def _cells(tag: str, cells: Iterable[Cell], right: Sequence[bool], attributes: str = "") -> str:
    told = [(_cell(cell), numeric) for cell, numeric in zip(cells, right, strict=True)]
    classes = ["number" if numeric else "long" if len(text) > 28 else "short" for text, numeric in told]
    return "".join(
        f'<{tag}{attributes} class="{class_}">{_shown(text)}</{tag}>'
        for (text, _), class_ in zip(told, classes, strict=True)
    )


def _numeric(column: Iterable[Cell]) -> bool:
    """Whether a column holds figures: numbers, or texts that begin and end as numbers do."""
    told = [_cell(cell) for cell in column if cell not in (None, "")]
    return bool(told) and all(
        re.fullmatch(r"–|[-+−<>≤≥ ]*\.?\d[\d.,eE+−\[\]()%/× -]*|nan|-?inf", text) for text in told
    )


def _cell(cell: Cell) -> str:
    """A cell's text: whole numbers in full, others with three decimals, or in powers of ten where those say nothing."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, Integral):
        return f"{int(cell):,}"
    if isinstance(cell, Real):
        value = float(cell)
        tiny = math.isfinite(value) and 0 < abs(value) < 5e-4
        return f"{value:.1e}" if tiny else f"{value:,.3f}"
    return str(cell)


def _scroller(tag: str, title: str) -> str:
    """Opens an element that scrolls within itself and that the keyboard reaches."""
    return f'<{tag} class="scroller" tabindex="0" role="region" aria-label="{html.escape(plots.visible(title))}">'


def _optional(tag: str, text: str) -> str:
    return f'<{tag} class="note">{_shown(text)}</{tag}>\n' if text else ""


def _shown(text: str) -> str:
    """Text as HTML, kept apart from the direction of what is around it, its hidden characters as marks."""
    mark = '<span class="mark">&lt;U+{:04X}&gt;</span>'
    return f"<bdi>{plots.visible(html.escape(text), mark)}</bdi>"
