"""Rungs 6 and 7: does the feature matter to the task, and is it needed for the behaviour?"""

import numpy as np

from saereason.effects import share_of
from saereason.stats import mcnemar, mean_interval, paired_difference
from saereason.steering import Clamp, Everywhere
from saereason.tasks import Outcome

from .bench import Bench, Candidate
from .chance import steering
from .rung import ALPHA, Rung, untried

SHARED = 0.1
"""Share of matched features that may be needed as much: one drawn at random may be another part of the mechanism."""


def changes_the_task(bench: Bench, candidate: Candidate) -> Rung:
    """Passes if steering helps or harms the task on confirmation's prompts: McNemar's p at most 0.05.

    Answers that are unparsable, truncated or looping count as wrong, and their shares are given apart.
    """
    trial = bench.behaviour.task or bench.behaviour.absent
    if trial is None:
        return untried(6, "the behaviour has no task")
    clean, edited = bench.arm(trial), bench.arm(trial, [steering(bench, candidate)])
    a, b = (bench.right(trial, steering(bench, candidate)), bench.right(trial))
    figure, p = paired_difference(a, b), mcnemar(a, b)
    failed = (Outcome.UNPARSABLE, Outcome.TRUNCATED, Outcome.LOOPING)
    said = (
        f"{b.mean():.0%} right without and {a.mean():.0%} with steering ({figure}, McNemar p = {p:.2g}); "
        f"{share_of(clean, *failed):.0%} and {share_of(edited, *failed):.0%} unparsable, truncated or looping"
    )
    details = {"p": p} | {
        f"{o.value}_{n}": share_of(t, o) for o in failed for n, t in (("clean", clean), ("steered", edited))
    }
    return Rung(6, p <= ALPHA, said, figure, "share of prompts", len(a), ("the model as it stands",), details)


def is_necessary(bench: Bench, candidate: Candidate) -> Rung:
    """Passes if ablating the feature everywhere takes the behaviour away on more prompts than it brings it (the
    interval of the paired difference is below 0); on more than ablation of `n_draws` matched features does on average
    (the interval of that lead is below 0); and than at least nine of ten of those do each. Copies of the feature are
    not among them, as on rung 4.
    """
    trial = bench.behaviour.present
    if trial is None:
        return untried(7, "the behaviour has no prompts on which it shows")
    if candidate.sign < 0:
        return untried(7, "it is less active with the behaviour, so there is nothing to ablate")
    try:
        others = bench.random_features(candidate.feature, bench.seed + 1)
    except ValueError as error:  # too few that fire
        return untried(7, str(error))
    clean = bench.right(trial)
    ablated = bench.right(trial, Clamp(candidate.feature, 0.0, Everywhere()))
    matched = np.stack([bench.right(trial, Clamp(other, 0.0, Everywhere())) for other in others])
    figure = paired_difference(ablated, clean)
    lead = mean_interval(ablated - matched.mean(axis=0), seed=bench.seed)
    said = (
        f"{clean.mean():.0%} of {len(clean)} prompts show it, {ablated.mean():.0%} without the feature ({figure}), "
        f"{matched.mean():.0%} on average and {matched.mean(axis=1).min():.0%} at least without one of "
        f"{len(others)} matched features"
    )
    as_needed = np.mean(matched.mean(axis=1) <= ablated.mean())
    passed = figure.high < 0 and lead.high < 0 and as_needed <= SHARED
    details = {
        "clean": clean.mean(),
        "ablated": ablated.mean(),
        "matched": matched.mean(),
        "over_matched": lead.value,
        "as_needed": as_needed,
    }
    against = (f"ablation of {len(others)} matched features",)
    return Rung(
        7,
        bool(passed),
        said,
        figure,
        "share of prompts",
        len(clean),
        against,
        {k: float(v) for k, v in details.items()},
    )
