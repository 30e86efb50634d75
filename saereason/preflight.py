"""Does an SAE belong to this model, this layer and this way of beginning a text?"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from . import hooks
from .model import Model, pad
from .quality import Sums, observe, scored
from .saes import SAE, check_serving
from .training import Framing, plain_rows, plain_texts

ROWS_A_PASS = 16
LEAST_EXPLAINED = 0.5
"""Share of the card's explained variance below which an SAE does not fit."""

MOST_NORM, MOST_L0 = 2.0, 3.0
"""Factors, either way, beyond which mean norm and L0 do not fit the card's; L0 is wide, for it follows the text."""

MAYBE = "other text may be why, or a near layer"


@dataclass(frozen=True)
class Fit:
    """How an SAE's figures on a sample compare with those on its card (None where the card does not say)."""

    layer: int
    explained_variance: float
    l0: float
    mean_norm: float
    n_tokens: int
    card_explained_variance: float | None
    card_l0: float | None
    card_mean_norm: float | None
    fits: bool
    notes: tuple[str, ...]
    """What speaks against it, or is worth knowing, in sentences."""


def preflight(
    model: Model, saes: Mapping[int, SAE], rows: Sequence[Sequence[int]] | None = None, *, strict: bool = True
) -> list[Fit]:
    """Measure SAEs on a few texts and compare them with their cards (`sae.cfg.metadata`, as training fills it).

    An SAE does not fit if it explains no variance here (at or below 0), or less than half of what its card says; if the
    mean norm of the residual stream is more than 2 times, or its L0 more than 3 times the card's, either way; or if
    texts begin otherwise than the card says (`prepend_bos`). Other weights of the same architecture are a note, not a
    fault. Neighbouring layers of one model are alike, so an SAE that is one layer off may pass, with a note.

    `rows` are token ids (a few paragraphs of English unless given; text of the kind that the card was measured on tells
    most); the first token of each is left out. Raises ValueError for an SAE that cannot serve, and with `strict` for
    one that does not fit.
    """
    check_serving(model, saes)  # other weights are a note here
    rows = _sample(model) if rows is None else [row for row in rows if len(row)]
    if sum(len(row) - 1 for row in rows) < 2:
        raise ValueError(f"{len(rows)} rows have no tokens to measure (the first of each is left out); give more text.")
    fits = []
    for layer, seen in _observed(model, saes, rows).items():
        card = saes[layer].cfg.metadata
        faults = [*_figure_faults(seen, card), *_bos_faults(model, card, rows)]
        if faults and strict:
            raise ValueError(f"the SAE at layer {layer} does not fit {model.name}: {'; '.join(faults)}.")
        fits.append(_fit(layer, seen, card, faults, _remarks(model, seen, card)))
    return fits


def _sample(model: Model, n: int = 16) -> list[list[int]]:
    """Paragraphs from all over the plain texts, a row each."""
    texts = plain_texts()
    framing = Framing(length=min(128, model.n_ctx))
    return [plain_rows(model, [text], framing)[0] for text in texts[:: max(1, len(texts) // n)][:n]]


@torch.no_grad()
def _observed(model: Model, saes: Mapping[int, SAE], rows: Sequence[Sequence[int]]) -> dict[int, Sums]:
    sums = {layer: Sums.empty(saes[layer]) for layer in sorted(saes)}
    for n in range(0, len(rows), ROWS_A_PASS):
        batch = pad(rows[n : n + ROWS_A_PASS], pad_token=0, side="right", device=model.device)
        for layer, resid in hooks.read(model, batch, list(sums)).items():
            sums[layer] += observe(saes[layer], resid[scored(batch)].float())[0]
    return sums


def _figure_faults(seen: Sums, card: Any) -> Iterator[str]:
    explained, said = seen.explained_variance, _number(card, "explained_variance")
    if not explained > 0:  # nor where there is no variance, and so no number
        yield (
            f"it explains {explained:.3f} of the variance here, no more than the mean of the tokens would"
            + (f", and {said:.3f} on its card" if said is not None else "")
        )
    elif said is not None and explained < LEAST_EXPLAINED * said:
        yield f"it explains {explained:.3f} of the variance here and {said:.3f} on its card"
    for name, here, key, most in _compared(seen, MOST_NORM, MOST_L0):
        there = _number(card, key)
        if there is not None and not _near(here, there, most):
            yield f"{name} is {here:.3g} here and {there:.3g} on its card"


def _bos_faults(model: Model, card: Any, rows: Sequence[Sequence[int]]) -> Iterator[str]:
    """The rows are asked, and for texts that should not begin with BOS also whether the tokenizer puts it there."""
    bos = getattr(model.tokenizer, "bos_token_id", None)
    begin = [bos is not None and row[0] == bos for row in rows]
    puts = bos is not None and model.tokenizer("a", verbose=False)["input_ids"][0] == bos
    if card.prepend_bos is True and not any(begin):
        yield "its card says that texts begin with BOS, and none does here (give `rows` that do)"
    if card.prepend_bos is False and puts and all(begin):
        yield "its card says that texts begin without BOS, and the tokenizer puts it there (give `rows` without)"


def _remarks(model: Model, seen: Sums, card: Any) -> Iterator[str]:
    """What is near enough, and yet worth knowing."""
    if card.model_hash is not None and card.model_hash != model.hash:
        yield (
            f"It was trained on weights {card.model_hash} ({card.model_name}), and {model.name} has {model.hash}: its "
            "features may mean something else here."
        )
    explained, said = seen.explained_variance, _number(card, "explained_variance")
    if said is None:
        yield "Its card gives no figures, so only what it explains here was judged."
    elif LEAST_EXPLAINED * said <= explained < 0.8 * said:
        yield f"It explains {explained:.3f} of the variance here and {said:.3f} on its card; {MAYBE}."
    for name, here, key, least in _compared(seen, 1.25, 1.5):
        there, most = _number(card, key), MOST_NORM if key == "mean_norm" else MOST_L0
        if there is not None and _near(here, there, most) and not _near(here, there, least):
            yield f"{name[0].upper()}{name[1:]} is {here:.3g} here and {there:.3g} on its card; {MAYBE}."


def _compared(seen: Sums, norm: float, l0: float) -> list[tuple[str, float, str, float]]:
    """Figures to hold against the card: name, value here, key of the card, factor."""
    return [
        ("the mean norm of the residual stream", seen.mean_norm, "mean_norm", norm),
        ("the number of active features a token (L0)", seen.l0, "l0", l0),
    ]


def _near(here: float, there: float, factor: float) -> bool:
    return there <= here * factor and here <= there * factor


def _number(card: Any, key: str) -> float | None:
    """A figure from the card, which is data of others: None for whatever is no finite number."""
    figures = card.quality if isinstance(card.quality, Mapping) else {}
    value = figures.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _fit(layer: int, seen: Sums, card: Any, faults: Sequence[str], remarks: Iterator[str]) -> Fit:
    return Fit(
        layer=layer,
        explained_variance=seen.explained_variance,
        l0=seen.l0,
        mean_norm=seen.mean_norm,
        n_tokens=seen.n,
        card_explained_variance=_number(card, "explained_variance"),
        card_l0=_number(card, "l0"),
        card_mean_norm=_number(card, "mean_norm"),
        fits=not faults,
        notes=(*(f"{fault[0].upper()}{fault[1:]}." for fault in faults), *remarks),
    )
