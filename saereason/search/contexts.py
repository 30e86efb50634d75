"""Where in a corpus every feature fires: its strongest contexts, a fair sample of all, and how strongly how often."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saereason.features import Feature
from saereason.hooks import read
from saereason.model import Model, pad
from saereason.quality import scored
from saereason.runs import write_table
from saereason.saes import SAE, Encoder, check_saes, hashes

EDGES = 2.0 ** np.arange(-12, 12.5, 0.5)
"""Activations are counted by half octaves; what lies outside counts with the first or the last."""

CONTEXTS, DENSITY = "contexts.parquet", "density.parquet"


@dataclass(frozen=True, order=True)
class Context:
    """A token on which a feature fires, as a pointer into the rows that were read."""

    row: int
    pos: int
    act: float


@dataclass(frozen=True, eq=False)
class Places:
    """Up to k tokens for each feature, those with the highest score first; `act` is 0 where there are fewer."""

    score: Float[Tensor, "feature k"]
    act: Float[Tensor, "feature k"]
    row: Int[Tensor, "feature k"]
    pos: Int[Tensor, "feature k"]

    @classmethod
    def empty(cls, n: int, k: int) -> "Places":
        whole = torch.zeros(n, k, dtype=torch.int32)
        return cls(torch.full((n, k), -torch.inf), torch.zeros(n, k), whole, whole.clone())

    def keep(self, feature: Tensor, score: Tensor, act: Tensor, row: Tensor, pos: Tensor) -> None:
        """Let new tokens in, in place of those with a lower score."""
        better = score > self.score[:, -1][feature]
        new = [each[better] for each in (score, act, row, pos)]
        touched, feature = feature[better].unique(return_inverse=True)
        k = self.score.shape[1]
        order = new[0].argsort(descending=True, stable=True)
        order = order[feature[order].argsort(stable=True)]
        counts = feature.bincount(minlength=len(touched))
        rank = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        order, rank = order[rank < k], rank[rank < k]
        mine = (self.score, self.act, self.row, self.pos)
        both = []
        for kept, values, fresh in zip(mine, new, vars(Places.empty(len(touched), k)).values(), strict=True):
            fresh[feature[order], rank] = values[order].to(fresh)
            both.append(torch.cat([kept[touched], fresh], dim=1))
        chosen = both[0].argsort(dim=1, descending=True, stable=True)[:, :k]  # of equals, what was read first
        for kept, values in zip(mine, both, strict=True):
            kept[touched] = values.gather(1, chosen)

    def of(self, number: int) -> tuple[Context, ...]:
        columns = (self.row[number].tolist(), self.pos[number].tolist(), self.act[number].tolist())
        return tuple(Context(*each) for each in zip(*columns, strict=True) if each[2] > 0)


@dataclass(frozen=True, eq=False)
class Contexts:
    """Of every feature of some SAEs, over one set of rows."""

    features: Int[np.ndarray, "feature 2"]
    """Layer and index."""

    top: Places
    """The strongest contexts, at most one of a row."""

    sample: Places
    """A uniform sample of all the tokens on which the feature fires."""

    density: Int[Tensor, "feature bin"]
    """Tokens by activation, between the `EDGES`."""

    n_tokens: int
    saes: tuple[tuple[int, str], ...]
    """Hash of each SAE, by layer."""

    def number(self, feature: Feature) -> int:
        found = np.flatnonzero((self.features == (feature.layer, feature.index)).all(axis=1))
        if not len(found):
            raise ValueError(f"{feature} is none of the {len(self.features):,} features whose contexts were read.")
        return int(found[0])

    def save(self, folder: str | Path) -> None:
        """Write `contexts.parquet` (one row a pointer) and `density.parquet` (one a bin with any firing)."""
        import pandas as pd

        folder, kinds = Path(folder), []
        for kind, places in (("top", self.top), ("sample", self.sample)):
            feature, rank = (places.act > 0).numpy().nonzero()
            at = (feature, rank)
            named = {name: getattr(places, name).numpy()[at] for name in ("score", "act", "row", "pos")}
            kinds.append(pd.DataFrame({**self._named(feature), "kind": kind, "rank": rank, **named}))
        write_table(folder / CONTEXTS, pd.concat(kinds))
        counts = self.density.numpy()
        feature, place = counts.nonzero()
        bins = {"bin": place, "low": EDGES[place], "tokens": counts[feature, place], "of": self.n_tokens}
        write_table(folder / DENSITY, pd.DataFrame({**self._named(feature), **bins}))

    def _named(self, number: Int[np.ndarray, "row"]) -> dict[str, Any]:
        return {"layer": self.features[number, 0], "index": self.features[number, 1]}


@torch.no_grad()
def feature_contexts(
    model: Model,
    saes: Mapping[int, SAE],
    rows: Sequence[Sequence[int]],
    *,
    n_top: int = 16,
    n_sampled: int = 64,
    batch_size: int = 16,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Contexts:
    """Where each feature of every SAE fires in rows of token ids; one pass, each row's first token left out.

    What is sampled depends on the seed and the rows, not on the batches. Memory is O(features), however many rows.
    Raises ValueError for rows without tokens to read, and for `n_top` or `n_sampled` below 1.
    """
    check_saes(model, saes)
    if min(n_top, n_sampled) < 1:
        raise ValueError(f"n_top is {n_top} and n_sampled {n_sampled}; both must be at least 1.")
    layers = sorted(saes)
    encoders = {layer: Encoder.of(saes[layer], model.dtype) for layer in layers}
    features = np.array([(layer, index) for layer in layers for index in range(len(saes[layer].W_dec))])
    first = dict(zip(layers, np.cumsum([0, *(len(saes[layer].W_dec) for layer in layers)]).tolist(), strict=False))
    top, sample = Places.empty(len(features), n_top), Places.empty(len(features), n_sampled)
    density, n = torch.zeros(len(features), len(EDGES) - 1, dtype=torch.int64), 0
    for start in range(0, len(rows), batch_size):
        batch = pad(rows[start : start + batch_size], pad_token=0, side="right", device=model.device)
        at, resid = scored(batch), read(model, batch, layers)
        row, pos = (each.cpu() for each in at.nonzero(as_tuple=True))
        for layer in layers:
            active = encoders[layer](resid[layer][at])
            token, act = active.token.cpu(), active.acts.cpu()
            feature = active.index.cpu() + first[layer]
            where = (start + row[token], pos[token])
            sample.keep(feature, _lot(n + token, feature, seed), act, *where)
            kept = _strongest(feature, row[token], act)
            top.keep(feature[kept], act[kept], act[kept], *(each[kept] for each in where))
            bins = torch.bucketize(act, torch.from_numpy(EDGES[1:-1]).float(), right=True)
            density.view(-1).index_add_(0, feature * (len(EDGES) - 1) + bins, torch.ones_like(bins))
        n += len(row)
        progress(min(start + batch_size, len(rows)), len(rows))
    if not n:
        raise ValueError(f"{len(rows)} rows have no tokens to read (the first of each is left out); give more text.")
    return Contexts(features, top, sample, density, n, tuple(hashes(saes)))


def _strongest(feature: Tensor, row: Tensor, act: Tensor) -> Tensor:
    """The numbers of the entries that are the strongest of their feature in their row; the first of equals."""
    order = act.argsort(descending=True, stable=True)
    key = (feature * (int(row.max()) + 1) + row if len(row) else feature)[order]
    by_key = key.argsort(stable=True)
    new = torch.ones(len(key), dtype=torch.bool)
    new[1:] = key[by_key][1:] != key[by_key][:-1]
    return order[by_key[new]]


def _lot(token: Tensor, feature: Tensor, seed: int) -> Float[Tensor, "entry"]:
    """A number from 0 to 1 for each token and feature, as good as random (SplitMix64, Steele et al. 2014)."""
    x = token * -7046029254386353131 + feature * -4658895280553007687 + torch.tensor(seed) * -7723592293110705685
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((x >> 31) & ((1 << 24) - 1)).float() / (1 << 24)
