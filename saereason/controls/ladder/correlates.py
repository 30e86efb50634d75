"""Rungs 1 and 2: does the feature go with the behaviour, and does it on prompts that search never saw?"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from saereason.search import Block
from saereason.stats import Estimate

from .bench import Bench, Candidate, Found
from .rung import ALPHA, Rung, added


def correlates(bench: Bench, candidate: Candidate) -> Rung:
    """Passes if max-T's p, adjusted for every feature of every SAE searched, is at most 0.05 on discovery."""
    table = bench.discovery.table
    row = table.row(candidate.feature)
    layers = len(np.unique(table["layer"]))
    return _rung(1, bench.discovery, candidate, row["p_max_t"], f"of {len(table):,} features at {layers} layers", bench)


def replicates(bench: Bench, candidate: Candidate) -> Rung:
    """Passes if on confirmation the sign is the same and max-T's p, adjusted for the candidates, is at most 0.05.

    DiffMean and a logistic probe, learnt on discovery, stand beside and do not decide: the feature's lead over the
    better of them says whether the SAE has added anything to telling the behaviour.
    """
    found = bench.confirmation
    columns = np.array([found.column(feature) for feature in bench.features])
    p = found.block.max_t(columns, seed=bench.seed)[bench.features.index(candidate.feature)]
    rung = _rung(2, found, candidate, float(p), f"of {len(columns)} candidates, on new prompts", bench)
    return _beside(rung, bench, candidate)


def _beside(rung: Rung, bench: Bench, candidate: Candidate) -> Rung:
    """The rung, with how well DiffMean and a probe tell the same prompts apart."""
    found, rivals = bench.confirmation, bench.baselines(candidate.feature.layer)
    label, paired = found.block.label, found.block.paired
    own = candidate.sign * np.asarray(found.block.values[:, found.column(candidate.feature)], dtype=np.float64)
    aurocs = {name: above(scores[label], scores[~label]) for name, scores in rivals.items()}
    best = max(aurocs, key=lambda name: aurocs[name])
    lead = _bootstrapped(
        lambda on, off: above(own[on], own[off]) - above(rivals[best][on], rivals[best][off]),
        label,
        paired=paired,
        seed=bench.seed,
    )
    named = ", ".join(f"{name} {value:.3f}" for name, value in aurocs.items())
    return replace(
        rung,
        said=f"{rung.said}; {named} (the feature over {best}: {lead}{added(lead)})",
        against=(*rung.against, *rivals),
        details={**rung.details, **{f"auroc of {n}": v for n, v in aurocs.items()}, "lead": lead.value},
    )


def _rung(number: int, found: Found, candidate: Candidate, p: float, family: str, bench: Bench) -> Rung:
    figure = separation(found.block, found.column(candidate.feature), seed=bench.seed)
    right_way = (figure.value - 0.5) * candidate.sign > 0
    return Rung(
        number,
        bool(p <= ALPHA and right_way),
        f"AUROC {figure} over {found.block.n_groups} prompts, p = {p:.2g} for the family {family}",
        figure,
        "AUROC",
        found.block.n_groups,
        ("shuffled labels",),
        {"p": p},
    )


def separation(block: Block, column: int, *, n_resamples: int = 1000, seed: int = 0) -> Estimate:
    """A feature's AUROC with a bootstrap interval over prompts: pairs stay together, else each label is drawn anew."""
    values = np.asarray(block.values[:, column], dtype=np.float64)
    return _bootstrapped(
        lambda on, off: above(values[on], values[off]),
        block.label,
        paired=block.paired,
        n_resamples=n_resamples,
        seed=seed,
    )


def _bootstrapped(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    label: np.ndarray,
    *,
    paired: bool,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """A statistic of the numbers of the observations on and off, with its percentile interval over prompts."""
    on, off = np.flatnonzero(label), np.flatnonzero(~label)
    rng = np.random.default_rng(seed)
    draws = np.empty(n_resamples)
    for n in range(n_resamples):
        first = rng.integers(len(on), size=len(on))
        second = first if paired else rng.integers(len(off), size=len(off))
        draws[n] = statistic(on[first], off[second])
    low, high = np.quantile(draws, [0.025, 0.975])
    value = statistic(on, off)
    return Estimate(value, float(min(low, value)), float(max(high, value)))


def above(on: np.ndarray, off: np.ndarray) -> float:
    """The probability that one of `on` is above one of `off`, ties counted half."""
    off = np.sort(off)
    return float((np.searchsorted(off, on, "left") + np.searchsorted(off, on, "right")).mean() / 2 / len(off))
