"""The layer lab: families of both kinds under one battery, and what the operators agree on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from saereason.layers import (
    AnswerDepths,
    Curve,
    Family,
    Finding,
    KindFinding,
    MeanOfBlock,
    Operator,
    SkipBlock,
    SkipByGradient,
    SkipPart,
    SpliceSAE,
    answer_depths,
    compare_depth,
    compare_kinds,
    family_of,
    generated_families,
    localise,
    plain_family,
    published_families,
)
from saereason.layers.families import fitting
from saereason.metrics import log_probs
from saereason.model import Model
from saereason.plots import plot_centroids, plot_layers, plot_operators, plot_share_difference
from saereason.progress import Steps
from saereason.report import Figure, Page, Section, Table, Text, write_report
from saereason.runs import Run, write_table
from saereason.saes import SAE
from saereason.stats import mean_interval
from saereason.tasks import Task

MEAN_TEXTS = 32
"""Plain texts that the mean contribution of a block is of."""

GRADIENT_PASSES = 4.0
"""Forward passes that a pass forward and back takes, about."""


@dataclass(frozen=True, eq=False)
class Lab:
    """What was found of each operator."""

    curves: Sequence[Curve]
    depths: Sequence[AnswerDepths]
    kinds: Mapping[str, KindFinding]
    """By operator, layers that plain text cannot do without left out where there is plain text."""

    pairs: Mapping[str, Finding]
    """By operator: the first reasoning family against the first knowledge family."""

    def of(self, operator: str) -> list[Curve]:
        return [curve for curve in self.curves if curve.operator == operator]


def battery(model: Model, saes: Mapping[int, SAE], texts: Sequence[str], *, whole: bool) -> list[Operator]:
    """Skipping each block, and its gradient; whole, every other operator too, with means over some of the texts."""
    found: list[Operator] = [SkipBlock(), SkipByGradient()]
    if whole:
        mean = MeanOfBlock.of(model, texts[-MEAN_TEXTS:])
        found += [SkipBlock(0.5), SkipBlock(1.5), mean, SkipPart("attention"), SkipPart("MLP")]
        found += [SpliceSAE()] if saes else []
    return found


def families_of(
    model: Model, texts: Sequence[str], n: int, *, task: Task | None = None, data: Path | None = None, seed: int = 0
) -> list[Family]:
    """Word problems (or a task of one's own), capitals and plain text; with a folder of data, the published ones too.

    `n` items of each, and a quarter as many plain texts.
    """
    reasoning, *facts = generated_families(model, n, seed=seed)
    first = reasoning if task is None else family_of(model, fitting(model, task).take(n))
    more = published_families(model, data, n, seed=seed) if data is not None else []
    plain = plain_family(model, texts[: max(2, n // 4)])
    return [first, *(facts if more else facts[:1]), *more, plain]


def estimate(model: Model, families: Sequence[Family], operators: Sequence[Operator], saes: Mapping[int, SAE]) -> float:
    """About how many seconds the battery takes, from one clean pass over a batch of the first family."""
    metric = families[0].metric
    items = [metric.items[n] for n in metric.batches()[0]]
    log_probs(model, items[:1])
    start = perf_counter()
    log_probs(model, items)
    per_token = (perf_counter() - start) / sum(len(item.prompt) + len(item.continuation) for item in items)
    n_tokens = sum(len(item.prompt) + len(item.continuation) for family in families for item in family.metric.items)
    passes = 1.0  # the logit lens
    for operator in operators:
        layers = operator.layers(model, saes)
        resumed = sum(1 - layer / model.n_layers for layer in layers)
        passes += GRADIENT_PASSES if isinstance(operator, SkipByGradient) else 1 + resumed
    return per_token * n_tokens * passes


def run_lab(
    model: Model,
    saes: Mapping[int, SAE] | None,
    families: Sequence[Family],
    operators: Sequence[Operator],
    run: Run,
    bars: Steps,
) -> Lab:
    """The battery, the logit lens, and what they say; `curves.parquet`, `findings.parquet` and `report.html`.

    Raises ValueError without a reasoning and a knowledge family.
    """
    for kind in ("reasoning", "knowledge"):
        if not any(family.kind == kind for family in families):
            raise ValueError(f"there is no {kind} family; give at least one of each kind.")
    curves = []
    for operator in operators:
        with bars.step(operator.name) as show:
            curves += localise(model, saes, families, [operator], run=run, progress=show)
    depths = []
    with bars.step("logit lens") as show:
        for n, family in enumerate(families):
            depths.append(answer_depths(model, family, run=run))
            show(n + 1, len(families))
    lab = conclude(curves, depths)
    write_table(run.folder / "curves.parquet", curve_table(curves))
    write_table(run.folder / "findings.parquet", finding_table(lab))
    write_report(run.folder, page(model, lab))
    return lab


def conclude(curves: Sequence[Curve], depths: Sequence[AnswerDepths]) -> Lab:
    """The findings of each operator."""
    kinds, pairs = {}, {}
    for operator in dict.fromkeys(curve.operator for curve in curves):
        of = [curve for curve in curves if curve.operator == operator]
        sides = [[curve for curve in of if curve.kind == kind] for kind in ("reasoning", "knowledge", "neutral")]
        neutral = sides[2][0] if sides[2] else None
        kinds[operator] = compare_kinds(of, neutral=neutral)
        pairs[operator] = compare_depth(sides[0][0], sides[1][0], neutral=neutral)
    return Lab(tuple(curves), tuple(depths), kinds, pairs)


def page(model: Model, lab: Lab) -> Page:
    """Findings first, then the figures behind them."""
    first = next(iter(lab.kinds))
    sections: list[Section] = [
        Table("What each operator says", FINDING_HEADER, tuple(finding_rows(lab)), WHAT_WOULD_CHANGE_IT),
    ]
    if any(finding.centroids for finding in lab.kinds.values()):
        sections.append(Figure("Depth of every family", plot_centroids(list(lab.kinds.values()))))
    for operator in lab.kinds:
        sections.append(Figure(f"Layers: {operator}", plot_layers(lab.of(operator))))
    sections.append(Figure("Operators side by side", plot_operators(lab.curves)))
    pair = lab.pairs[first]
    chosen = {curve.family: curve for curve in lab.of(first)}
    figure = plot_share_difference(chosen[pair.families[0]], chosen[pair.families[1]], pair)
    sections += [
        Figure(f"One pair of families: {first}", figure),
        Table("Where the answer can be read", LENS_HEADER, tuple(lens_rows(lab.depths)), LENS_NOTE),
        Text("In sentences", tuple(sentences(lab))),
    ]
    return Page(f"Where {model.name} reasons and where it knows", lab.kinds[first].statement, tuple(sections))


FINDING_HEADER = ("operator", "reasoning less knowledge", "p", "first pair", "families", "layers left out")
WHAT_WOULD_CHANGE_IT = (
    "Differences of mean depth centroids (0 the first layer, 1 the last), intervals over items of these families. "
    "Other families, another metric or another operator may change them: a kind is shown only where p is small and "
    "operators agree."
)
LENS_HEADER = ("family", "kind", "layer", "right at the end", "items")
LENS_NOTE = (
    "Mean first layer (counted from 0) from which the scored tokens are the likeliest, over items with any that the "
    "model gets right. What can be read at a layer need not be computed there."
)


def sentences(lab: Lab) -> list[str]:
    """What each operator says of one pair of families, and of kinds."""
    pairs = [f"{operator}: {finding.statement}" for operator, finding in lab.pairs.items()]
    return [*pairs, *(finding.statement for finding in lab.kinds.values())]


def finding_rows(lab: Lab) -> list[tuple[Any, ...]]:
    rows = []
    for operator, kind in lab.kinds.items():
        pair = lab.pairs[operator]
        counts = "{} + {}".format(*(list(kind.kinds.values()).count(k) for k in ("reasoning", "knowledge")))
        told = [
            _told(one, low, high)
            for one, low, high in (
                (kind.difference, kind.low, kind.high),
                (pair.centroid_difference, pair.low, pair.high),
            )
        ]
        left_out = ", ".join(map(str, kind.layers_left_out))
        p = f"{kind.p:.3f}" if np.isfinite(kind.p) else ""
        rows.append((operator, told[0], p, told[1], counts, left_out))
    return rows


def lens_rows(depths: Sequence[AnswerDepths]) -> list[tuple[Any, ...]]:
    rows = []
    for found in depths:
        readable = found.layer[np.isfinite(found.layer)]
        layer = mean_interval(readable) if len(readable) > 1 else None
        rows.append((found.family, found.kind, layer, float(found.share_right.mean()), len(found.layer)))
    return rows


def curve_table(curves: Sequence[Curve]) -> Any:
    """A row for each family, operator, item and layer."""
    import pandas as pd

    parts = []
    for curve in curves:
        n, layers = curve.drop.shape
        parts.append(
            pd.DataFrame(
                {
                    "family": curve.family,
                    "kind": curve.kind,
                    "operator": curve.operator,
                    "item": np.repeat(np.arange(n), layers),
                    "layer": np.tile(curve.layers, n),
                    "drop": curve.drop.reshape(-1),
                    "clean": np.repeat(curve.clean, layers),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def finding_table(lab: Lab) -> Any:
    """A row for each operator and family, with what the operator says of kinds."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "operator": operator,
                "family": family,
                "kind": found.kinds[family],
                "centroid": value,
                "low": low,
                "high": high,
                "difference": found.difference,
                "p": found.p,
                "statement": found.statement,
            }
            for operator, found in lab.kinds.items()
            for family, (value, low, high) in found.centroids.items()
        ]
    )


def _told(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]" if np.isfinite(value) else "inconclusive"
