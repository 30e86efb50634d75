"""What is known of how a feature goes with a behaviour: every score, with its interval where prompts are at hand."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from saereason.features import Feature, FeatureTable
from saereason.search import Block
from saereason.stats import Estimate, auroc_interval, bootstrap, mean_interval, wilson

N_RESAMPLES = 500
Side = Float[np.ndarray, "prompt"]


@dataclass(frozen=True)
class Score:
    """A column of the table for one feature; `low` and `high` are None where the prompts behind it are not at hand."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def evidence(table: FeatureTable, feature: Feature, block: Block | None = None) -> list[Score]:
    """Every score of a feature in the table's order; intervals (95%) resample prompts, pairs together."""
    row = table.row(feature)
    known = {} if block is None else intervals(block, feature)
    found = []
    for name, value in row.items():
        if name in ("layer", "index") or not isinstance(value, int | float):
            continue
        each = known.get(name)
        found.append(Score(name, float(value), *((None, None) if each is None else (each.low, each.high))))
    return found


def intervals(block: Block, feature: Feature) -> dict[str, Estimate]:
    """By the name of a search's column, its interval for one feature. Raises ValueError for one the block lacks."""
    at = np.flatnonzero((block.features == (feature.layer, feature.index)).all(axis=1))
    if not len(at):
        raise ValueError(f"{feature} is not in the block at {block.folder}; give the block of this table's search.")
    values = block.read(slice(int(at[0]), int(at[0]) + 1))[:, 0].astype(np.float64)
    on, off = values[block.label], values[~block.label]
    found = {"mean_on": mean_interval(on), "mean_off": mean_interval(off)}
    found |= {name: wilson(int((x > 0).sum()), len(x)) for name, x in (("rate_on", on), ("rate_off", off))}
    found["auroc"] = auroc_interval((on, off), paired=block.paired, n_resamples=N_RESAMPLES)
    if block.paired:
        found["difference"] = mean_interval(on - off)
        for name, statistic in (("cohens_d", _cohens_d), ("correlation", _correlation)):
            found[name] = bootstrap(_safely(statistic), on, off, n_resamples=N_RESAMPLES)
    return found


def _cohens_d(on: Side, off: Side) -> float:
    pooled = ((on.var(ddof=1) * (len(on) - 1)) + (off.var(ddof=1) * (len(off) - 1))) / (len(on) + len(off) - 2)
    return float((on.mean() - off.mean()) / np.sqrt(pooled))


def _correlation(on: Side, off: Side) -> float:
    label = np.repeat([1.0, 0.0], [len(on), len(off)])
    return float(np.corrcoef(np.concatenate([on, off]), label)[0, 1])


def _safely(statistic: Callable[[Side, Side], float]) -> Callable[[Side, Side], float]:
    """0 for a draw in which nothing varies."""

    def value(on: Side, off: Side) -> float:
        return statistic(on, off) if np.ptp(on) + np.ptp(off) > 0 else 0.0

    return value
