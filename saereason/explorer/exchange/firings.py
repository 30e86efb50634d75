"""Every token on which features fire."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from saereason.features import Feature
from saereason.hooks import read
from saereason.model import Model, pad
from saereason.quality import scored
from saereason.saes import SAE, Encoder, check_saes, sae_at


@dataclass(frozen=True, eq=False)
class Firings:
    """Every token on which features of one SAE fire, over one set of rows; by feature, row and position, ascending."""

    layer: int
    d_sae: int
    rows: tuple[Int[np.ndarray, "_"], ...] | None
    """Token ids; None where they are not known."""

    index: Int[np.ndarray, "firing"]
    """Of the feature."""

    row: Int[np.ndarray, "firing"]
    pos: Int[np.ndarray, "firing"]
    act: Float[np.ndarray, "firing"]
    n_tokens: int | None
    """All that were looked at."""

    skipped: int = 0
    """Tokens at the beginning of each row that were not looked at."""

    model: str | None = None
    hookpoint: str | None = None
    """The module whose output the SAE reads, such as `layers.9`."""

    dataset: str | None = None

    @classmethod
    def sort(cls, layer: int, columns: Sequence[np.ndarray], **others: Any) -> "Firings":
        """From columns of feature, row, position and activation in any order. Raises ValueError for one said twice."""
        index, row, pos, act = columns
        order = np.lexsort((pos, row, index))
        index, row, pos = (column[order].astype(np.int32) for column in (index, row, pos))
        twice = (np.diff(index) == 0) & (np.diff(row) == 0) & (np.diff(pos) == 0)
        if twice.any():
            n = int(twice.argmax())
            raise ValueError(f"feature {index[n]} fires twice at position {pos[n]} of row {row[n]}")
        return cls(layer=layer, index=index, row=row, pos=pos, act=act[order].astype(np.float32), **others)

    def of(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row, position and activation of each firing of one feature; none for one that never fires."""
        start, end = np.searchsorted(self.index, [index, index + 1])
        return self.row[start:end], self.pos[start:end], self.act[start:end]


@torch.no_grad()
def feature_firings(
    model: Model,
    saes: Mapping[int, SAE],
    rows: Sequence[Sequence[int]],
    features: Collection[Feature] | None = None,
    *,
    batch_size: int = 16,
    dataset: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[int, Firings]:
    """By layer, every token of rows of token ids on which the features fire (all features of the SAEs without).

    One pass; each row's first token is left out, as in `feature_contexts`. Memory is O(firings), 16 bytes each.
    Raises ValueError for rows without tokens to read, and for features that are none of the SAEs'.
    """
    check_saes(model, saes)
    wanted = _wanted(saes, features)
    if not wanted or not any(len(row) > 1 for row in rows):
        raise ValueError(f"there are {len(rows)} rows, first tokens left out, and {len(wanted)} layers; give some.")
    encoders = {layer: Encoder.of(saes[layer], model.dtype) for layer in wanted}
    found: dict[int, list[tuple[np.ndarray, ...]]] = {layer: [] for layer in wanted}
    for start in range(0, len(rows), batch_size):
        batch = pad(rows[start : start + batch_size], pad_token=0, side="right", device=model.device)
        at, resid = scored(batch), read(model, batch, list(wanted))
        row, pos = (each.cpu().numpy() for each in at.nonzero(as_tuple=True))
        for layer, encoder in encoders.items():
            active = encoder(resid[layer][at])
            token, index, act = (each.cpu().numpy() for each in (active.token, active.index, active.acts))
            kept = wanted[layer][index]
            columns = (index, start + row[token], pos[token], act)
            found[layer].append(tuple(column[kept] for column in columns))
        progress(min(start + batch_size, len(rows)), len(rows))
    said = {"n_tokens": sum(max(len(row) - 1, 0) for row in rows), "model": model.name, "dataset": dataset}
    said["rows"] = tuple(np.array(row, dtype=np.int64) for row in rows)
    columns = {layer: [np.concatenate(each) for each in zip(*found[layer], strict=True)] for layer in wanted}
    return {
        layer: Firings.sort(
            layer, columns[layer], d_sae=len(wanted[layer]), hookpoint=hookpoint(model, layer), skipped=1, **said
        )
        for layer in wanted
    }


def _wanted(saes: Mapping[int, SAE], features: Collection[Feature] | None) -> dict[int, Bool[np.ndarray, "feature"]]:
    """By layer, whether each feature is looked for. Raises ValueError for features that are none of the SAEs'."""
    if features is None:
        return {layer: np.ones(len(saes[layer].W_dec), dtype=bool) for layer in sorted(saes)}
    found = {}
    for feature in sorted(features):
        sae = sae_at(saes, feature)
        found.setdefault(feature.layer, np.zeros(len(sae.W_dec), dtype=bool))[feature.index] = True
    return found


def hookpoint(model: Model, layer: int) -> str:
    """The name of a block within the model's trunk, such as `layers.9`; its output is the residual stream after it."""
    trunk = getattr(model.hf, "base_model", model.hf)
    name = next(name for name, module in trunk.named_modules() if module is model.blocks)
    return f"{name}.{layer}"
