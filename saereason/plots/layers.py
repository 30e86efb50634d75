"""Curves over layers, and how two families' shares differ."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from plotly.graph_objects import Figure, Scatter

from saereason.layers import Curve, Finding, share_difference
from saereason.stats import Estimate, bootstrap_bands

from .look import BLUE, VERMILLION, bars, by_layer, framed, wrapped

LOOKS = {
    "reasoning": ("solid", (BLUE, "#56B4E9"), ("circle", "square", "circle-open", "square-open")),
    "knowledge": ("dash", (VERMILLION, "#E69F00"), ("diamond", "triangle-up", "diamond-open", "triangle-up-open")),
    "neutral": ("dot", ("#888888",), ("x", "cross", "x-open", "cross-open")),
}
"""By kind: the dash of the line, and the colours (Okabe and Ito 2008) and markers that its families take in turn."""

MOST = 3.0
"""Layers that reach this many times as far as the others are left off the scale."""


def plot_layers(curves: Sequence[Curve], *, level: float = 0.95) -> Figure:
    """Mean drop of the metric by layer for each family, with bands that hold a whole curve with this probability.

    A layer that costs several times as much as any other (layer 0 of small models does) is left off the scale, and the
    subtitle gives its values. Raises ValueError without curves, and for curves of more than one operator.
    """
    operators = sorted({curve.operator for curve in curves})
    if len(operators) != 1:
        raise ValueError(f"there are {len(curves)} curves of the operators {operators}; give those of one.")
    n_items = [len(curve.drop) for curve in curves]
    curves = [_finite(curve) for curve in curves]
    layers = sorted({layer for curve in curves for layer in curve.layers})
    bands = [bootstrap_bands(curve.drop, level=level) for curve in curves]
    reach = {n: max((_reach(c, b, n) for c, b in zip(curves, bands, strict=True)), key=abs) for n in layers}
    beyond = _beyond(reach)
    figure = Figure()
    for curve, band, look in zip(curves, bands, _looks(curves), strict=True):
        figure.add_traces(_curve(curve, band, look))
    ends = [end[n] for c, band in zip(curves, bands, strict=True) for end in band for n in _within(c, beyond)]
    _scale(figure, ends, beyond)
    by_layer(figure, layers)
    figure.update_yaxes(title_text=f"drop in {curves[0].unit}")
    said = [f"Mean over items, with simultaneous {level:.0%} bootstrap bands."]
    for curve, n in zip(curves, n_items, strict=True):
        if len(curve.drop) < n:
            said.append(f"Left out: {n - len(curve.drop)} items of {curve.family}, whose effects are not finite.")
    for layer in beyond:
        costs = [(c.family, c.drop.mean(axis=0)[c.layers.index(layer)]) for c in curves if layer in c.layers]
        said.append(f"Off the scale: layer {layer} ({_told(costs)}).")
    title = f"What each layer is worth: {operators[0]}"
    return framed(figure, title, " ".join(said), height=340 + 32 * len(curves))


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
    points = _points(first.layers, value, low, high).update(mode="markers", error_y=bars(value, low, high))
    points.update(name=f"difference (n = {len(first.drop)} and {len(second.drop)})")
    points.update(marker={"color": BLUE, "size": 8, "symbol": symbols, "line": {"width": 1.5, "color": BLUE}})
    figure = Figure(points)
    _scale(figure, [end[n] for end in (low, high) for n in _within(first, beyond)], beyond)
    by_layer(figure, first.layers)
    figure.update_yaxes(title_text="difference of signed shares")
    said = [finding.statement, "Bars: pointwise 95% bootstrap intervals over items."]
    if finding.layers_left_out:
        said.append(
            f"Open points are left out of the centroids (layer {', '.join(map(str, finding.layers_left_out))})."
        )
    for layer in beyond:
        n = first.layers.index(layer)
        said.append(f"Off the scale: layer {layer} ({Estimate(value[n], low[n], high[n])}).")
    return framed(figure, f"Share of the total effect: {first.family} minus {second.family}", " ".join(said))


def _finite(curve: Curve) -> Curve:
    """The curve over the items whose effects are all finite."""
    kept = np.isfinite(curve.drop).all(axis=1)
    return replace(curve, drop=curve.drop[kept], clean=curve.clean[kept])


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
    line.update(mode="lines+markers", name=wrapped(f"{curve.family} ({curve.kind}, n = {len(curve.drop)})", 40))
    line.update(line={"color": colour, "dash": dash, "width": 2}, marker={"symbol": symbol, "size": 7})
    return [around.update(legendgroup=line.name), line.update(legendgroup=line.name)]


def _points(layers: Sequence[int], value: np.ndarray, low: np.ndarray, high: np.ndarray) -> Scatter:
    """Values by layer that tell their intervals to a pointer."""
    ends = np.stack([low, high], axis=-1).tolist()
    says = "%{fullData.name}<br>layer %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
    return Scatter(x=list(layers), y=value.tolist(), customdata=ends, hovertemplate=says, name="difference")


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


def _scale(figure: Figure, ends: Sequence[float], beyond: dict[int, float]) -> None:
    """Set the y range to hold these ends and zero, and put an arrow where a layer is off it."""
    low, high = min(0.0, *ends), max(0.0, *ends)
    margin = 0.08 * (high - low)
    figure.update_yaxes(range=[low - margin, high + margin] if margin else None)
    for layer, reach in beyond.items():
        y, arrow = (1, "↑") if reach > 0 else (0, "↓")
        figure.add_annotation(x=layer, y=y, yref="paper", yanchor="bottom", showarrow=False, text=arrow)
