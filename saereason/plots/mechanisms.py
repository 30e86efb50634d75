"""Mechanisms side by side: how alike they are, when and where they act, what an adapter changed, and pass@k."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from plotly.graph_objects import Figure, Heatmap, Scatter
from plotly.subplots import make_subplots
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from saereason.mechanisms import Overlap
from saereason.stats import Estimate

from .look import BLUE, LAYERS, VERMILLION, by_layer, counted, framed, label, wrapped

SCALE = [[0.0, VERMILLION], [0.5, "rgba(128, 128, 128, 0.06)"], [1.0, BLUE]]
COLOURS = (BLUE, VERMILLION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot")


def plot_overlaps(overlaps: Mapping[tuple[str, str], Overlap], *, n: int | None = None) -> Figure:
    """Mechanism × mechanism: the cosine of their changes of features, those that are alike next to each other.

    `n` items were compared. Raises ValueError without any.
    """
    names = list(dict.fromkeys(name for pair in overlaps for name in pair))
    if len(names) < 2:
        raise ValueError("there are no two mechanisms to compare; give at least two.")
    values, chance = np.eye(len(names)), np.full((len(names), len(names)), np.nan)
    for (one, other), alike in overlaps.items():
        a, b = names.index(one), names.index(other)
        values[a, b] = values[b, a] = alike.cosine
        chance[a, b] = chance[b, a] = alike.cosine_by_chance
    order = clustered(values)
    shown = [label(names[n]) for n in order]
    values, chance = values[np.ix_(order, order)], chance[np.ix_(order, order)]
    heat = Heatmap(z=values.tolist(), x=shown, y=shown, zmin=-1, zmax=1, customdata=chance.tolist(), colorscale=SCALE)
    heat.update(colorbar={"title": "cosine", "thickness": 12})
    heat.update(hovertemplate="%{y}, %{x}: %{z:.2f} (chance %{customdata:.2f})<extra></extra>")
    figure = Figure(heat)
    figure.update_xaxes(tickangle=-60, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    said = (
        f"{counted(n)}Each change is measured on another half of the items. Rows are in the order of average linkage. "
        "No intervals; under the pointer, the 95th percentile of chance."
    )
    return framed(figure, "Do they change the same features?", said, height=260 + 20 * len(names))


def clustered(values: Float[np.ndarray, "name name"]) -> list[int]:
    """An order in which what is alike is near: average linkage of `1 − cosine`, leaves in the best order."""
    if len(values) < 3:
        return list(range(len(values)))
    distance = np.clip(1 - (values + values.T) / 2, 0, 2)
    np.fill_diagonal(distance, 0)
    flat = squareform(distance, checks=False)
    return [int(n) for n in leaves_list(optimal_leaf_ordering(linkage(flat, "average"), flat))]


def plot_through_steps(
    found: Mapping[str, Float[np.ndarray, "window sae"]],
    windows: Sequence[tuple[int, int]],
    layers: Sequence[int],
    *,
    n: int | None = None,
) -> Figure:
    """Mechanism × decoding step, a panel a layer: how far along the CoT prompt's change each is there.

    Means are over `n` items. Raises ValueError without any mechanism.
    """
    if not found:
        raise ValueError("no mechanism was followed step by step; there is nothing to plot.")
    steps = ["last of the prompt" if a < 0 else str(a) if a == b else f"{a} to {b}" for a, b in windows]
    figure = make_subplots(
        rows=len(layers),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.1 / len(layers),
        subplot_titles=[f"layer {layer}" for layer in layers],
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    names = [label(name) for name in found]
    for row, layer in enumerate(layers, 1):
        values = np.stack([each[:, row - 1] for each in found.values()])
        heat = Heatmap(z=values.tolist(), x=steps, y=names, zmin=-1, zmax=1, colorscale=SCALE, showscale=row == 1)
        heat.update(colorbar={"title": "cosine", "thickness": 12})
        heat.update(hovertemplate=f"%{{y}}, step %{{x}}, layer {layer}: %{{z:.2f}}<extra></extra>")
        figure.add_trace(heat, row, 1)
        figure.update_yaxes(autorange="reversed", showgrid=False, row=row, col=1)
    figure.update_xaxes(type="category")
    figure.update_xaxes(title_text="decoding step", row=len(layers), col=1)
    said = (
        f"{counted(n)}Cosine of the change of features at these steps with the CoT prompt's change over whole "
        "answers. Blank: no answer is so long. No intervals."
    )
    height = 160 + (22 * len(names) + 44) * len(layers)
    return framed(figure, "When and where each sets in", said, height=height)


def plot_weights(
    weights: Float[np.ndarray, "layer"], moved: Float[np.ndarray, "layer"], *, n: int | None = None
) -> Figure:
    """By layer, how far an adapter's weights are from the base's, and how far it moves the residual stream.

    The latter on the answers to `n` items.
    """
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.16, subplot_titles=["weights", "residual stream"]
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    layers = list(range(len(weights)))
    for row, (values, colour) in enumerate(((weights, VERMILLION), (moved, BLUE)), 1):
        line = Scatter(x=layers, y=values.tolist(), mode="lines+markers", line={"color": colour}, showlegend=False)
        line.update(hovertemplate="layer %{x}: %{y:.4f}<extra></extra>")
        figure.add_trace(line, row, 1)
        figure.update_yaxes(title_text="relative change", rangemode="tozero", row=row, col=1)
    by_layer(figure, layers)
    figure.update_xaxes(title_text=None, row=1, col=1)
    figure.update_xaxes(title_text=LAYERS, row=2, col=1)
    said = (
        f"{counted(n)}How far each block's weights moved, and the residual stream after it where both read what the "
        "adapter wrote. No intervals."
    )
    return framed(figure, "Weight change beside effect", said, height=420)


def plot_pass_at_k(samples: Mapping[str, Mapping[int, Estimate]], *, n: int | None = None) -> Figure:
    """The chance that one of k samples is right, with 95% intervals over n items; a line an arm."""
    figure = Figure()
    for place, (name, points) in enumerate(samples.items()):
        ks, values = list(points), [points[k].value for k in points]
        ends = [[points[k].high - points[k].value for k in points], [points[k].value - points[k].low for k in points]]
        line = Scatter(x=ks, y=values, mode="lines+markers", name=wrapped(name, 40))
        line.update(line={"color": COLOURS[place % len(COLOURS)], "dash": DASHES[place % len(DASHES)]})
        line.update(error_y={"array": ends[0], "arrayminus": ends[1], "width": 0, "thickness": 1.5})
        line.update(hovertemplate="k = %{x}: %{y:.3f}")
        figure.add_trace(line)
    figure.update_xaxes(title_text="k (samples)", type="log", tickvals=[1, 2, 4, 8, 16], dtick=None)
    figure.update_yaxes(title_text="pass@k", range=[0, 1])
    said = (
        f"{counted(n)}Unbiased (Chen et al. 2021); bars: 95% bootstrap intervals over items. Lines that cross: "
        "training makes right answers likelier, not possible."
    )
    return framed(figure, "One of k samples is right", said, height=400)
