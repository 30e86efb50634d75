"""Depth centroids of families, and operators side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from plotly.graph_objects import Figure, Heatmap, Scatter
from plotly.subplots import make_subplots

from saereason.layers import Curve, KindFinding, shares
from saereason.layers.finding import Shares, trouble_of

from .look import BLUE, VERMILLION, bars, by_layer, framed, label, wrapped

LOOKS = {"reasoning": (BLUE, "circle"), "knowledge": (VERMILLION, "diamond")}
SCALE = [[0.0, "rgba(213, 94, 0, 0.9)"], [0.5, "rgba(128, 128, 128, 0.06)"], [1.0, "rgba(0, 114, 178, 0.9)"]]


def plot_centroids(findings: Sequence[KindFinding], *, n_items: Mapping[tuple[str, str], int] | None = None) -> Figure:
    """A row for each family, a panel for each operator: depth centroids with 95% intervals over items.

    `n_items` of an operator and family stand beside the family's name. Raises ValueError without findings, and where no
    family has an effect to share out.
    """
    shown = [finding for finding in findings if finding.centroids]
    if not shown:
        raise ValueError("no finding has a family with an effect to share out; there is nothing to plot.")
    titles = [f"{f.operator}: p = {f.p:.3f}" if np.isfinite(f.p) else f"{f.operator}: too few families" for f in shown]
    figure = make_subplots(
        rows=len(shown), cols=1, shared_xaxes=True, vertical_spacing=0.12 / len(shown), subplot_titles=titles
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    rows = 0
    for n, finding in enumerate(shown, 1):
        order = sorted(finding.centroids, key=lambda name: (finding.kinds[name] != "reasoning", name))
        rows += len(order)
        for kind, (colour, symbol) in LOOKS.items():
            names = [name for name in order if finding.kinds[name] == kind]
            if not names:
                continue
            value, low, high = (np.array([finding.centroids[name][k] for name in names]) for k in range(3))
            points = Scatter(
                x=value.tolist(), y=[_counted(finding, name, n_items) for name in names], mode="markers", name=kind
            )
            points.update(marker={"color": colour, "size": 9, "symbol": symbol}, error_x=bars(value, low, high))
            points.update(showlegend=n == 1, legendgroup=kind, customdata=np.stack([low, high], axis=-1).tolist())
            points.update(hovertemplate="%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>")
            figure.add_trace(points, n, 1)
        figure.update_yaxes(autorange="reversed", showgrid=False, row=n, col=1)
    figure.update_xaxes(title_text="depth centroid (0 the first layer, 1 the last)", row=len(shown), col=1)
    said = (
        "Mean depth weighted with signed shares of the effect; bars: 95% bootstrap intervals over items; "
        "p: over families, by permutation, each operator by itself."
    )
    return framed(figure, "At which depth each family is served", said, height=150 + 26 * rows + 40 * len(shown))


def plot_operators(curves: Sequence[Curve]) -> Figure:
    """Operator × layer for reasoning less knowledge: mean signed share of the families of a kind.

    Families without a total effect have no shares to speak of and are left out; an operator without families of both
    kinds is left blank. Intervals, over the items of these families, are under the pointer. Raises ValueError without
    curves of both kinds.
    """
    if not {"reasoning", "knowledge"} <= {curve.kind for curve in curves}:
        raise ValueError("there are no curves of reasoning and of knowledge; give curves of both kinds.")
    rows: dict[str, np.ndarray] = {}
    layers = sorted({layer for curve in curves for layer in curve.layers})
    found = [(curve, shares(curve, seed=n)) for n, curve in enumerate(curves)]
    able = [(curve, each) for curve, each in found if not trouble_of(curve, each)]
    for operator in dict.fromkeys(curve.operator for curve in curves):
        sides = [
            [_on(layers, *pair) for pair in able if (pair[0].operator, pair[0].kind) == (operator, k)] for k in LOOKS
        ]
        means = [np.mean(side, axis=0) if side else np.full((1, len(layers)), np.nan) for side in sides]
        difference = means[0] - means[1]
        ends = np.quantile(difference[1:], [0.025, 0.975], axis=0) if all(sides) else np.tile(difference[:1], (2, 1))
        rows[f"{operator} (n = {len(sides[0])} + {len(sides[1])})"] = np.stack([difference[0], *ends])
    values, low, high = np.stack(list(rows.values()), axis=1)
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    heat = Heatmap(z=values.tolist(), x=layers, y=[wrapped(name, 22) for name in rows], zmin=-most, zmax=most)
    heat.update(colorscale=SCALE, colorbar={"title": "share", "thickness": 12})
    heat.update(customdata=np.stack([low, high], axis=-1).tolist())
    told = "%{y}, layer %{x}: %{z:+.3f} [%{customdata[0]:+.3f}, %{customdata[1]:+.3f}]<extra></extra>"
    heat.update(hovertemplate=told)
    figure = Figure(heat)
    by_layer(figure, layers)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    said = (
        "Difference of mean signed shares of the total effect; n: families of reasoning and of knowledge. Under the "
        "pointer: 95% bootstrap intervals over items. Blue: more of reasoning's; red: more of knowledge's."
    )
    if blank := [name.rpartition(" (n")[0] for name, row in rows.items() if not np.isfinite(row[0]).any()]:
        said += f" Without an effect of both kinds to share out: {', '.join(blank)}."
    return framed(figure, "Reasoning less knowledge, by operator", said, height=150 + 42 * len(rows))


def _counted(finding: KindFinding, family: str, n_items: Mapping[tuple[str, str], int] | None) -> str:
    return label(family if n_items is None else f"{family} (n = {n_items[finding.operator, family]})")


def _on(layers: Sequence[int], curve: Curve, found: Shares) -> np.ndarray:
    """The curve's shares at these layers and in every draw, NaN where it has none: `[1 + draw, layer]`."""
    at = [curve.layers.index(layer) if layer in curve.layers else -1 for layer in layers]
    values = np.concatenate([found.value[None], found.draws])
    return np.where(np.array(at) >= 0, values[:, at], np.nan)
