"""What each dose of a sweep does, and the damage beside it."""

import math
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from saereason.effects import Sweep
from saereason.stats import Estimate

from .look import BLUE, INK, VERMILLION, bars, framed, label

COLOURS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "circle-open", "diamond-open")
DASHES = ("solid", "dash", "dot", "dashdot")
WIDEST = 50.0
"""Sizes that differ by more than this factor are shown on a logarithmic axis."""

PANELS = {
    "accuracy": "accuracy, with 95% interval",
    "failed": "truncated or looping (share)",
    "tokens": "length of answers, tokens",
    "perplexity": "perplexity on plain text",
    "kl": "KL at the first edited step, nats",
}


def plot_dose(
    found: Sweep, *, sizes: Mapping[str, float] | None = None, unit: str = "the operator's own unit"
) -> Figure:
    """Accuracy by size for each target and choice of positions, with Wilson's intervals; below it, what else changes.

    The clean run is a dashed line. `sizes` gives the place of each arm on the axis, where that is not the size in the
    operator's own unit. Raises ValueError where no arm has a size.
    """
    table = found.summary().assign(failed=lambda t: t["truncated"] + t["looping"])
    clean, arms = table.iloc[0], table.iloc[1:]
    arms = arms.assign(
        size=[sizes.get(arm, math.nan) if sizes else size for arm, size in zip(arms["arm"], arms["size"], strict=True)]
    )
    arms = arms[np.isfinite(arms["size"].to_numpy(float))]
    if arms.empty:
        raise ValueError(
            "no arm of the sweep has a size; give arms of one intervention each, such as those of `doses`."
        )
    panels = [name for name in PANELS if np.isfinite(arms[name].to_numpy(float)).any()]
    figure = make_subplots(
        rows=len(panels),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.22 / len(panels),
        row_heights=[2.0, *[1.0] * (len(panels) - 1)],
        subplot_titles=[PANELS[name] for name in panels],
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    looks = zip(cycle(COLOURS), cycle(SYMBOLS), cycle(DASHES), strict=False)
    for (key, rows), look in zip(arms.groupby(["target", "when"], sort=False), looks, strict=False):
        for n, name in enumerate(panels, 1):
            line = _line(rows.sort_values("size"), name, label(" ".join(key)), look)
            figure.add_trace(line.update(showlegend=n == 1), n, 1)
    ends = [float(arms["size"].min()), float(arms["size"].max())]
    for n, name in enumerate(panels, 1):
        across = Scatter(x=ends, y=[clean[name]] * 2, mode="lines", name="clean", line={"color": INK, "dash": "dash"})
        figure.add_trace(across.update(showlegend=n == 1, hovertemplate="clean: %{y:.3f}"), n, 1)
    if ends[0] > 0 and ends[1] / ends[0] > WIDEST:
        figure.update_xaxes(type="log")
    figure.update_xaxes(title_text=f"size, in {unit}", row=len(panels), col=1)
    for n, name in enumerate(panels, 1):
        figure.update_yaxes(rangemode="normal" if name == "perplexity" else "tozero", row=n, col=1)
    said = f"{int(clean['n'])} items, the same for every arm; bars: Wilson's 95% intervals. Clean: {_estimate(clean)}."
    n_lines = arms.groupby(["target", "when"]).ngroups + 1
    return framed(figure, "Dose and response", said, height=200 + 130 * len(panels) + 24 * n_lines)


def _line(rows: Any, name: str, said: str, look: tuple[str, str, str]) -> Scatter:
    """One target's values by size."""
    colour, symbol, dash = look
    line = Scatter(x=rows["size"].tolist(), y=rows[name].tolist(), mode="lines+markers", name=said, legendgroup=said)
    line.update(line={"color": colour, "width": 1.5, "dash": dash}, marker={"symbol": symbol, "size": 8})
    if name == "accuracy":
        value, low, high = (rows[column].to_numpy(float) for column in ("accuracy", "accuracy_low", "accuracy_high"))
        line.update(error_y=bars(value, low, high))
    return line.update(hovertemplate="size %{x:.3g}: %{y:.3f}")


def _estimate(row: Any) -> Estimate:
    return Estimate(row["accuracy"], row["accuracy_low"], row["accuracy_high"])
