"""Figures in an HTML page."""

import html
from pathlib import Path

from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from saereason.runs import write_text
from saereason.visible import visible


def figure_html(figure: Figure, id_: str, *, label: str = "") -> str:
    """A figure as HTML that `plotly_script`, once and after it in the page, draws. `label` is for screen readers."""
    place = html.escape(id_)
    return (
        f'<div class="plot" id="{place}" role="img" aria-label="{html.escape(visible(label))}"></div>\n'
        f'<script type="application/json" data-figure="{place}">{figure.to_json()}</script>'
    )


def plotly_script() -> str:
    """JavaScript, always the same, that draws every `figure_html` of a page: plotly.js whole, and some lines more."""
    return get_plotlyjs() + "\n" + Path(__file__).with_name("plots.js").read_text(encoding="utf8")


def save_page(figure: Figure, path: Path) -> None:
    """Write a figure as a page of its own, which needs no network."""
    write_text(path, figure.to_html(include_plotlyjs=True))
