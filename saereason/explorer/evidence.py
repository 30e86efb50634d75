"""What is known of how a feature goes with a behaviour: every score, with its interval where prompts are at hand."""

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from saereason.features import Feature, FeatureTable
from saereason.search import Block
from saereason.stats import Estimate, auroc_interval, bootstrap, mean_interval, wilson
from saereason.stats.sizes import MISSED

N_RESAMPLES = 500

MEANS, COMPARED = ("difference", "mean_on", "mean_off"), 8
"""Columns by which a block is told to be that of a table's search, and the features that are compared."""

Side = Float[np.ndarray, "prompt"]


@dataclass(frozen=True)
class Score:
    """A column of the table for one feature; `low` and `high` are None where the prompts behind it are not at hand."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def scores(table: FeatureTable) -> list[str]:
    """The names of a table's columns of numbers, one a feature (true counts as 1); layer and index are none."""
    numeric = [name for name, column in table.columns.items() if column.ndim == 1 and column.dtype.kind in "fiub"]
    return [name for name in numeric if name not in ("layer", "index")]


def evidence(table: FeatureTable, feature: Feature, block: Block | None = None) -> list[Score]:
    """Every score of a feature in the table's order; intervals (95%) resample prompts, pairs together."""
    row = table.row(feature)
    known = {} if block is None else intervals(block, feature)
    found = []
    for name in scores(table):
        each = known.get(name)
        found.append(Score(name, float(row[name]), *((None, None) if each is None else (each.low, each.high))))
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
        for name, statistic in (
            ("cohens_d", partial(_cohens_d, usual=_deviation(on, off))),
            ("correlation", _correlation),
        ):
            found[name] = bootstrap(statistic, on, off, n_resamples=N_RESAMPLES)
    return found


def check_block(table: FeatureTable, block: Block) -> None:
    """Raises ValueError for a block that lacks features of the table, or where the table's means are not its own."""
    place = {Feature(*each): n for n, each in enumerate(block.features.tolist())}
    if not place.keys() >= {*table}:
        raise ValueError(f"the block at {block.folder} lacks features of the table; give the block of its search.")
    known = [name for name in MEANS if name in table.columns]
    for feature in table.top(COMPARED, known[0]) if known else ():
        values, row = block.read(slice(place[feature], place[feature] + 1))[:, 0].astype(np.float64), table.row(feature)
        on, off = values[block.label].mean(), values[~block.label].mean()
        for name, value in zip(MEANS, (on - off, on, off), strict=True):
            if name in known and not np.isclose(value, row[name], rtol=1e-3, atol=1e-6):
                raise ValueError(
                    f"{name} of {feature} is {row[name]:.4g} in the table and {value:.4g} in the block at "
                    f"{block.folder}; give the block of this table's search."
                )


def _deviation(on: Side, off: Side) -> float:
    """Pooled."""
    return float(
        np.sqrt((on.var(ddof=1) * (len(on) - 1) + off.var(ddof=1) * (len(off) - 1)) / (len(on) + len(off) - 2))
    )


def _cohens_d(on: Side, off: Side, usual: float) -> float:
    """As `search` has it. A draw with hardly any of the `usual` deviation has missed what varies: that stands in."""
    difference, deviation = float(on.mean() - off.mean()), _deviation(on, off)
    size = max(deviation if deviation > MISSED * usual else usual, 1e-9 * abs(difference))
    return difference / size if size else 0.0


def _correlation(on: Side, off: Side) -> float:
    """0 for a draw in which nothing varies."""
    values, label = np.concatenate([on, off]), np.repeat([1.0, 0.0], [len(on), len(off)])
    return float(np.corrcoef(values, label)[0, 1]) if np.ptp(values) > 0 else 0.0
