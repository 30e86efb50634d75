"""The demo's results as figures and plain words."""

import math
from dataclasses import dataclass
from typing import Any

from saereason.effects import right
from saereason.layers import Curve, Finding
from saereason.mechanisms.exam import knowledge
from saereason.quality import Quality
from saereason.runs import write_json
from saereason.stats import Estimate, mcnemar, paired_difference

from .arms import Arms
from .choose import Choice
from .material import Splits
from .settings import Settings
from .stage import Stage


@dataclass(frozen=True, eq=False)
class Results:
    """Everything the demo measured."""

    parts: Splits
    known: list[Any]
    qualities: list[Quality]
    choice: Choice
    arms: Arms
    curves: list[Curve]
    finding: Finding
    without_vital: Finding


@dataclass(frozen=True)
class Comparison:
    """Two arms on the same problems."""

    difference: Estimate
    p: float

    def __str__(self) -> str:
        return (
            f"{self.difference.value:+.2f} [{self.difference.low:+.2f}, {self.difference.high:+.2f}], p = {self.p:.2g}"
        )


def against(table: Any, other: Any) -> Comparison:
    """Accuracy of one arm less another's: Tango's interval, exact McNemar test."""
    return Comparison(paired_difference(right(table), right(other)), mcnemar(right(table), right(other)))


def summarise(stage: Stage, results: Results) -> dict[str, Any]:
    """Write and return `summary.json`."""
    known = results.known
    shares = knowledge(known[0], known[-1])
    summary = {
        "accuracy": {name: round(value, 4) for name, value in results.arms.accuracies().items()},
        "feature": str(results.choice.feature),
        "coefficient": results.choice.coefficient,
        "n": len(results.parts.confirmation),
        "n_discovery": len(results.parts.discovery),
        "candidates_tried": results.choice.n_tried,
        "features_searched": results.choice.n_features,
        "knowledge": {"base": shares["base"], "taught": shares["taught"] if len(known) > 1 else None},
        "saes": [_quality(quality) for quality in results.qualities],
        "layers": {
            "centroid_difference": _number(results.finding.centroid_difference),
            "low": _number(results.finding.low),
            "high": _number(results.finding.high),
            "finding": results.finding.statement,
        },
        "words": words(stage.settings, results),
        "seconds": dict(stage.steps.seconds),
    }
    write_json(stage.run.folder / "summary.json", summary)
    return summary


def words(settings: Settings, results: Results) -> list[str]:
    """What was found, in plain words."""
    said = of_arms(results.arms, f"{results.choice.feature} at {results.choice.coefficient:.1f}")
    if not settings.own:
        said.append(
            "This switch was taught: the adapter was trained on two instructions with two formats. It is a positive "
            "control for the tool, not a discovery about language models."
        )
    said.append(results.finding.statement)
    if results.without_vital.layers_left_out:
        said.append(f"Without layers {list(results.without_vital.layers_left_out)}: {results.without_vital.statement}")
    return said


def of_arms(arms: Arms, name: str) -> list[str]:
    """What the arms show of an edit, which has this name."""
    gap = against(arms.tables["cot"], arms.tables["direct"])
    gain = against(arms.tables["feature"], arms.tables["direct"])
    said = []
    if gap.difference.high < 0:
        said.append(f"The CoT prompt does worse than the direct one here ({gap}), so there is no gain to switch on.")
    elif gap.difference.low <= 0:
        said.append(
            f"This model shows no gap between the direct and the CoT prompt here ({gap}), so there is no switch to "
            "find and what follows measures noise."
        )
    if gain.difference.low > 0:
        said.append(f"One edit of one feature ({name}), once, at the last prompt token, changes accuracy by {gain}.")
    elif gain.difference.high < 0:
        said.append(f"The edit ({name}) lowers accuracy against the direct prompt ({gain}).")
    else:
        said.append(f"The edit ({name}) is not shown to raise accuracy over the direct prompt ({gain}).")
    return [*said, _prefix(arms, gain), _crossed(arms)]


def _prefix(arms: Arms, gain: Comparison) -> str:
    """The edit against its first token in one sentence."""
    left, prefix = against(arms.tables["feature"], arms.tables["forced_prefix"]), arms.prefix_text
    if left.difference.low > 0:
        return f"It does more than its first token typed in by hand ({prefix!r}): {left}."
    if left.difference.high < 0:
        return f"Its first token typed in by hand ({prefix!r}) does better than the edit: {left}."
    suffices = ": the cheaper explanation suffices" if gain.difference.low > 0 else ""
    return (
        f"Its first token typed in by hand ({prefix!r}) does as well as far as this sample can tell ({left}){suffices}."
    )


def _crossed(arms: Arms) -> str:
    """The 2×2 in one sentence."""
    n = len(arms.crossed[False, "clean"])
    if not n:
        return "Every clean or steered answer is empty, so there is no first token to force."
    left_out = len(arms.tables["direct"]) - n
    edit = against(arms.crossed[True, "clean"], arms.crossed[False, "clean"])
    token = against(arms.crossed[False, "steered"], arms.crossed[False, "clean"])
    return (
        f"With the first token held to the clean one, the edit changes accuracy by {edit}; with the edit off, the "
        f"steered first token alone changes it by {token}."
        + (f" Left out: {left_out} items with an empty answer, clean or steered." if left_out else "")
    )


def _quality(quality: Quality) -> dict[str, Any]:
    return {
        "layer": quality.layer,
        "explained_variance": round(quality.explained_variance, 4),
        "l0": round(quality.l0, 2),
        "dead": round(quality.dead, 4),
        "loss_recovered": round(quality.loss_recovered, 4),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
