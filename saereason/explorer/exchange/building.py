"""Dashboards from contexts and cards, and from all firings."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from saereason.features import Feature
from saereason.model import Model
from saereason.saes import SAE, decoder_row, sae_at
from saereason.search import Context, FeatureCard, logit_lens
from saereason.search.contexts import EDGES

from .dashboard import Dashboard, Excerpt, Origin
from .excerpts import by_row, chosen, excerpt
from .firings import Firings, feature_firings

N_BINS = 50
"""Of the histogram of logits: as many as SAEDashboard has."""

BEFORE, AFTER = 64, 32
"""Tokens that an excerpt shows before and after the one it was chosen for."""


def feature_dashboards(
    model: Model,
    saes: Mapping[int, SAE],
    cards: Sequence[FeatureCard],
    rows: Sequence[Sequence[int]],
    *,
    before: int = BEFORE,
    after: int = AFTER,
    dataset: str | None = None,
) -> tuple[Dashboard, ...]:
    """What cards point at, as tokens with activations: cards by `feature_card`, of contexts that these rows gave.

    The rows that are pointed at are read once more. Contexts about the quantiles are given the half octave of
    activations that they lie in, and its share of all tokens. A token is text on its own, so that part of a character
    is shown as U+FFFD; the first token of a row is left out. Raises ValueError for other rows or SAEs than those.
    """
    pointed = sorted({context.row for card in cards for context, _ in _contexts(card)})
    if pointed and pointed[-1] >= len(rows):
        raise ValueError(f"a card points at row {pointed[-1]} of {len(rows)}; give the rows that its contexts are of.")
    places = {row: place for place, row in enumerate(pointed)}
    features = {card.feature for card in cards if card.top}
    found = feature_firings(model, saes, [rows[row] for row in pointed], features) if features else {}
    show, made = model.token_text, []
    for card in cards:
        acts = by_row(found[card.feature.layer], card.feature.index) if card.top else {}
        excerpts, fires = [], False
        for context, band in _contexts(card):
            there = acts.get(places[context.row], {})
            fires |= context.pos in there
            row, known = rows[context.row], {**there, context.pos: context.act}
            excerpts.append(excerpt(show, row, known, context.pos, band, around=(before, after)))
        if excerpts and not fires:
            raise ValueError(
                f"{card.feature} fires nowhere that its card says; give the model, SAEs and rows of its contexts."
            )
        made.append(_dashboard(model, saes, card, tuple(excerpts), Origin(dataset=dataset, n_rows=len(rows))))
    return tuple(made)


def firing_dashboards(
    model: Model,
    firings: Firings,
    features: Collection[int] | None = None,
    *,
    n_top: int = 16,
    n_each: int = 3,
    before: int = BEFORE,
    after: int = AFTER,
    seed: int = 0,
) -> tuple[Dashboard, ...]:
    """Dashboards of features by their index (of all that fire, without), from all their firings: no logits.

    The strongest token of each of `n_top` rows, and `n_each` at random from each half octave of activations. Only
    activations above 0 count. The model has the tokenizer. Raises ValueError for firings without their rows, and for
    an index that is none of the SAE's.
    """
    if not firings.rows or not firings.n_tokens:
        raise ValueError("these firings are without their tokens; make the file again with them (save_tokens=True).")
    indices = np.unique(firings.index).tolist() if features is None else sorted(set(features))
    if indices and not 0 <= indices[0] <= indices[-1] < firings.d_sae:
        raise ValueError(f"features {indices[0]} to {indices[-1]} are not all among the {firings.d_sae:,} of this SAE.")
    show, made = model.token_text, []
    where = Origin(firings.model, None, None, firings.dataset, len(firings.rows), firings.n_tokens)
    for index in indices:
        row, pos, act = (column[firings.of(index)[2] > 0] for column in firings.of(index))
        bins = _bins(act)
        counts = np.bincount(bins, minlength=len(EDGES) - 1)
        acts, excerpts = by_row(firings, index), []
        for n, bin in chosen(row, act, bins, n_top, n_each, np.random.default_rng([seed, index])):
            band = None if bin is None else _band(bin, int(counts[bin]), firings.n_tokens)
            tokens, fires = firings.rows[row[n]], acts[int(row[n])]
            excerpts.append(
                excerpt(show, tokens, fires, int(pos[n]), band, around=(before, after), skipped=firings.skipped)
            )
        made.append(
            Dashboard(
                feature=Feature(firings.layer, index),
                excerpts=tuple(excerpts),
                firing_rate=len(act) / firings.n_tokens,
                max_act=float(act.max(initial=0.0)),
                density=tuple(_bar(EDGES[n], EDGES[n + 1], counts[n]) for n in counts.nonzero()[0]),
                origin=where,
            )
        )
    return tuple(made)


def _dashboard(
    model: Model, saes: Mapping[int, SAE], card: FeatureCard, excerpts: tuple[Excerpt, ...], read_from: Origin
) -> Dashboard:
    sae = sae_at(saes, card.feature)
    logits = logit_lens(model, decoder_row(sae, card.feature.index)[None])[0].cpu().numpy()
    counts, edges = np.histogram(logits, N_BINS)
    known: Any = sae.cfg.metadata
    name, _, source = (getattr(known, "neuronpedia_id", None) or "").partition("/")
    return Dashboard(
        feature=card.feature,
        excerpts=excerpts,
        raised=card.written.raised,
        lowered=card.written.lowered,
        firing_rate=card.firing_rate,
        max_act=card.max_act,
        density=tuple(_bar(*each) for each in card.density),
        logits=tuple(_bar(*each) for each in zip(edges[:-1], edges[1:], counts, strict=True)),
        neighbours=card.neighbours,
        origin=replace(
            read_from,
            model=name or model.name,
            sae_set=source.removeprefix(f"{card.feature.layer}-") or None,
            hook_name=getattr(known, "hook_name", None),
            n_tokens=card.n_tokens,
        ),
    )


def _contexts(card: FeatureCard) -> Iterator[tuple[Context, tuple[float, float, float] | None]]:
    """The strongest contexts of a card, then those about its quantiles with their bands, each once, falling."""
    yield from ((context, None) for context in card.top)
    quantiles = {context for found in card.quantiles.values() for context in found}
    for context in sorted(quantiles, key=lambda each: (-each.act, each.row, each.pos)):
        n = int(_bins(np.array([context.act]))[0])
        tokens = sum(count for low, _, count in card.density if low == EDGES[n])
        yield context, _band(n, tokens, card.n_tokens)


def _bins(act: np.ndarray) -> np.ndarray:
    """The number of the half octave that each activation lies in, as `feature_contexts` counts."""
    return np.searchsorted(EDGES[1:-1].astype(np.float32), act.astype(np.float32), side="right")


def _band(n: int, tokens: int, of: int) -> tuple[float, float, float]:
    """The n-th half octave, with its share of all tokens."""
    return float(EDGES[n]), float(EDGES[n + 1]), tokens / of


def _bar(low: Any, high: Any, count: Any) -> tuple[float, float]:
    return (float(low) + float(high)) / 2, float(count)
