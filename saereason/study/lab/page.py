"""The lab as tables on disk and as one page."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from saereason.layers import AnswerDepths, Curve, KindFinding, shares
from saereason.layers.finding import ENOUGH
from saereason.model import Model
from saereason.plots import (
    plot_centroids,
    plot_layers,
    plot_no_answer,
    plot_operators,
    plot_patching,
    plot_probes,
    plot_share_difference,
    plot_similarity,
    plot_steps,
)
from saereason.report import Figure, Page, Section, Table, Text, write_report
from saereason.runs import write_table
from saereason.stats import Estimate, mean_interval

from .lab import ASIDE, Lab
from .pair import Alike, screened
from .parts import Thought
from .tables import tables

FINDING_HEADER = (
    "operator",
    "reasoning less knowledge",
    "p",
    "p, all operators",
    "with all layers",
    "p, all layers",
    "first pair",
    "families",
    "left out",
)
WHAT_WOULD_CHANGE_IT = (
    "Differences of mean depth centroids (0 the first layer, 1 the last), intervals over items of these families; "
    "first without the layers that plain text cannot do without (the last column), then with all. p, all operators: "
    "for the largest of all their differences, so that one of many does not pass by chance. Other families, another "
    "metric or another operator may change them."
)
FAMILY_HEADER = ("family", "kind", "n", "clean", "effect of all layers", "depth", "not counted because")
FAMILY_NOTE = (
    "Under {operator}, in {unit}, without the layers left out. Clean: of the model as it is (a guess among ten is −2.3 "
    "nats); where that is low the model does not do the task, and what layers are worth there is about form. Effect: "
    "the losses of all layers together."
)
NULL_HEADER = ("at random", "as it is", "95% at random within", "as large")
NULL_NOTE = (
    "Halves and swaps: difference of depth centroids; as it is, halves are the first items against the rest. Shifts: "
    "correlation over layers of the two mean effects, and with one of them moved along by every number of layers. "
    "These describe; none is a test of depth."
)
LENS_HEADER = ("family", "kind", "layer", "right at the end", "items")
LENS_NOTE = (
    "Mean first layer (counted from 0) from which the scored tokens are the likeliest, over items with any that the "
    "model gets right. What can be read at a layer need not be computed there."
)
SCREEN_HEADER = ("family", "rank correlation with skipping")
SCREEN_NOTE = (
    "Over layers, of the mean effect. The gradient takes one pass forward and back for all layers; where it ranks them "
    "otherwise than skipping does, believe skipping."
)
FAST_HEADER = ("domain", "items", "n", "fast", "slow", "δ", "δ_c", "δ_o", "r_c", "r_o", "Δ log p")
FAST_NOTE = (
    "Answers at once and after thinking. δ = δ_c − δ_o: what thinking corrects less what it spoils; r_c and r_o are "
    "the same among those wrong, and right, at once. Whatever is not right counts as wrong, but in the rows of items "
    "that are parsed in both. Δ log p: nats per token that thinking adds to the answer; a thought may state it."
)


def write_lab(folder: Path, model: Model, lab: Lab) -> None:
    """A Parquet file for each kind of result, and `report.html`."""
    for name, table in tables(lab).items():
        write_table(folder / f"{name}.parquet", table)
    write_report(folder, page(model, lab))


def page(model: Model, lab: Lab) -> Page:
    """Findings first, then the figures behind them."""
    sections = [*_curves(lab)] if lab.curves else []
    sections.append(Table("Where the answer can be read", LENS_HEADER, tuple(lens_rows(lab.depths)), LENS_NOTE))
    sections += _parts(lab)
    sections.append(Text("In sentences", tuple(sentences(lab))))
    return Page(f"Where {model.name} reasons and where it knows", lab.verdict, tuple(sections))


def _curves(lab: Lab) -> Iterator[Section]:
    """What the operators say, of kinds and of one pair, and their curves."""
    yield Table("What each operator says", FINDING_HEADER, tuple(finding_rows(lab)), WHAT_WOULD_CHANGE_IT)
    first, kinds = next(iter(lab.kinds.items()))
    note = FAMILY_NOTE.format(operator=first, unit=lab.of(first)[0].unit)
    rows = tuple(family_rows(lab.of(first), kinds))
    shown = len(FAMILY_HEADER) - (not kinds.families_left_out)  # a column with nothing in it is not
    yield Table("Families", FAMILY_HEADER[:shown], tuple(row[:shown] for row in rows), note)
    if any(finding.centroids for finding in lab.kinds.values()):
        yield Figure("Depth of every family", _forest(lab))
    for operator in lab.kinds:
        yield Figure(f"Layers: {operator}", plot_layers(lab.of(operator)))
    for first, pair in [*lab.pairs.items()][:1]:
        yield Figure("Operators side by side", plot_operators(lab.curves))
        chosen = {curve.family: curve for curve in lab.of(first)}
        figure = plot_share_difference(chosen[pair.families[0]], chosen[pair.families[1]], pair)
        yield Figure(f"One pair of families: {first}", figure)
    if lab.alike is not None:
        yield from _matching(lab.alike)
    if screen := screened(lab.curves):
        yield Table("The gradient as a screen", SCREEN_HEADER, tuple(screen.items()), SCREEN_NOTE)


def family_rows(curves: Sequence[Curve], found: KindFinding) -> Iterator[tuple[Any, ...]]:
    """Of each family under one operator: how the model does, what all layers add to that, and where."""
    for curve in curves:
        kept = [n for n, layer in enumerate(curve.layers) if layer not in found.layers_left_out]
        depth, why = found.centroids.get(curve.family), found.families_left_out.get(curve.family, "")
        effect = _mean(curve.drop[:, kept].sum(1))
        middle = None if depth is None else Estimate(*depth)
        yield curve.family, curve.kind, len(curve.drop), _mean(curve.clean), effect, middle, why


def _mean(values: Float[np.ndarray, "item"]) -> Estimate | None:
    """None where too few items have a number."""
    known = values[np.isfinite(values)]
    return mean_interval(known) if len(known) > 1 else None


def _forest(lab: Lab) -> Any:
    counts = {(curve.operator, curve.family): len(curve.drop) for curve in lab.curves}
    return plot_centroids(list(lab.kinds.values()), n_items=counts)


def _matching(found: Alike) -> list[Section]:
    """The first pair as it is, matched and adjusted, and how alike the items are before and after matching."""
    ways = [("as they are", found.as_they_are), ("covariates taken out", found.adjusted)]
    ways += [("items that are alike", found.matched)] if found.matched else []
    rows = [(way, _told(f.centroid_difference, f.low, f.high), f"{f.n_items[0]} and {f.n_items[1]}") for way, f in ways]
    names = " and ".join(found.as_they_are.families)
    note = found.refused or (f"Kept: {found.match.kept:.0%} of the smaller family." if found.match else "")
    if found.unshared:
        note += (
            f" They do not meet in {', '.join(found.unshared)}: to take these out is to extrapolate, and says little."
        )
    header = (names, "difference of depth centroids", "items")
    sections: list[Section] = [Table("One pair, alike in length and difficulty", header, tuple(rows), note)]
    if found.match is not None:
        balance = tuple((name, found.match.before[name], found.match.after[name]) for name in found.match.before)
        sections.append(Table("Balance of that pair", ("standardised difference of", "before", "after"), balance))
    nulls = ((name, *_finite(null.value, null.usual, null.reached)) for name, null in found.nulls.items())
    sections.append(Table("That pair where there is nothing", NULL_HEADER, tuple(nulls), NULL_NOTE))
    return sections


def _finite(*values: float) -> tuple[float | None, ...]:
    return tuple(value if np.isfinite(value) else None for value in values)


def _parts(lab: Lab) -> list[Section]:
    """The sections of what was done beside the battery."""
    parts = lab.parts
    found: list[Section] = []
    arrivals = {each.family: each.arrival() for each in parts.patched}
    nothing = [name for name, curve in arrivals.items() if not abs(shares(curve).total_in_errors) >= ENOUGH]
    found += [Figure(f"Patching: {p.family}", plot_patching(p)) for p in parts.patched if p.family not in nothing]
    if parts.probed:
        found.append(Figure("What a probe reads", plot_probes(parts.probed)))
    found += [Figure(f"Results step by step: {each.family}", plot_steps(each)) for each in parts.steps]
    if parts.graded:
        found.append(Figure("Answers that are none, with a block skipped", plot_no_answer(parts.graded)))
    if parts.thought:
        rows = [row for thought in parts.thought for row in fast_rows(thought)]
        found.append(Table("Fast and slow", FAST_HEADER, tuple(rows), FAST_NOTE))
    if parts.similar:
        found.append(Figure("States under fast and slow prompts", plot_similarity(parts.similar)))
    unpatched = (f"patching: the two runs of {name} differ by under {ENOUGH:g} standard errors." for name in nothing)
    if left_out := (*parts.left_out, *unpatched, *(why for steps in parts.steps for why in steps.left_out)):
        found.append(Text("Left out", left_out))
    return found


def sentences(lab: Lab) -> list[str]:
    """What all operators say together, each of one pair of families, and each of kinds."""
    pairs = [f"{operator}: {finding.statement}" for operator, finding in lab.pairs.items()]
    return [lab.verdict, *pairs, *(_of_kinds(lab, operator) for operator in lab.kinds)]


def _of_kinds(lab: Lab, operator: str) -> str:
    """What one operator says of kinds, and how much of that stands among all of them."""
    said = lab.kinds[operator].statement
    if operator.endswith(ASIDE):
        return f"{said} (A screen, or one half of a comparison: no evidence by itself.)"
    p = lab.joint.get(operator, np.nan)
    return f"{said} (Of all operators together: p = {p:.3f}.)" if np.isfinite(p) else said


def finding_rows(lab: Lab) -> list[tuple[Any, ...]]:
    rows = []
    for operator, kind in lab.kinds.items():
        pair, whole = lab.pairs.get(operator), lab.all_layers[operator]
        counts = "{} + {}".format(*(list(kind.kinds.values()).count(k) for k in ("reasoning", "knowledge")))
        of_pair = _told(pair.centroid_difference, pair.low, pair.high) if pair else ""
        told = [_told(each.difference, each.low, each.high) for each in (kind, whole)]
        joint = lab.joint.get(operator, np.nan)
        ps = [f"{p:.3f}" if np.isfinite(p) else "" for p in (kind.p, joint, whole.p)]
        left_out = ", ".join(map(str, kind.layers_left_out))
        rows.append((operator, told[0], *ps[:2], told[1], ps[2], of_pair, counts, left_out))
    return rows


def lens_rows(depths: Sequence[AnswerDepths]) -> list[tuple[Any, ...]]:
    rows = []
    for found in depths:
        readable = found.layer[np.isfinite(found.layer)]
        layer = mean_interval(readable) if len(readable) > 1 else None
        rows.append((found.family, found.kind, layer, float(found.share_right.mean()), len(found.layer)))
    return rows


def fast_rows(thought: Thought) -> list[tuple[Any, ...]]:
    """All items, and those that are parsed in both."""
    rows = []
    for f, items, gain in ((thought.whole, "all", thought.gain), (thought.parsed, "parsed in both", None)):
        if f is not None:
            shares = (f.fast, f.slow, f.delta, f.corrected, f.overthought, f.corrects, f.overthinks)
            rows.append((f.domain, items, f.n, *shares, gain))
    return rows


def _told(value: float, low: float, high: float) -> str:
    return str(Estimate(value, low, high)) if np.isfinite(value) else "inconclusive"
