"""The look that all figures share, and text as plotly shows it."""

import html
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from plotly.graph_objects import Figure

from saereason.visible import visible

LAYERS = "layer (residual after the block, counted from 0)"
INK, RULE, CLEAR = "#444444", "rgba(128, 128, 128, 0.25)", "rgba(0, 0, 0, 0)"
BLUE, VERMILLION = "#0072B2", "#D55E00"


def framed(figure: Figure, title: str, said: str = "", *, height: int = 420) -> Figure:
    """The figure with its title and subtitle, which wrap where a telephone ends, and the look all figures share."""
    heading, below = wrapped(title, 44), wrapped(said, 52)
    lines = heading.count("<br>") + 1 + (below.count("<br>") + 1 if said else 0)
    top = 32 + 20 * lines
    text = f"{heading}<br>{small(below)}" if said else heading
    lift = 18 if lines > 1 else 8  # plotly sets a title of several lines higher than one of one line
    figure.update_layout(
        template="none",
        height=height + top,
        margin={"l": 62, "r": 12, "t": top, "b": 56},
        font={"family": "system-ui, sans-serif", "size": 12.5, "color": INK},
        title={"text": text, "font_size": 15, "x": 0, "xref": "container", "y": 1, "yanchor": "top", "pad_t": lift},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        hovermode="closest",
        hoverlabel={"bgcolor": "#222222", "bordercolor": "#222222", "font_color": "#ffffff", "namelength": -1},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
    )
    figure.update_xaxes(gridcolor=RULE, title_font_size=13, title_standoff=10, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=RULE, title_font_size=13, zerolinecolor="#888888", zerolinewidth=1.5, automargin=True)
    return figure


def by_layer(figure: Figure, layers: Sequence[int], axis: str = "xaxis") -> None:
    """Name the axis of layers, and mark whole layers only."""
    step = next((step for step in (1, 2, 5, 10) if layers[-1] - layers[0] <= 8 * step), 20)
    figure.update_xaxes({"tickvals": list(layers)} if len(layers) <= 8 else {"dtick": step})
    figure.update_layout({axis: {"title_text": LAYERS}})


def counted(n: int | None, what: str = "items") -> str:
    """How many, as the beginning of a subtitle; nothing where it is not known."""
    return "" if n is None else f"{n:,} {what}. "


def bars(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    return {"array": (high - value).tolist(), "arrayminus": (value - low).tolist(), "width": 0, "thickness": 1.8}


def label(text: str) -> str:
    """Text as plotly shows it: no tag, no entity and no hidden character takes effect."""
    return html.escape(visible(text), quote=False)


def wrapped(text: str, width: int, lines: int | None = None) -> str:
    broken = textwrap.wrap(visible(text), width, max_lines=lines, placeholder=" …")
    return "<br>".join(label(line) for line in broken)


def small(text: str) -> str:
    return f'<span style="font-size: 11.5px">{text}</span>'
