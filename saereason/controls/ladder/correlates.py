"""Rungs 1 and 2: does the feature go with the behaviour, and does it on prompts that search never saw?"""

from dataclasses import replace

import numpy as np

from saereason.search import Block
from saereason.stats import Estimate, above, auroc_interval, auroc_lead

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
    family = f"of {len(columns)} candidate{'s' * (len(columns) > 1)}, on new prompts"
    return _beside(_rung(2, found, candidate, float(p), family, bench), bench, candidate)


def _beside(rung: Rung, bench: Bench, candidate: Candidate) -> Rung:
    """The rung, with how well DiffMean and a probe tell the same prompts apart."""
    found, rivals = bench.confirmation, bench.baselines(candidate.feature.layer)
    label, paired = found.block.label, found.block.paired
    own = candidate.sign * np.asarray(found.block.values[:, found.column(candidate.feature)], dtype=np.float64)
    aurocs = {name: above(scores[label], scores[~label]) for name, scores in rivals.items()}
    best = max(aurocs, key=lambda name: aurocs[name])
    sides = [(scores[label], scores[~label]) for scores in (own, rivals[best])]
    lead = auroc_lead(sides[0], sides[1], paired=paired, seed=bench.seed)
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


def separation(block: Block, column: int, *, seed: int = 0) -> Estimate:
    """A feature's AUROC with an interval over prompts."""
    values = np.asarray(block.values[:, column], dtype=np.float64)
    return auroc_interval((values[block.label], values[~block.label]), paired=block.paired, seed=seed)
