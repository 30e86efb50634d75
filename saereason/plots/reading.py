"""What can be read from each layer, and how alike states are, beside what both are for no reason at all."""

from collections.abc import Sequence

import numpy as np
from plotly.graph_objects import Figure, Scatter

from saereason.layers import Probed, Similarity
from saereason.stats import bootstrap_bands

from .layers import LOOKS
from .look import BLUE, by_layer, framed, wrapped

GREY, DASHES = "#888888", ("dash", "dot", "dashdot", "longdash")


def plot_probes(found: Sequence[Probed]) -> Figure:
    """By layer, how much more often each family's probe is right than the most frequent label; shuffled labels in grey.

    Raises ValueError without probes.
    """
    if not found:
        raise ValueError("no probe was fitted; there is nothing to plot.")
    figure, seen = Figure(), dict.fromkeys(LOOKS, 0)
    for each in found:
        dash, colours, symbols = LOOKS[each.kind]
        n, layers = seen[each.kind], list(range(each.n_layers))
        seen[each.kind] += 1
        above = each.right - each.usual[:, None]
        low, high = bootstrap_bands(above)
        line = Scatter(x=layers, y=above.mean(0).tolist(), mode="lines+markers", name=_name(each))
        line.update(line={"color": colours[n % len(colours)], "dash": dash, "width": 2})
        line.update(marker={"symbol": symbols[n % len(symbols)], "size": 6})
        line.update(customdata=list(zip(low.tolist(), high.tolist(), strict=True)))
        line.update(hovertemplate="layer %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]")
        figure.add_trace(line)
        nothing = (each.shuffled - each.usual[:, None]).mean(0).tolist()
        grey = Scatter(x=layers, y=nothing, mode="lines", line={"color": GREY, "width": 1}, opacity=0.6)
        grey.update(name="labels shuffled", legendgroup="null", showlegend=each is found[0], hoverinfo="skip")
        figure.add_trace(grey)
    by_layer(figure, list(range(found[0].n_layers)))
    figure.update_yaxes(title_text="share right, above the most frequent label")
    said = (
        "Ridge classifiers of the first answer token before it is written, folds by prompt. Not causal. "
        "Under the pointer: 95% bootstrap bands over prompts, each for a whole curve."
    )
    return framed(figure, "What a probe reads", said, height=340 + 26 * len(found))


def plot_similarity(found: Sequence[Similarity]) -> Figure:
    """Linear CKA of states under two prompts by layer, the nulls in grey.

    Raises ValueError without any.
    """
    if not found:
        raise ValueError("no states were compared; there is nothing to plot.")
    figure, nulls = Figure(), 0
    for each in found:
        line = Scatter(x=list(range(len(each.cka))), y=each.cka.tolist(), mode="lines+markers")
        line.update(name=wrapped(f"{each.name} (n = {each.n})", 40), marker_size=6)
        if each.is_null:
            line.update(line={"color": GREY, "dash": DASHES[nulls % len(DASHES)]}, mode="lines")
            nulls += 1
        else:
            line.update(line={"color": BLUE, "width": 2.5})
        ends = np.clip([each.cka - 1.96 * each.error, each.cka + 1.96 * each.error], 0, 1)
        line.update(customdata=ends.T.tolist())
        line.update(hovertemplate="layer %{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]")
        figure.add_trace(line)
    by_layer(figure, list(range(len(found[0].cka))))
    figure.update_yaxes(title_text="linear CKA at the last prompt token")
    said = (
        "Grey: what the same is where nothing is compared with thinking. Similarity shows no cause. Under the pointer: "
        "95% intervals over items, 1.96 jackknife standard errors either way."
    )
    return framed(figure, "States under fast and slow prompts", said, height=380 + 20 * len(found))


def _name(each: Probed) -> str:
    return wrapped(f"{each.family} ({each.kind}, n = {len(each.right)}, {each.n_labels} labels)", 44)
