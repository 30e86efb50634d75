"""Rung 5: is there a cheaper explanation of what steering does?"""

from collections import Counter
from collections.abc import Sequence

from saereason.effects import right
from saereason.stats import paired_difference
from saereason.steering import AddVector, Intervention, at_kl

from .bench import Bench, Candidate
from .chance import steering
from .rung import Rung, added, untried


def beats_the_cheap(bench: Bench, candidate: Candidate) -> Rung:
    """Passes if steering brings the behaviour about on more prompts than its own first token does, put there by hand
    (the interval of the paired difference is above 0), and on no fewer than DiffMean does at the same KL (the interval
    is not below 0). The lead over DiffMean says whether the SAE has added anything. Asking for the
    behaviour in words stands beside and does not decide.
    """
    trial = bench.behaviour.absent
    if trial is None:
        return untried(5, "the behaviour has no prompts to steer on")
    table = bench.arm(trial, [steering(bench, candidate)])
    steered = right(table)
    openings = [[int(token)] if token >= 0 else [] for token in table["first_token"]]
    forced = right(bench.arm(trial, forced=openings))
    direction, kl, reached = _diff_mean(bench, candidate)
    mean = bench.right(trial, direction)
    over_prefix, over_mean = paired_difference(steered, forced), paired_difference(steered, mean)
    said = [
        f"{steered.mean():.0%} of {len(steered)} prompts when steered, {forced.mean():.0%} with its first token put "
        f"there by hand ({_commonest(bench, openings)}): {over_prefix}",
        f"{mean.mean():.0%} with DiffMean at {reached:.2g} nats ({kl:.2g} for the feature): {over_mean}"
        f"{added(over_mean)}",
    ]
    details = {"forced_prefix": forced.mean(), "diff_mean": mean.mean(), "kl": kl, "kl_diff_mean": reached}
    against = ["forced first token", "DiffMean at the same KL"]
    if bench.behaviour.instructed is not None:
        asked = bench.right(bench.behaviour.instructed)
        details["instructed"] = asked.mean()
        said.append(f"{asked.mean():.0%} when asked for in words")
        against.append("the instruction in words")
    return Rung(
        5,
        bool(over_prefix.low > 0 and over_mean.high >= 0),
        "; ".join(said),
        over_prefix,
        "share of prompts",
        len(steered),
        tuple(against),
        {name: float(value) for name, value in details.items()},
    )


def _diff_mean(bench: Bench, candidate: Candidate) -> tuple[Intervention, float, float]:
    """DiffMean of discovery at the feature's layer and KL (or the least that can be told), the feature's KL, and the
    one reached.
    """
    layer, when = candidate.feature.layer, bench.behaviour.when
    vector = bench.direction(layer)

    def sized(size: float) -> AddVector:
        return AddVector(layer, vector, size, when, "DiffMean")

    divergence = bench.divergence
    kl = float(divergence(bench.saes, steering(bench, candidate)).mean())
    target = max(kl, divergence.least(bench.saes, sized(1.0)))
    matched, reached = at_kl(divergence, bench.saes, sized, target)
    return matched, kl, reached


def _commonest(bench: Bench, openings: Sequence[Sequence[int]]) -> str:
    """The first token that steering produces most often, and how often."""
    counted = Counter(row[0] for row in openings if row)
    if not counted:
        return "none"
    token, n = counted.most_common(1)[0]
    return f"{bench.model.decode([token])!r} in {n / len(openings):.0%}"
