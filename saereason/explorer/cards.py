"""One feature as the page shows it: plain values, all of which become JSON."""

import math
from collections.abc import Sequence
from typing import Any

from saereason.controls import Verdict
from saereason.effects import Sweep
from saereason.features import Feature
from saereason.search import Context, FeatureCard, feature_card

from .evidence import evidence
from .exploration import Exploration, Progress
from .windows import Acts, acts_on, windows

Card = dict[str, Any]


def cards(ex: Exploration, features: Sequence[Feature], progress: Progress = lambda done, total: None) -> list[Card]:
    """Of each feature; the texts are read once for all. Raises ValueError for a feature that is not in the table."""
    told = [feature_card(ex.model, ex.saes, feature, ex.contexts) for feature in features]
    rows = {each.row: ex.rows[each.row] for one in told for each in _contexts(one)}
    acts, depths = acts_on(ex.model, ex.saes, features, rows), ex.depths(features)
    found = []
    for done, one in enumerate(told, 1):
        found.append(_card(ex, one, acts[one.feature], depths[one.feature]))
        progress(done, len(told))
    return found


def _contexts(card: FeatureCard) -> list[Context]:
    return [*card.top, *(each for some in card.quantiles.values() for each in some)]


def _card(ex: Exploration, card: FeatureCard, acts: Acts, depth: list[float]) -> Card:
    feature = card.feature
    return {
        "feature": str(feature),
        "n_tokens": card.n_tokens,
        "firing_rate": card.firing_rate,
        "max_act": card.max_act,
        "top": _windows(ex, acts, card.top),
        "quantiles": [[q, _windows(ex, acts, some)] for q, some in card.quantiles.items()],
        "density": [list(each) for each in card.density],
        "raised": [list(each) for each in card.written.raised],
        "lowered": [list(each) for each in card.written.lowered],
        "neighbours": [[str(other), round(cosine, 3)] for other, cosine in card.neighbours],
        "depth": depth,
        "scores": [
            [each.name, *map(number, (each.value, each.low, each.high))]
            for each in evidence(ex.table, feature, ex.block)
        ],
        "verdict": _verdict(ex.verdicts.get(feature)),
        "doses": doses(ex.sweep, feature),
    }


def _windows(ex: Exploration, acts: Acts, contexts: Sequence[Context]) -> list[list[Any]]:
    """Tokens, activations, and the place of the token that each is about."""
    return [[list(w.tokens), list(w.acts), w.focus] for w in windows(ex.model, ex.rows, acts, contexts)]


def _verdict(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    rungs = [
        {
            "number": rung.number,
            "name": rung.name,
            "passed": rung.passed,
            "said": rung.said,
            "figure": [*map(number, (rung.figure.value, rung.figure.low, rung.figure.high))] if rung.figure else None,
            "unit": rung.unit,
            "n": rung.n,
            "against": list(rung.against),
        }
        for rung in verdict.rungs
    ]
    return {"behaviour": verdict.behaviour, "height": verdict.height, "said": str(verdict), "rungs": rungs}


def doses(sweep: Sweep | None, feature: Feature) -> list[dict[str, Any]]:
    """Of each arm of a sweep that edits this feature and no other: its size, accuracy with interval, and change."""
    arms = {} if sweep is None else sweep.arms
    named = {name for name, arm in arms.items() if len(arm) == 1 and feature in _features(arm[0])}
    if sweep is None or not named:
        return []
    rows = sweep.summary().to_dict("records")
    clean = next(row for row in rows if row["arm"] == "clean")
    return [
        {
            "arm": row["arm"],
            "kind": row["target"],
            "size": number(row["size"]),
            "when": row["when"],
            "accuracy": [number(row[f"accuracy{end}"]) for end in ("", "_low", "_high")],
            "change": [number(row[f"change{end}"]) for end in ("", "_low", "_high")],
            "clean": number(clean["accuracy"]),
        }
        for row in rows
        if row["arm"] in named
    ]


def _features(edit: Any) -> tuple[Feature, ...]:
    one = getattr(edit, "feature", None)
    several = tuple(getattr(edit, "features", ()) or ())
    return (one,) if one is not None else several if len(several) == 1 else ()


def number(value: Any) -> float | None:
    """A figure as JSON has it, in six digits; None for what is not finite."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
