"""How training went."""

from typing import TYPE_CHECKING

from plotly.colors import sample_colorscale
from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from .look import framed

if TYPE_CHECKING:
    from pandas import DataFrame

PANELS = {
    "explained_variance": "explained variance (of the batch)",
    "l0": "L0",
    "dead": "dead features (share)",
    "step_tokens_per_second": "tokens a second, of each SAE's step",
}


def plot_training(log: "DataFrame") -> Figure:
    """Explained variance, L0, dead share and speed against tokens, a line for each SAE, coloured by depth.

    `log` is what `read_log` returns. Raises ValueError for an empty one.
    """
    if not len(log):
        raise ValueError("the training log is empty; give one of a run that has done a step.")
    figure = make_subplots(
        rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.07, subplot_titles=list(PANELS.values())
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    pairs = sorted(set(zip(log["design"].tolist(), log["layer"].tolist(), strict=True)))
    layers, several = sorted({layer for _, layer in pairs}), pairs[-1][0] > 0
    for design, layer in pairs:
        lines = log[(log["design"] == design) & (log["layer"] == layer)]
        shade = 0.85 * layers.index(layer) / max(1, len(layers) - 1)
        [colour] = sample_colorscale("Viridis", [shade])
        name = f"design {design}, layer {layer}" if several else f"layer {layer}"
        for row, column in enumerate(PANELS, 1):
            line = Scatter(x=lines["tokens"], y=lines[column], name=name, legendgroup=name, showlegend=row == 1)
            line.update(mode="lines", line={"color": colour, "width": 1.3}, hovertemplate=f"{name}: %{{y:.4g}}")
            figure.add_trace(line, row, 1)
    low = sorted(log["explained_variance"].tolist())[len(log) // 50]
    figure.update_yaxes(range=[min(0.0, low), 1], row=1, col=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(title_text="tokens", row=4, col=1)
    lines = log.drop_duplicates("tokens")
    done = lines["tokens"].diff().fillna(lines["tokens"])
    rate = done.sum() / (done / lines["tokens_per_second"]).sum()
    said = f"{rate:,.0f} tokens a second in all, {lines['tokens'].max():,} tokens. A point is one batch; no intervals."
    return framed(figure, "Training", said, height=760)
