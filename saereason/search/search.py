"""Score every feature of every SAE in one streaming pass."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saereason.examples import Examples
from saereason.features import FeatureTable
from saereason.model import Model
from saereason.saes import SAE, check_saes

from .block import Block, Filling, filled, is_paired
from .moments import Moments, moments
from .pooled import Pool, Pooled, TokenSums, pooled
from .scores import auroc, cohens_d, pearson, point_biserial, welch_t


@dataclass(frozen=True, eq=False)
class _Sums:
    """What is kept of one layer: O(d_sae), however many prompts."""

    on: Moments
    off: Moments
    difference: Moments
    """Over pairs; empty where there are none."""

    active: Float[Tensor, "label d_sae"]
    """Observations off and on with any activation."""

    tokens: TokenSums

    @classmethod
    def of(cls, batch: Pooled, layer: int, *, paired: bool) -> "_Sums":
        values = batch.values[layer].cpu()
        on, off = values[batch.label], values[~batch.label]
        active = torch.stack([acts.sign().sum(0).double() for acts in (off, on)])
        return cls(moments(on), moments(off), moments(on - off if paired else on[:0]), active, batch.tokens[layer])

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def _in_place(held: Any, new: Any) -> Any:
    """`new`, in the memory of `held`: sums that moved with every batch would leave the heap in pieces."""
    if isinstance(held, Tensor):
        return held.copy_(new)
    if isinstance(held, int):
        return new
    parts = zip(vars(held).values(), vars(new).values(), strict=True)
    return type(held)(*(_in_place(old, each) for old, each in parts))


COMPARED = 8
"""Features by which a table is told to be a block's own."""


@torch.no_grad()
def search(
    model: Model,
    saes: Mapping[int, SAE],
    examples: Examples,
    *,
    pool: Pool = "mean",
    block: str | Path | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureTable:
    """Every feature's scores over all layers at once; a prompt counts once, by its mean or largest activation.

    Columns: `difference` (mean activation on less off; over pairs: He et al., arXiv 2601.08058), `studentised` (that
    over its standard error, what to rank by: paired t over pairs, Welch's t otherwise), `cohens_d`, `correlation` (of a
    prompt's activation with its label: with being right, for `Examples.graded`), `pearson` (over tokens, with the label
    or the examples' `target`), `mean_on`, `mean_off`, `rate_on`, `rate_off` (share of prompts on which the feature is
    active at all). With `block`, a folder, one value for each prompt and feature is kept there, which resampling
    (`add_max_t`) reads, and `auroc` is a column too. Activations are computed in the model's own precision. Warns where
    prompts are there more than once, since each counts. Raises ValueError for examples with fewer than two prompts of a
    kind, and for a target that is not one finite number for each scored token.
    """
    if not saes:
        raise ValueError("there are no SAEs to search; give at least one layer's.")
    if pool not in get_args(Pool):
        raise ValueError(f"pool is {pool!r}; it must be one of {', '.join(get_args(Pool))}.")
    check_saes(model, saes)
    saes, layers = dict(sorted(saes.items())), sorted(saes)
    rows = examples.observations()
    paired, folder = is_paired(rows), None if block is None else Path(block)
    _check(examples, rows)
    sizes = [len(saes[layer].W_dec) for layer in layers]
    features = np.stack([np.repeat(layers, sizes), np.concatenate([np.arange(size) for size in sizes])], axis=1)
    sums: dict[int, _Sums] = {}
    with _block(folder, len(rows), features) as filling:
        done = 0
        told = lambda n: progress(n, len(rows))  # noqa: E731
        for batch in pooled(model, saes, examples, pool=pool, batch_size=batch_size, progress=told):
            now = slice(done, done + len(batch.label))
            for layer in layers:
                part = _Sums.of(batch, layer, paired=paired)
                sums[layer] = _in_place(sums[layer], sums[layer] + part) if layer in sums else part
            if filling is not None:
                filling.add(rows[now], torch.cat([batch.values[layer].cpu() for layer in layers], dim=1).numpy())
            done = now.stop
        table = _table(features, [sums[layer] for layer in layers], paired=paired)
    return table if folder is None else table.with_column("auroc", _auroc(Block.open(folder)))


def _check(examples: Examples, rows: np.ndarray) -> None:
    n_on = int(rows[:, 1].sum())
    if min(n_on, len(rows) - n_on) < 2:
        raise ValueError(f"{n_on} prompts show the behaviour and {len(rows) - n_on} do not; give two of each at least.")
    target = examples.target
    if target is not None and (target.shape != examples.tokens.shape or not target[examples.valid].isfinite().all()):
        raise ValueError(
            f"the target is of shape {tuple(target.shape)}, the tokens of {tuple(examples.tokens.shape)}, and not all "
            "of it may be finite; give a finite number for each scored token."
        )
    if again := examples.n_repeated:
        warnings.warn(
            f"{again} of {examples.n_groups} prompts are there before and count once more, which makes p-values and "
            "intervals too small; give each once.",
            stacklevel=4,
        )


@contextmanager
def _block(folder: Path | None, n: int, features: np.ndarray) -> Iterator[Filling | None]:
    if folder is None:
        yield None
        return
    with filled(folder, n, features) as filling:
        yield filling


def add_max_t(table: FeatureTable, block: Path, *, n_permutations: int = 1000, seed: int = 0) -> FeatureTable:
    """Add `p_max_t`: two-sided p adjusted for the whole family of features, by sign flips within pairs.

    Where prompts are not paired, by shuffles of their labels. Raises ValueError for a table in another order than the
    block's, such as a sorted one, and for prompts with both labels that are not all pairs.
    """
    kept = Block.open(block)
    if len(kept.features) != len(table):
        raise ValueError(f"{block} has {len(kept.features)} features and the table {len(table)}; give its own table.")
    if (np.stack([table["layer"], table["index"]], axis=1) != kept.features).any():
        raise ValueError(
            "the table is not in the order of its features, which is the block's; give it as `search` did."
        )
    if "difference" in table.columns and not _agrees(table, kept):
        raise ValueError(f"{block} holds activations on other prompts than the table's; give the table's own block.")
    return table.with_column("p_max_t", kept.max_t(n_permutations=n_permutations, seed=seed))


def _agrees(table: FeatureTable, block: Block) -> bool:
    """True if the features that differ most in the table differ as much in the block."""
    some = np.argsort(-np.abs(table["difference"]))[:COMPARED]
    values = np.ascontiguousarray(block.values[:, some])
    on, off = (values[which].mean(axis=0, dtype=np.float64) for which in (block.label, ~block.label))
    return np.allclose(on - off, table["difference"][some], rtol=1e-3, atol=1e-6)


def _auroc(block: Block) -> Float[np.ndarray, "feature"]:
    return np.concatenate([auroc(values, block.label) for _, values in block.chunks()])


def _table(features: np.ndarray, sums: list[_Sums], *, paired: bool) -> FeatureTable:
    def column(values: Callable[[_Sums], Tensor]) -> np.ndarray:
        return torch.cat([values(each) for each in sums]).numpy()

    return FeatureTable(
        {
            "layer": features[:, 0],
            "index": features[:, 1],
            "difference": column(lambda s: s.on.mean - s.off.mean),
            "studentised": column(lambda s: s.difference.studentised if paired else welch_t(s.on, s.off)),
            "cohens_d": column(lambda s: cohens_d(s.on, s.off)),
            "correlation": column(lambda s: point_biserial(s.on, s.off)),
            "pearson": column(lambda s: pearson(s.tokens)),
            "mean_on": column(lambda s: s.on.mean),
            "mean_off": column(lambda s: s.off.mean),
            "rate_on": column(lambda s: s.active[1] / s.on.count),
            "rate_off": column(lambda s: s.active[0] / s.off.count),
        }
    )
