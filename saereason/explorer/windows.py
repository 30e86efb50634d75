"""Tokens around the places where features fire, with the activation of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from saereason.features import Feature
from saereason.hooks import read
from saereason.model import Model, pad
from saereason.quality import scored
from saereason.saes import SAE, Encoder
from saereason.search import Context

BEFORE, AFTER = 14, 7
"""Tokens shown before and after the one that fires."""

Acts = Mapping[int, Float[np.ndarray, "pos"]]
"""By row, a feature's activation on every token."""


@dataclass(frozen=True, eq=False)
class Window:
    """A stretch of a row. `focus` is the place of the token that the window is about."""

    tokens: tuple[str, ...]
    acts: tuple[float, ...]
    focus: int


def window(model: Model, row: Sequence[int], acts: Float[np.ndarray, "pos"], pos: int) -> Window:
    """The tokens around one place, each by itself, so that part of a character shows as a replacement mark."""
    start, stop = max(0, pos - BEFORE), min(len(row), pos + AFTER + 1)
    tokens = tuple(model.token_text(token) for token in row[start:stop])
    return Window(tokens, tuple(float(f"{act:.3g}") for act in acts[start:stop]), pos - start)


def windows(model: Model, rows: Sequence[Sequence[int]], acts: Acts, contexts: Sequence[Context]) -> list[Window]:
    """Of each context, in order."""
    return [window(model, rows[each.row], acts[each.row], each.pos) for each in contexts]


@torch.no_grad()
def acts_on(
    model: Model,
    saes: Mapping[int, SAE],
    features: Sequence[Feature],
    rows: Mapping[int, Sequence[int]],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Feature, dict[int, Float[np.ndarray, "pos"]]]:
    """Of each feature, by row, its activation on every token; one pass over the rows, the first of each left out."""
    layers = sorted({feature.layer for feature in features})
    encoders = {layer: Encoder.of(saes[layer], model.dtype) for layer in layers}
    found = {feature: {n: np.zeros(len(row), dtype=np.float32) for n, row in rows.items()} for feature in features}
    wanted = {layer: torch.zeros(encoders[layer].d_sae, dtype=torch.bool) for layer in layers}
    for feature in features:
        wanted[feature.layer][feature.index] = True
    numbers = sorted(rows, key=lambda n: len(rows[n]))
    for start in range(0, len(numbers), batch_size):
        these = numbers[start : start + batch_size]
        batch = pad([rows[n] for n in these], pad_token=model.pad_token, side="right", device=model.device)
        at = scored(batch)
        row, pos = (each.cpu() for each in at.nonzero(as_tuple=True))
        resid = read(model, batch, layers, at)
        for layer in layers:
            active = encoders[layer](resid[layer])
            index = active.index.cpu()
            kept = wanted[layer][index]
            token, values = active.token.cpu()[kept], active.acts.cpu()[kept].numpy()
            for which, r, p, act in zip(
                index[kept].tolist(), row[token].tolist(), pos[token].tolist(), values, strict=True
            ):
                found[Feature(layer, which)][these[r]][p] = act
        progress(min(start + batch_size, len(numbers)), len(numbers))
    return found
