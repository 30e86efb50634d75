"""How far up the ladder a feature came."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saereason.features import Feature

from .rung import NAMES, Rung


@dataclass(frozen=True)
class Verdict:
    """Every rung of the ladder for one feature. Prints as one sentence."""

    feature: Feature
    behaviour: str
    rungs: tuple[Rung, ...]
    coefficient: float
    n_features: int
    """Searched."""

    n_candidates: int
    n_sizes: int
    """Tried on discovery for each candidate."""

    @property
    def height(self) -> int:
        """The highest rung below which every one is passed; the ladder is not an order of nature, so look at all."""
        height = 0
        for rung in self.rungs:
            if not rung.passed:
                break
            height = rung.number
        return height

    @property
    def stopped_by(self) -> Rung | None:
        """The first rung that is not passed."""
        return next((rung for rung in self.rungs if not rung.passed), None)

    def __str__(self) -> str:
        stop = self.stopped_by
        if stop is None:
            last = self.rungs[-1]
            told = f"it passes all {len(self.rungs)} rungs; at the last, {last.said}{_held_against(last)}"
        else:
            shown = f"it {NAMES[self.height][0]} (rung {self.height}), but" if self.height else "nothing is shown:"
            fails = f"whether it {stop.name} was not tried" if stop.passed is None else f"it {NAMES[stop.number][1]}"
            told = f"{shown} {fails} (rung {stop.number}): {stop.said}{_held_against(stop)}"
            above = " and ".join(
                f"{word} rung{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
                for word, passed in (("passes", True), ("fails", False))
                if (numbers := [str(r.number) for r in self.rungs if r.number > stop.number and r.passed is passed])
            )
            told += f"; above, it {above}" * bool(above)
        of = f"candidate{'s' * (self.n_candidates > 1)} of {self.n_features:,} features"
        tried = f"{self.n_candidates} {of}, {self.n_sizes} sizes each"
        return f"{self.feature} as {self.behaviour}: {told}; {tried}."


def _held_against(rung: Rung) -> str:
    """On how many prompts, against which controls."""
    return f" (n = {rung.n}, against {', '.join(rung.against)})" if rung.against else ""


def standing(verdicts: Sequence[Verdict]) -> list[int]:
    """How many of the features stand on each rung: they pass it and every one before."""
    return [sum(verdict.height >= number for verdict in verdicts) for number in NAMES]


def verdict_rows(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """One row a feature and rung, for a table."""
    return [
        {
            "feature": str(verdict.feature),
            "layer": verdict.feature.layer,
            "index": verdict.feature.index,
            "behaviour": verdict.behaviour,
            "coefficient": verdict.coefficient,
            "height": verdict.height,
            "rung": rung.number,
            "name": rung.name,
            "outcome": {True: "passed", False: "failed", None: "not tried"}[rung.passed],
            "value": rung.figure.value if rung.figure else float("nan"),
            "low": rung.figure.low if rung.figure else float("nan"),
            "high": rung.figure.high if rung.figure else float("nan"),
            "unit": rung.unit,
            "n": rung.n,
            "against": ", ".join(rung.against),
            "said": rung.said,
            "details": json.dumps(dict(rung.details)),
        }
        for verdict in verdicts
        for rung in verdict.rungs
    ]
