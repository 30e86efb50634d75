"""How many proposed features stand on each rung of the ladder of claims."""

from collections.abc import Mapping, Sequence

import numpy as np
from plotly.graph_objects import Figure
from plotly.subplots import make_subplots

from saereason.controls import Verdict
from saereason.controls.ladder import NAMES, standing
from saereason.features import Feature

from .look import framed, wrapped

SCALE = [[0.0, "rgba(0, 114, 178, 0.04)"], [1.0, "rgba(0, 114, 178, 0.85)"]]


def plot_funnel(verdicts: Sequence[Verdict], proposed: Mapping[str, Sequence[Feature]]) -> Figure:
    """For each score that proposed features, how many stand on each rung; below, how many pass it by itself.

    A feature stands on a rung if it passes that and every one before. Rungs that were not tried are left blank below.
    Raises ValueError for a proposed feature without a verdict.
    """
    found = {verdict.feature: verdict for verdict in verdicts}
    missing = [f for features in proposed.values() for f in features if f not in found]
    if missing or not proposed:
        what = f"{missing[0]} was proposed and has no verdict" if missing else "no score proposed anything"
        raise ValueError(f"{what}; give a verdict for each feature that a score proposed.")
    rows = {f"{name} ({len(features)})": [found[f] for f in features] for name, features in proposed.items()}
    panels = [
        [standing(row) for row in rows.values()],
        [[_passing(row, n) for n in NAMES] for row in rows.values()],
    ]
    figure = make_subplots(
        rows=2,
        cols=1,
        vertical_spacing=0.12,
        shared_xaxes=True,
        subplot_titles=("stand on the rung: it and all before are passed", "pass the rung, whatever the others say"),
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    for n, counts in enumerate(panels, 1):
        shares = [
            [None if c is None else c / len(row) for c in line] for line, row in zip(counts, rows.values(), strict=True)
        ]
        said = [["" if c is None else str(c) for c in line] for line in counts]
        figure.add_heatmap(
            z=shares,
            x=list(NAMES),
            y=[wrapped(name, 22) for name in rows],
            text=said,
            texttemplate="%{text}",
            zmin=0,
            zmax=1,
            colorscale=SCALE,
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="%{y}, rung %{x}: %{text}<extra></extra>",
            row=n,
            col=1,
        )
    ticks = [f"{n}<br>{wrapped(words[0], 11)}" for n, words in NAMES.items()]
    figure.update_xaxes(tickvals=list(NAMES), ticktext=ticks, showgrid=False, row=2, col=1)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    title = f"{len(found)} features proposed as {next(iter(found.values())).behaviour}"
    said = "Number of features by the score that proposed them, and by rung: counts, without intervals."
    framed(figure, title, said, height=170 + 68 * len(rows))
    return figure.update_layout(showlegend=False)


def _passing(row: Sequence[Verdict], number: int) -> int | None:
    """How many pass one rung; None where it was tried with none."""
    outcomes = [rung.passed for verdict in row for rung in verdict.rungs if rung.number == number]
    return None if all(passed is None for passed in outcomes) else int(np.sum([passed is True for passed in outcomes]))
