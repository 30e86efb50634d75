"""Accuracies by arm, and the quality of SAEs."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from plotly.graph_objects import Bar, Figure, Scatter
from plotly.subplots import make_subplots

from saereason.quality import Quality
from saereason.stats import Estimate

from .look import BLUE, VERMILLION, bars, by_layer, counted, framed, label, small, wrapped


def plot_accuracy(
    arms: Sequence[tuple[str, Estimate, Sequence[float]]],
    *,
    n: int | None = None,
    interval: str = "the 95% interval of each estimate",
) -> Figure:
    """Accuracy with its interval for each arm, a row each from the top; an arm's draws are small dots on its row.

    `n` items an arm, and what the estimates' interval is, are said below the title.
    """
    if not arms:
        raise ValueError("there are no arms to plot; give at least one name with its accuracy and draws.")
    value, low, high = (np.array([getattr(e, end) for _, e, _ in arms]) for end in ("value", "low", "high"))
    points = Scatter(x=value.tolist(), y=list(range(len(arms))), mode="markers", name="accuracy, with its interval")
    points.update(marker={"color": BLUE, "size": 10}, error_x=bars(value, low, high), hoverinfo="text")
    points.update(hovertext=[f"{label(name)}: {estimate}" for name, estimate, _ in arms])
    figure = Figure(points)
    dots = [(x, row + place) for row, (_, _, draws) in enumerate(arms) for x, place in _stacked(draws)]
    if dots:
        marker = {"color": VERMILLION, "size": 6, "symbol": "diamond", "opacity": 0.8}
        x, y = zip(*dots, strict=True)
        figure.add_scatter(x=x, y=y, mode="markers", marker=marker, name="one draw", hovertemplate="%{x:.3f}")
    rows = [f"{wrapped(name, 20, lines=3)}<br>{small(str(estimate))}" for name, estimate, _ in arms]
    figure.update_yaxes(tickvals=list(range(len(arms))), ticktext=rows, range=[len(arms) - 0.4, -0.6])
    figure.update_yaxes(showgrid=False, zeroline=False)
    figure.update_xaxes(title_text="accuracy (share of items right)")
    figure.update_xaxes(range=[-0.01, min(1.03, 1.08 * max([*high, *(x for x, _ in dots)]) + 0.01)])
    framed(figure, "Accuracy by arm", f"{counted(n, 'items an arm')}Bars: {interval}.", height=110 + 58 * len(arms))
    return figure.update_layout(showlegend=bool(dots))


def plot_quality(qualities: Sequence[Quality]) -> Figure:
    """Explained variance, loss recovered and the share of dead features, one above the other, by layer."""
    if not qualities:
        raise ValueError("there are no qualities to plot; give at least one, as `evaluate_saes` returns them.")
    ordered = sorted(qualities, key=lambda quality: quality.layer)
    panels = {
        "explained variance": [quality.explained_variance for quality in ordered],
        "loss recovered": [quality.loss_recovered for quality in ordered],
        "dead features (share)": [quality.dead for quality in ordered],
    }
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.1, subplot_titles=list(panels))
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    for row, (name, values) in enumerate(panels.items(), 1):
        line = Scatter(x=[q.layer for q in ordered], y=values, name=name, hovertemplate="layer %{x}: %{y:.3f}")
        figure.add_trace(line.update(mode="lines+markers", line={"color": BLUE, "width": 1.5}), row, 1)
        figure.update_yaxes(range=[min(0.0, *values) - 0.05, max(1.0, *values) + 0.05], row=row, col=1)
    by_layer(figure, [quality.layer for quality in ordered], "xaxis3")
    framed(
        figure, "How good the SAEs are", f"Measured once on {ordered[0].n_tokens:,} tokens; no intervals.", height=580
    )
    return figure.update_layout(showlegend=False)


def plot_firing(qualities: Sequence[Quality]) -> Figure:
    """How often features fire: a histogram of log10 firing rates for each layer, with the dead share named."""
    if not qualities:
        raise ValueError("there are no qualities to plot; give at least one, as `evaluate_saes` returns them.")
    ordered = sorted(qualities, key=lambda quality: quality.layer)
    alive = [np.log10(quality.firing_rate[quality.firing_rate > 0]) for quality in ordered]
    lowest = math.floor(min([-2.0, *(rates.min() for rates in alive if len(rates))]))
    edges = np.linspace(lowest, 0, 5 * -lowest + 1)
    shares = [np.histogram(rates, edges)[0] / len(q.firing_rate) for q, rates in zip(ordered, alive, strict=True)]
    names = [f"layer {quality.layer}: {quality.dead:.1%} dead" for quality in ordered]
    panel, gap = 76, 36  # pixels
    drawn = panel * len(ordered) + gap * (len(ordered) - 1)
    figure = make_subplots(
        rows=len(ordered), cols=1, shared_xaxes=True, vertical_spacing=gap / drawn, subplot_titles=names
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    ends = [f"{10**low:.2g} to {10**high:.2g}" for low, high in pairwise(edges)]
    for row, (name, share) in enumerate(zip(names, shares, strict=True), 1):
        bar = Bar(x=((edges[:-1] + edges[1:]) / 2).tolist(), y=share.tolist(), name=name, customdata=ends)
        bar.update(marker={"color": BLUE, "line_width": 0})
        figure.add_trace(bar.update(hovertemplate="%{y:.1%} of features fire on %{customdata} of tokens"), row, 1)
    decades = list(range(lowest, 1))
    figure.update_xaxes(tickvals=decades, ticktext=[f"{10.0**n:g}" for n in decades], range=[lowest, 0])
    figure.update_xaxes(title_text="firing rate (share of tokens, log scale)", row=len(ordered), col=1)
    figure.update_yaxes(range=[0, 1.1 * max(0.01, *(share.max() for share in shares))], tickformat=".0%", nticks=3)
    said = (
        f"Share of features by firing rate on {ordered[0].n_tokens:,} tokens. Dead features fired on none. Counts, "
        "without intervals."
    )
    framed(figure, "How often the features fire", said, height=drawn + 56)
    return figure.update_layout(showlegend=False, bargap=0.08)


def _stacked(draws: Sequence[float]) -> list[tuple[float, float]]:
    """Each draw with its place below the middle of the row; equal ones one below the other."""
    most = max(Counter(draws).values(), default=1)
    seen: Counter[float] = Counter()
    places = []
    for x in draws:
        places.append((float(x), 0.17 + min(0.09, 0.3 / most) * seen[x]))
        seen[x] += 1
    return places
