"""Score every feature of every SAE in one streaming pass."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saereason.examples import Examples
from saereason.features import FeatureTable
from saereason.hooks import read
from saereason.model import Model
from saereason.runs import write_file
from saereason.saes import SAE, check_saes
from saereason.stats import max_t

from .moments import Moments, moments


@dataclass(frozen=True, eq=False)
class _Sums:
    """What is kept of one layer: O(d_sae), however many prompts."""

    difference: Moments
    on: Moments
    off: Moments
    active: Float[Tensor, "label d_sae"]

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(
            self.difference + other.difference,
            self.on + other.on,
            self.off + other.off,
            self.active + other.active,
        )


@torch.no_grad()
def search(
    model: Model,
    saes: Mapping[int, SAE],
    examples: Examples,
    *,
    block: Path | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureTable:
    """The paired difference of every feature (He et al., arXiv 2601.08058) over all layers at once.

    Columns: `difference` (mean over pairs of activation on less off), `studentised` (that over its standard error,
    what to rank by), `mean_on`, `mean_off`, `rate_on`, `rate_off` (share of prompts on which the feature is active).
    With `block`, the differences are also written there, `[pairs, features]` in the table's order, for rank scores
    and resampling (`add_max_t`). Raises ValueError for examples that are not pairs with one scored token a prompt.
    """
    _check(saes, examples)
    check_saes(model, saes)
    layers = sorted(saes)
    widths = [len(saes[layer].W_dec) for layer in layers]
    sums: dict[int, _Sums] = {}
    with _memory(block, (examples.n_groups, sum(widths))) as memory:
        done = 0
        for batch in examples.batches(batch_size, model.device):
            resid = read(model, batch.batch, layers)
            pairs = slice(done, done + len(batch.tokens) // 2)
            for n, layer in enumerate(layers):
                acts = saes[layer].encode(resid[layer][batch.valid].float())
                on, off = _paired(acts, batch.label[batch.valid])
                part = _sums(on, off)
                sums[layer] = sums[layer] + part if layer in sums else part
                if memory is not None:
                    memory[pairs, sum(widths[:n]) : sum(widths[: n + 1])] = (on - off).cpu().numpy()
            done = pairs.stop
            progress(done, examples.n_groups)
    return _table(layers, widths, sums)


@contextmanager
def _memory(block: Path | None, shape: tuple[int, int]) -> Iterator[np.ndarray | None]:
    """A float32 array on disk to fill row by row, there under its name only once it is whole."""
    if block is None:
        yield None
        return
    with write_file(block) as partial:
        memory = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        yield memory
        memory.flush()


def add_max_t(table: FeatureTable, block: Path, *, n_permutations: int = 1000, seed: int = 0) -> FeatureTable:
    """Add `p_max_t`: two-sided p adjusted for the whole family of features by sign flips within pairs.

    Raises ValueError for a table in another order than the block's, such as a sorted one.
    """
    if (np.lexsort((table["index"], table["layer"])) != np.arange(len(table))).any():
        raise ValueError(
            "the table is not in the order of its features, which is the block's; give it as `search` did."
        )
    differences = np.load(block, mmap_mode="r")
    if differences.shape[1] != len(table):
        raise ValueError(f"{block} has {differences.shape[1]} features and the table {len(table)}; give its own table.")
    return table.with_column("p_max_t", max_t(differences, n_permutations=n_permutations, seed=seed))


def _check(saes: Mapping[int, SAE], examples: Examples) -> None:
    if not saes:
        raise ValueError("there are no SAEs to search; give at least one layer's.")
    on, group = examples.label[examples.valid], examples.group
    one = (examples.valid.sum(-1) == 1).all() and len(group) % 2 == 0
    if not (one and (group[::2] == group[1::2]).all() and (on[::2] != on[1::2]).all() and len(group)):
        raise ValueError("examples must be pairs of rows, one on and one off, with one scored token each.")


def _paired(acts: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Activations on and off, `[pair, d_sae]` each, in the order of the pairs."""
    return acts[label], acts[~label]


def _sums(on: Tensor, off: Tensor) -> _Sums:
    active = torch.stack([(acts > 0).sum(0).cpu().double() for acts in (on, off)])
    return _Sums(moments((on - off).cpu()), moments(on.cpu()), moments(off.cpu()), active)


def _table(layers: list[int], widths: list[int], sums: Mapping[int, _Sums]) -> FeatureTable:
    def column(values: Callable[[_Sums], Tensor]) -> np.ndarray:
        return torch.cat([values(sums[layer]) for layer in layers]).numpy()

    n = sums[layers[0]].difference.count
    return FeatureTable(
        {
            "layer": np.repeat(layers, widths),
            "index": np.concatenate([np.arange(width) for width in widths]),
            "difference": column(lambda s: s.difference.mean),
            "studentised": column(lambda s: s.difference.studentised),
            "mean_on": column(lambda s: s.on.mean),
            "mean_off": column(lambda s: s.off.mean),
            "rate_on": column(lambda s: s.active[0] / n),
            "rate_off": column(lambda s: s.active[1] / n),
        }
    )
