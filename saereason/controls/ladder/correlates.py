"""Rungs 1 and 2: does the feature go with the behaviour, and does it on prompts that search never saw?"""

import numpy as np

from saereason.search import Block
from saereason.stats import Estimate

from .bench import Bench, Candidate, Found
from .rung import ALPHA, Rung


def correlates(bench: Bench, candidate: Candidate) -> Rung:
    """Passes if max-T's p, adjusted for every feature of every SAE searched, is at most 0.05 on discovery."""
    table = bench.discovery.table
    row = table.row(candidate.feature)
    layers = len(np.unique(table["layer"]))
    return _rung(1, bench.discovery, candidate, row["p_max_t"], f"of {len(table):,} features at {layers} layers", bench)


def replicates(bench: Bench, candidate: Candidate) -> Rung:
    """Passes if on confirmation the sign is the same and max-T's p, adjusted for the candidates, is at most 0.05."""
    found = bench.confirmation
    columns = np.array([found.column(feature) for feature in bench.features])
    p = found.block.max_t(columns, seed=bench.seed)[bench.features.index(candidate.feature)]
    return _rung(2, found, candidate, float(p), f"of {len(columns)} candidates, on new prompts", bench)


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
    values, label = np.asarray(block.values[:, column], dtype=np.float64), block.label
    on, off = values[label], values[~label]
    rng = np.random.default_rng(seed)
    draws = np.empty(n_resamples)
    for n in range(n_resamples):
        first = rng.integers(len(on), size=len(on))
        second = first if block.paired else rng.integers(len(off), size=len(off))
        draws[n] = above(on[first], off[second])
    low, high = np.quantile(draws, [0.025, 0.975])
    value = above(on, off)
    return Estimate(value, float(min(low, value)), float(max(high, value)))


def above(on: np.ndarray, off: np.ndarray) -> float:
    """The probability that one of `on` is above one of `off`, ties counted half."""
    off = np.sort(off)
    return float((np.searchsorted(off, on, "left") + np.searchsorted(off, on, "right")).mean() / 2 / len(off))
