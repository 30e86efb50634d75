"""Heat maps over layers: where along the text states carry the answer, and what intermediate results need."""

from collections.abc import Sequence

import numpy as np
from plotly.graph_objects import Figure, Heatmap
from plotly.subplots import make_subplots

from saereason.layers import Curve, GradedCurve, Patching, StepMap
from saereason.layers.contrasts import POSITIONS
from saereason.layers.steps import gained
from saereason.stats import wilson

from .look import BLUE, LAYERS, VERMILLION, framed, wrapped

SIGNED = [[0.0, VERMILLION], [0.5, "rgba(128, 128, 128, 0.06)"], [1.0, BLUE]]
N_DRAWS = 1000

Cells = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Values and the ends of their intervals, `[row, layer]` each."""


def plot_patching(found: Patching, *, seed: int = 0) -> Figure:
    """Layer × class of position: the share of the two runs' difference that states put there bring along, both ways.

    Shares are of sums over items, with 95% bootstrap intervals over items under the pointer. Raises ValueError where
    the two runs do not differ.
    """
    if not np.nanmean(found.total):
        raise ValueError(f"the two runs of {found.family} do not differ; there is no share to plot.")
    panels = {
        "clean states into the corrupted run": found.restored,
        "corrupted states into the clean run": found.broken,
    }
    cells = {title: _shares(values, found.total, seed) for title, values in panels.items()}
    rows = [f"{name} (n = {np.isfinite(found.restored[:, n, 0]).sum()})" for n, name in enumerate(POSITIONS)]
    figure = _panels(cells, rows, found.layers, "share")
    said = (
        f"Share of the difference between the two runs ({found.total.mean():.2f} in logits, mean of {len(found.total)} "
        "pairs) that comes along with the states at these positions. The answer's is the token that predicts it. "
        "Under the pointer: 95% bootstrap intervals over items."
    )
    return framed(figure, f"Patching: {found.family}", said, height=150 + 60 * len(rows))


def plot_steps(found: StepMap) -> Figure:
    """Layer × step: what skipping each layer costs each result, and where its first digit can be read.

    Raises ValueError without any step.
    """
    if not found.lost:
        raise ValueError(f"no result of {found.family} could be measured; there is nothing to plot.")
    lost = _stacked([_loss(curve) for curve in found.lost])
    rows = [f"result {n + 1} (n = {len(curve.drop)})" for n, curve in enumerate(found.lost)]
    height = 200 + 34 * (len(rows) + len(found.read))
    figure = make_subplots(
        rows=1 + bool(found.read),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=48 / height,
        row_heights=[len(rows), len(found.read)] if found.read else None,
        subplot_titles=["lost with the layer changed, nats a token", "read by a probe, above the most frequent digit"],
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    layers = found.lost[0].layers
    _heat(figure, 1, lost, rows, layers, _reach(lost[0]), "nats")
    if found.read:
        values = np.stack([gained(each) for each in found.read])
        names = [
            f"result {a + 1} {'in the prompt' if b == 0 else f'before {b}'} (n = {len(each.right)})"
            for (a, b), each in zip(found.names, found.read, strict=True)
        ]
        error = np.stack([_error(each.right - each.usual[:, None]) for each in found.read])
        _heat(figure, 2, (values, values - error, values + error), names, layers, 1.0, "share")
    figure.update_xaxes(title_text=LAYERS, row=1 + bool(found.read), col=1)
    said = (
        "Before a later result an earlier one has been written: what is read there may be a copy. "
        "Under the pointer: 95% intervals over items, 1.96 standard errors either way."
    )
    return framed(figure, f"Results step by step: {found.family}", said, height=height)


def plot_no_answer(graded: Sequence[GradedCurve]) -> Figure:
    """Family × layer: the share of answers that are none (unparsable, truncated, looping) with each layer changed.

    Raises ValueError without families, or of several operators.
    """
    operators = {each.curve.operator for each in graded}
    if len(operators) != 1:
        raise ValueError(f"{len(graded)} families were graded under {sorted(operators)}; give some of one operator.")
    figure, layers = make_subplots(), graded[0].curve.layers
    rows, cells = [], []
    for each in graded:
        n = len(each.curve.drop)
        rows.append(f"{each.curve.family} (n = {n}; as it is {each.no_answer_clean:.2f})")
        told = [wilson(round(share * n), n) for share in each.no_answer.tolist()]
        cells.append([[estimate.value, estimate.low, estimate.high] for estimate in told])
    value, low, high = np.moveaxis(np.array(cells), -1, 0)
    _heat(figure, 1, (value, low, high), rows, layers, 1.0, "share")
    figure.update_xaxes(title_text=LAYERS)
    said = "A wrong answer is none of these; what is none counts as wrong. Under the pointer: Wilson's 95% intervals."
    return framed(figure, f"Answers that are none: {operators.pop()}", said, height=200 + 34 * len(rows))


def _panels(cells: dict[str, Cells], rows: Sequence[str], layers: Sequence[int], unit: str) -> Figure:
    figure = make_subplots(
        rows=len(cells), cols=1, shared_xaxes=True, vertical_spacing=0.14, subplot_titles=list(cells)
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    for n, values in enumerate(cells.values(), 1):
        _heat(figure, n, values, rows, layers, 1.0, unit)
    figure.update_xaxes(title_text=LAYERS, row=len(cells), col=1)
    return figure


def _heat(
    figure: Figure, row: int, cells: Cells, names: Sequence[str], layers: Sequence[int], most: float, unit: str
) -> None:
    value, low, high = cells
    heat = Heatmap(z=value.tolist(), x=list(layers), y=[wrapped(name, 34) for name in names], zmin=-most, zmax=most)
    heat.update(customdata=np.stack([low, high], axis=-1).tolist(), colorscale=SIGNED, zmid=0)
    low_end, high_end = figure.to_dict()["layout"]["yaxis" if row == 1 else f"yaxis{row}"]["domain"]
    bar = {"title": unit, "thickness": 12, "len": high_end - low_end, "y": (low_end + high_end) / 2}
    heat.update(colorbar=bar)
    heat.update(hovertemplate="%{y}, layer %{x}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>")
    figure.add_trace(heat, row, 1)
    figure.update_yaxes(autorange="reversed", showgrid=False, row=row, col=1)


def _shares(values: np.ndarray, total: np.ndarray, seed: int) -> Cells:
    """Sums over items with the positions over the sums of their totals, drawn anew with the items."""
    there = np.isfinite(values)
    numerator, denominator = np.where(there, values, 0.0), np.where(there, total[:, None, None], 0.0)
    n = len(total)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=N_DRAWS)
    draws = _over(np.tensordot(counts, numerator, 1), np.tensordot(counts, denominator, 1))
    low, high = _quantiles(draws)
    return _over(numerator.sum(0), denominator.sum(0)), low, high


def _over(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)


def _quantiles(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the draws that have a value; NaN where none has."""
    empty = ~np.isfinite(draws).any(axis=0)
    low, high = np.nanquantile(np.where(empty, 0.0, draws), [0.025, 0.975], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def _loss(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    return curve.drop.mean(0), _error(curve.drop)


def _error(values: np.ndarray) -> np.ndarray:
    """Half of a normal 95% interval of the mean over items."""
    return 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(values))


def _stacked(losses: Sequence[tuple[np.ndarray, np.ndarray]]) -> Cells:
    value, error = (np.stack([loss[n] for loss in losses]) for n in (0, 1))
    return value, value - error, value + error


def _reach(values: np.ndarray) -> float:
    """The end of the colour scale, which a single vital layer does not set."""
    return max(float(np.quantile(np.abs(values), 0.95)), 1e-9)
