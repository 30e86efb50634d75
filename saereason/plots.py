"""Figures of layer curves, accuracies and SAE quality; the only file that knows plotly. Nothing here shows or saves.

Figures have no background of their own and colours that show on light and dark pages; `report.css` recolours the rest.
"""

import html
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from plotly.graph_objects import Figure, Scatter
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from .layers import Curve, Finding, share_difference
from .quality import Quality
from .stats import Estimate, bootstrap_bands

LAYERS = "layer (residual after the block, counted from 0)"
INK, RULE = "#444444", "rgba(128, 128, 128, 0.25)"
BLUE, VERMILLION = "#0072B2", "#D55E00"
LOOKS = {
    "reasoning": ("solid", (BLUE, "#56B4E9"), ("circle", "square", "circle-open", "square-open")),
    "knowledge": ("dash", (VERMILLION, "#E69F00"), ("diamond", "triangle-up", "diamond-open", "triangle-up-open")),
    "neutral": ("dot", ("#888888",), ("x", "cross", "x-open", "cross-open")),
}
"""By kind: the dash of the line, and the colours (Okabe and Ito 2008) and markers that its families take in turn."""

MOST = 3.0
"""Layers that reach this many times as far as the others are left off the scale."""

INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""What shows nothing and yet is no control or format character to Unicode."""


def plot_layers(curves: Sequence[Curve], *, level: float = 0.95) -> Figure:
    """Mean drop in log-probability by layer for each family, with bands that hold a whole curve with this probability.

    A layer that costs several times as much as any other (layer 0 of small models does) is left off the scale, and the
    subtitle gives its values. Raises ValueError without curves, and for curves of more than one operator.
    """
    operators = sorted({curve.operator for curve in curves})
    if len(operators) != 1:
        raise ValueError(f"there are {len(curves)} curves of the operators {operators}; give those of one.")
    layers = sorted({layer for curve in curves for layer in curve.layers})
    bands = [bootstrap_bands(curve.drop, level=level) for curve in curves]
    reach = {n: max((_reach(c, b, n) for c, b in zip(curves, bands, strict=True)), key=abs) for n in layers}
    beyond = _beyond(reach)
    figure = Figure()
    for curve, band, look in zip(curves, bands, _looks(curves), strict=True):
        figure.add_traces(_curve(curve, band, look))
    ends = [end[n] for c, band in zip(curves, bands, strict=True) for end in band for n in _within(c, beyond)]
    _scale(figure, ends, beyond)
    _by_layer(figure, layers)
    figure.update_yaxes(title_text="drop in log-probability, nats per token")
    said = [f"Mean over items, with simultaneous {level:.0%} bootstrap bands."]
    for layer in beyond:
        costs = [(c.family, c.drop.mean(axis=0)[c.layers.index(layer)]) for c in curves if layer in c.layers]
        said.append(f"Off the scale: layer {layer} ({_told(costs)}).")
    title = f"What each layer is worth: {operators[0]}"
    return _framed(figure, title, " ".join(said), height=340 + 32 * len(curves))


def plot_share_difference(first: Curve, second: Curve, finding: Finding) -> Figure:
    """Difference of two families' signed shares of the total effect by layer, with pointwise 95% intervals.

    Open points are layers that the finding leaves out. Raises ValueError unless it is about these curves, and for
    curves over different layers.
    """
    families = (first.family, second.family)
    if finding.families != families:
        raise ValueError(
            f"the finding is about {finding.families} and the curves are of {families}; give the curves that "
            "`compare_depth` was given, in that order."
        )
    value, low, high = share_difference(first, second)
    beyond = _beyond({n: _reach(first, (low, high), n) for n in first.layers})
    symbols = ["circle-open" if layer in finding.layers_left_out else "circle" for layer in first.layers]
    points = _points(first.layers, value, low, high).update(mode="markers", error_y=_bars(value, low, high))
    points.update(marker={"color": BLUE, "size": 8, "symbol": symbols, "line": {"width": 1.5, "color": BLUE}})
    figure = Figure(points)
    _scale(figure, [end[n] for end in (low, high) for n in _within(first, beyond)], beyond)
    _by_layer(figure, first.layers)
    figure.update_yaxes(title_text="difference of signed shares")
    said = [finding.statement, "Bars: pointwise 95% intervals."]
    if finding.layers_left_out:
        said.append(
            f"Open points are left out of the centroids (layer {', '.join(map(str, finding.layers_left_out))})."
        )
    for layer in beyond:
        n = first.layers.index(layer)
        said.append(f"Off the scale: layer {layer} ({Estimate(value[n], low[n], high[n])}).")
    return _framed(figure, f"Share of the total effect: {first.family} minus {second.family}", " ".join(said))


def plot_accuracy(arms: Sequence[tuple[str, Estimate, Sequence[float]]]) -> Figure:
    """Accuracy with its interval for each arm, a row each from the top; an arm's draws are small dots on its row."""
    if not arms:
        raise ValueError("there are no arms to plot; give at least one name with its accuracy and draws.")
    value, low, high = (np.array([getattr(e, end) for _, e, _ in arms]) for end in ("value", "low", "high"))
    points = Scatter(x=value.tolist(), y=list(range(len(arms))), mode="markers", name="accuracy, with its interval")
    points.update(marker={"color": BLUE, "size": 10}, error_x=_bars(value, low, high), hoverinfo="text")
    points.update(hovertext=[f"{_label(name)}: {estimate}" for name, estimate, _ in arms])
    figure = Figure(points)
    dots = [(x, row + place) for row, (_, _, draws) in enumerate(arms) for x, place in _stacked(draws)]
    if dots:
        marker = {"color": VERMILLION, "size": 6, "symbol": "diamond", "opacity": 0.8}
        x, y = zip(*dots, strict=True)
        figure.add_scatter(x=x, y=y, mode="markers", marker=marker, name="one draw", hovertemplate="%{x:.3f}")
    rows = [f"{_wrapped(name, 20, lines=3)}<br>{_small(str(estimate))}" for name, estimate, _ in arms]
    figure.update_yaxes(tickvals=list(range(len(arms))), ticktext=rows, range=[len(arms) - 0.4, -0.6])
    figure.update_yaxes(showgrid=False, zeroline=False)
    figure.update_xaxes(title_text="accuracy (share of items right)")
    figure.update_xaxes(range=[-0.01, min(1.03, 1.08 * max([*high, *(x for x, _ in dots)]) + 0.01)])
    _framed(figure, "Accuracy by arm", height=110 + 58 * len(arms))
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
    _by_layer(figure, [quality.layer for quality in ordered], "xaxis3")
    _framed(figure, "How good the SAEs are", f"Measured on {ordered[0].n_tokens:,} tokens.", height=580)
    return figure.update_layout(showlegend=False)


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


def visible(text: str, mark: str = "<U+{:04X}>") -> str:
    """Text in which control, zero-width and direction characters are marks that one can see."""
    return "".join(mark.format(ord(c)) if _hidden(c) else c for c in text)


def _hidden(c: str) -> bool:
    return c in INVISIBLE or (c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp"))


# curves


def _looks(curves: Sequence[Curve]) -> list[tuple[str, str, str]]:
    """Dash, colour and marker of each curve: the dash tells the kind, the marker the family."""
    found, seen = [], dict.fromkeys(LOOKS, 0)
    for curve in curves:
        dash, colours, symbols = LOOKS[curve.kind]
        n = seen[curve.kind]
        found.append((dash, colours[n % len(colours)], symbols[n % len(symbols)]))
        seen[curve.kind] += 1
    return found


def _curve(
    curve: Curve, band: tuple[Float[np.ndarray, "layer"], Float[np.ndarray, "layer"]], look: tuple[str, str, str]
) -> list[Scatter]:
    """The band and the mean of one family."""
    dash, colour, symbol = look
    low, high = band
    red, green, blue = bytes.fromhex(colour[1:])
    around = Scatter(
        x=[*curve.layers, *reversed(curve.layers)],
        y=[*high.tolist(), *low[::-1].tolist()],
        fill="toself",
        fillcolor=f"rgba({red}, {green}, {blue}, 0.18)",
        line_width=0,
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
    )
    line = _points(curve.layers, curve.drop.mean(axis=0), low, high)
    line.update(mode="lines+markers", name=_wrapped(f"{curve.family} ({curve.kind}, n = {len(curve.drop)})", 40))
    line.update(line={"color": colour, "dash": dash, "width": 2}, marker={"symbol": symbol, "size": 7})
    return [around.update(legendgroup=line.name), line.update(legendgroup=line.name)]


def _points(layers: Sequence[int], value: np.ndarray, low: np.ndarray, high: np.ndarray) -> Scatter:
    """Values by layer that tell their intervals to a pointer."""
    ends = np.stack([low, high], axis=-1).tolist()
    says = "%{fullData.name}<br>layer %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
    return Scatter(x=list(layers), y=value.tolist(), customdata=ends, hovertemplate=says, name="difference")


def _bars(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    return {"array": (high - value).tolist(), "arrayminus": (value - low).tolist(), "width": 0, "thickness": 1.8}


def _stacked(draws: Sequence[float]) -> list[tuple[float, float]]:
    """Each draw with its place below the middle of the row; equal ones one below the other."""
    most = max(Counter(draws).values(), default=1)
    seen: Counter[float] = Counter()
    places = []
    for x in draws:
        places.append((float(x), 0.17 + min(0.09, 0.3 / most) * seen[x]))
        seen[x] += 1
    return places


# what is on the scale


def _told(costs: Sequence[tuple[str, float]]) -> str:
    """What a layer costs each family, or between which values where there are many."""
    if len(costs) > 4:
        return f"{min(cost for _, cost in costs):.3g} to {max(cost for _, cost in costs):.3g}"
    return ", ".join(f"{family} {cost:.3g}" for family, cost in costs)


def _reach(curve: Curve, ends: Sequence[np.ndarray], layer: int) -> float:
    """The end of a layer's interval that is farther from zero."""
    return max((float(end[curve.layers.index(layer)]) for end in ends if layer in curve.layers), key=abs, default=0.0)


def _beyond(reach: dict[int, float]) -> dict[int, float]:
    """The layers to leave off the scale, at most one in eight: all reach `MOST` times as far as any that stays."""
    order = sorted(reach, key=lambda layer: -abs(reach[layer]))
    for count in range(max(len(order) // 8, int(len(order) > 3)), 0, -1):
        if abs(reach[order[count - 1]]) > MOST * abs(reach[order[count]]) > 0:
            return {layer: reach[layer] for layer in sorted(order[:count])}
    return {}


def _within(curve: Curve, beyond: Collection[int]) -> list[int]:
    """Positions in a curve of the layers that are on the scale."""
    return [n for n, layer in enumerate(curve.layers) if layer not in beyond]


def _by_layer(figure: Figure, layers: Sequence[int], axis: str = "xaxis") -> None:
    """Name the axis of layers, and mark whole layers only."""
    step = next((step for step in (1, 2, 5, 10) if layers[-1] - layers[0] <= 8 * step), 20)
    figure.update_xaxes({"tickvals": list(layers)} if len(layers) <= 8 else {"dtick": step})
    figure.update_layout({axis: {"title_text": LAYERS}})


def _scale(figure: Figure, ends: Sequence[float], beyond: dict[int, float]) -> None:
    """Set the y range to hold these ends and zero, and put an arrow where a layer is off it."""
    low, high = min(0.0, *ends), max(0.0, *ends)
    margin = 0.08 * (high - low)
    figure.update_yaxes(range=[low - margin, high + margin] if margin else None)
    for layer, reach in beyond.items():
        y, arrow = (1, "↑") if reach > 0 else (0, "↓")
        figure.add_annotation(x=layer, y=y, yref="paper", yanchor="bottom", showarrow=False, text=arrow)


# words


def _framed(figure: Figure, title: str, said: str = "", *, height: int = 420) -> Figure:
    """The figure with its title and subtitle, which wrap where a telephone ends, and the look all figures share."""
    heading, small = _wrapped(title, 44), _wrapped(said, 52)
    lines = heading.count("<br>") + 1 + (small.count("<br>") + 1 if said else 0)
    top = 32 + 20 * lines
    text = f"{heading}<br>{_small(small)}" if said else heading
    lift = 18 if lines > 1 else 8  # plotly sets a title of several lines higher than one of one line
    figure.update_layout(
        template="none",
        height=height + top,
        margin={"l": 62, "r": 12, "t": top, "b": 56},
        font={"family": "system-ui, sans-serif", "size": 12.5, "color": INK},
        title={"text": text, "font_size": 15, "x": 0, "xref": "container", "y": 1, "yanchor": "top", "pad_t": lift},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        hovermode="closest",
        hoverlabel={"bgcolor": "#222222", "bordercolor": "#222222", "font_color": "#ffffff", "namelength": -1},
        legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
    )
    figure.update_xaxes(gridcolor=RULE, title_font_size=13, title_standoff=10, zeroline=False, automargin=True)
    figure.update_yaxes(gridcolor=RULE, title_font_size=13, zerolinecolor="#888888", zerolinewidth=1.5, automargin=True)
    return figure


def _label(text: str) -> str:
    """Text as plotly shows it: no tag, no entity and no hidden character takes effect."""
    return html.escape(visible(text), quote=False)


def _wrapped(text: str, width: int, lines: int | None = None) -> str:
    broken = textwrap.wrap(visible(text), width, max_lines=lines, placeholder=" …")
    return "<br>".join(_label(line) for line in broken)


def _small(text: str) -> str:
    return f'<span style="font-size: 11.5px">{text}</span>'
