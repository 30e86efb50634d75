"""The layer lab: families of both kinds under one battery, and what the operators agree on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saereason.layers import (
    CANDIDATES,
    MATCHED,
    AnswerDepths,
    Curve,
    Family,
    Finding,
    KindFinding,
    Operator,
    SkipBlock,
    SkipByGradient,
    answer_depths,
    compare_depth,
    compare_kinds,
    joint_p,
    localise,
)
from saereason.model import Model
from saereason.progress import Steps
from saereason.runs import Run
from saereason.saes import SAE

from .pair import Alike, alike
from .parts import Parts, measure_parts, over_matched
from .subjects import PARTS, SIZES, Sizes, Subject

NO_PARTS = Parts()
ALPHA = 0.05
"""Largest p, of all operators together, at which one counts as showing something of kinds."""

ASIDE = (CANDIDATES, MATCHED, SkipByGradient().name)
"""How the names of operators end that are no evidence by themselves."""


@dataclass(frozen=True, eq=False)
class Lab:
    """What was found of each operator."""

    curves: Sequence[Curve]
    depths: Sequence[AnswerDepths]
    kinds: Mapping[str, KindFinding]
    """By operator, layers that plain text cannot do without left out where there is plain text."""

    all_layers: Mapping[str, KindFinding]
    """By operator, with all layers."""

    joint: Mapping[str, float]
    """By operator that can show something of kinds: p for the largest difference of all that count as evidence."""

    joint_all_layers: Mapping[str, float]

    pairs: Mapping[str, Finding]
    """By operator that has families of both kinds: the first reasoning family against the first knowledge family."""

    alike: Alike | None
    """The first pair under the first operator, with length and difficulty taken out."""

    parts: Parts
    neutral: Curve | None = None
    """By which layers are left out, for every operator alike."""

    def of(self, operator: str) -> list[Curve]:
        return [curve for curve in self.curves if curve.operator == operator]

    @property
    def verdict(self) -> str:
        """What all operators together say of reasoning in higher and knowledge in lower layers.

        Screens and controls, and what has a control that it is to be measured beyond, do not count.
        """
        told, whole = _verdict(self.kinds, self.joint), _verdict(self.all_layers, self.joint_all_layers)
        return told if whole == told else f"{told} With all layers: {whole[0].lower()}{whole[1:]}"


def run_lab(
    model: Model,
    saes: Mapping[int, SAE] | None,
    subjects: Sequence[Subject],
    operators: Sequence[Operator],
    run: Run,
    bars: Steps,
    parts: Sequence[str] = (),
    sizes: Sizes = SIZES,
) -> Lab:
    """The battery, the logit lens and the parts asked for; what they say, as tables and as `report.html`.

    The part of features is their operators, from `feature_operators`. Raises ValueError for a part that there is not,
    and without a reasoning and a knowledge family.
    """
    from .page import write_lab

    families = [subject.family for subject in subjects]
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}.")
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
    beside = measure_parts(model, subjects, parts, sizes, run, bars)
    plain, neutral = [family for family in families if family.kind == "neutral"][:1], None
    if plain and (curves or beside.curves):
        with bars.step("layers that plain text cannot do without"):
            [neutral] = localise(model, saes, plain, [SkipBlock()], run=run)
    lab = conclude([*curves, *over_matched(curves), *beside.curves], depths, families, beside, neutral)
    write_lab(run.folder, model, lab)
    return lab


def conclude(
    curves: Sequence[Curve],
    depths: Sequence[AnswerDepths],
    families: Sequence[Family] = (),
    parts: Parts = NO_PARTS,
    neutral: Curve | None = None,
) -> Lab:
    """The findings of each operator; with the families, of the first pair with length and difficulty taken out too.

    The neutral curve, of skipped blocks, says for every operator alike which layers no text can do without.
    """
    kinds, all_layers, pairs = {}, {}, {}
    if neutral is None:
        neutral = next((c for c in curves if (c.kind, c.operator) == ("neutral", SkipBlock().name)), None)
    for operator in dict.fromkeys(curve.operator for curve in curves):
        of = [curve for curve in curves if curve.operator == operator]
        sides = [[curve for curve in of if curve.kind == kind] for kind in ("reasoning", "knowledge")]
        kinds[operator] = compare_kinds(of, neutral=neutral)
        all_layers[operator] = compare_kinds(of)
        if sides[0] and sides[1]:
            pairs[operator] = compare_depth(sides[0][0], sides[1][0], neutral=neutral)
    joint, joint_all_layers = (joint_p([*_counted(of).values()]) for of in (kinds, all_layers))
    alike_ = _alike(curves, families, neutral)
    return Lab(tuple(curves), tuple(depths), kinds, all_layers, joint, joint_all_layers, pairs, alike_, parts, neutral)


def _counted(findings: Mapping[str, KindFinding]) -> dict[str, KindFinding]:
    """Those that are evidence by themselves."""
    return {name: found for name, found in findings.items() if not name.endswith(ASIDE)}


def _verdict(findings: Mapping[str, KindFinding], joint: Mapping[str, float]) -> str:
    counted = _counted(findings)
    shown = [name for name in counted if joint.get(name, 1.0) <= ALPHA]
    deeper = [name for name in shown if counted[name].difference > 0]
    shallower = [name for name in shown if name not in deeper]
    asked = f"{len(counted)} operator{'s' * (len(counted) != 1)}"
    if deeper and shallower:
        told = f"{', '.join(deeper)} say deeper and {', '.join(shallower)} shallower"
        return f"Operators disagree about reasoning in higher layers: {told}, of {asked}."
    if not shown:
        return f"Inconclusive: of {asked} none shows a difference of depth between kinds ({len(joint)} could)."
    word, names = ("For", deeper) if deeper else ("Against", shallower)
    where = "deeper" if deeper else "shallower"
    return (
        f"{word} reasoning in higher layers: {len(names)} of {asked} place it {where} than knowledge "
        f"({', '.join(names)}), and none the other way round."
    )


def _alike(curves: Sequence[Curve], families: Sequence[Family], neutral: Curve | None) -> Alike | None:
    """Of the first operator, if it measured every item: patching has pairs instead, and graded answers fewer."""
    of = {curve.family: curve for curve in curves if curve.operator == curves[0].operator}  # none, of no curves
    sides = [
        next(((f, of[f.name]) for f in families if f.kind == kind and f.name in of), None)
        for kind in ("reasoning", "knowledge")
    ]
    whole = [side for side in sides if side is not None and len(side[0].metric) == len(side[1].clean)]
    return alike(whole[0], whole[1], neutral) if len(whole) == 2 else None
