"""Contexts and cards of features against a plain loop over all tokens."""

from itertools import pairwise

import duckdb
import numpy as np
import pytest
import torch
from conftest import tiny_sae

import saereason as sr
from saereason.hooks import read
from saereason.model import pad
from saereason.saes import Encoder
from saereason.search import feature_card, feature_contexts
from saereason.search.contexts import EDGES, Places


@pytest.fixture(scope="module")
def rows(model):
    generator = torch.Generator().manual_seed(3)
    lengths = [3, 14, 9, 1, 22, 5, 17, 11, 2, 8]
    return [torch.randint(4, model.d_vocab, (n,), generator=generator).tolist() for n in lengths]


@pytest.fixture(scope="module")
def firings(model, rows):
    """Of `L1` and `L3`: every firing as (layer, index, row, pos, act), one row after the other."""
    found = []
    for layer in (1, 3):
        encoder = Encoder.of(tiny_sae("topk", layer), model.dtype)
        for n, row in enumerate(rows):
            with torch.no_grad():
                resid = read(model, pad([row], pad_token=0), [layer])[layer][0, 1:]
            active = encoder(resid) if len(resid) else None
            for t, i, a in zip(active.token, active.index, active.acts, strict=True) if active else ():
                found.append((layer, int(i), n, int(t) + 1, float(a)))
    return found


@pytest.fixture(scope="module")
def contexts(model, rows):
    return feature_contexts(
        model, {layer: tiny_sae("topk", layer) for layer in (3, 1)}, rows, n_top=4, n_sampled=6, batch_size=4
    )


def of(firings, layer, index):
    return [each[2:] for each in firings if each[:2] == (layer, index)]


def test_the_top_is_the_strongest_firing_of_each_row(contexts, firings):
    for number, (layer, index) in enumerate(contexts.features.tolist()):
        best = {}
        for n, pos, act in of(firings, layer, index):
            if act > best.get(n, (0, 0))[1]:
                best[n] = (pos, act)
        expected = sorted(((n, *each) for n, each in best.items()), key=lambda each: -each[2])[:4]
        found = contexts.top.of(number)
        assert [(c.row, c.pos) for c in found] == [each[:2] for each in expected]
        assert [c.act for c in found] == pytest.approx([each[2] for each in expected], rel=1e-4)


def test_the_sample_is_of_firings_alone_and_counts_are_exact(contexts, firings, rows):
    assert contexts.n_tokens == sum(len(row) - 1 for row in rows)
    for number, (layer, index) in enumerate(contexts.features.tolist()):
        every = of(firings, layer, index)
        found = contexts.sample.of(number)
        assert len({(c.row, c.pos) for c in found}) == len(found) == min(6, len(every))
        assert {(c.row, c.pos) for c in found} <= {each[:2] for each in every}
        acts = np.array([each[2] for each in every])
        inside = [((acts >= low) & (acts < high)).sum() for low, high in pairwise(EDGES)]
        assert contexts.density[number].tolist() == inside


def test_neither_sample_nor_top_depends_on_the_batches(model, rows, contexts):
    saes = {layer: tiny_sae("topk", layer) for layer in (1, 3)}
    for size in (1, 3, 16):
        again = feature_contexts(model, saes, rows, n_top=4, n_sampled=6, batch_size=size)
        for number in range(len(again.features)):
            for kind in ("top", "sample"):
                a, b = (getattr(each, kind).of(number) for each in (again, contexts))
                assert [(c.row, c.pos) for c in a] == [(c.row, c.pos) for c in b]


def test_of_equals_what_was_read_first_is_kept():
    places = Places.empty(2, 3)
    ones = torch.ones(5)
    for start in (0, 5):
        rows = torch.arange(start, start + 5)
        places.keep(torch.zeros(5, dtype=torch.long), ones, ones, rows, rows)
    assert [context.row for context in places.of(0)] == [0, 1, 2]
    assert places.of(1) == ()


def test_the_sample_is_a_fair_one(model):
    """Over many seeds every firing is sampled about as often as any other."""
    rows = [torch.randint(4, model.d_vocab, (40,), generator=torch.Generator().manual_seed(8)).tolist()]
    saes = {0: tiny_sae("topk", 0, d_sae=8)}  # all of whose features fire wherever they are positive
    counts = {}
    for seed in range(300):
        found = feature_contexts(model, saes, rows, n_sampled=5, seed=seed)
        number = int(found.density.sum(1).argmax())
        n = int(found.density[number].sum())
        for context in found.sample.of(number):
            counts[context.pos] = counts.get(context.pos, 0) + 1
    expected = 300 * 5 / n
    square = sum((counts.get(pos, 0) - expected) ** 2 / expected for pos in counts)
    assert n > 20 and len(counts) == n
    assert square < n + 4 * (2 * n) ** 0.5


def test_a_card_tells_what_a_feature_reads_and_writes(model, contexts, firings, rows):
    saes = {layer: tiny_sae("topk", layer) for layer in (1, 3)}
    number = int(contexts.density.sum(1).argmax())
    feature = sr.Feature(*contexts.features[number].tolist())
    card = feature_card(model, saes, feature, contexts, n_each=2, n_neighbours=5)
    mine = of(firings, feature.layer, feature.index)
    assert card.firing_rate == len(mine) / sum(len(row) - 1 for row in rows)
    assert card.max_act == pytest.approx(max(act for *_, act in mine), rel=1e-4)
    assert sum(n for *_, n in card.density) == len(mine)
    assert all(low <= card.max_act for low, _, _ in card.density)
    medians = {q: np.mean([c.act for c in each]) for q, each in card.quantiles.items()}
    assert list(medians) == [0.9, 0.75, 0.5, 0.25, 0.1]
    assert list(medians.values()) == sorted(medians.values(), reverse=True)
    rows_of = saes[feature.layer].W_dec
    cosine = torch.cosine_similarity(rows_of, rows_of[feature.index][None], dim=-1)
    same = [(each, value) for each, value in card.neighbours if each.layer == feature.layer]
    assert len(card.neighbours) == 5 and feature not in dict(card.neighbours)
    assert all(value == pytest.approx(float(cosine[each.index]), abs=1e-5) for each, value in same)
    assert len(card.written.raised) == 10


def test_a_silent_feature_has_an_empty_card(model, contexts):
    saes = {layer: tiny_sae("topk", layer) for layer in (1, 3)}
    number = int(contexts.density.sum(1).argmin())
    assert not contexts.density[number].any(), "some feature is silent on so few rows"
    card = feature_card(model, saes, sr.Feature(*contexts.features[number].tolist()), contexts)
    assert (card.firing_rate, card.max_act, card.top, card.density) == (0, 0, (), ())
    assert set(card.quantiles.values()) == {()}


def test_contexts_are_kept_as_tables(contexts, tmp_path):
    contexts.save(tmp_path)
    con = sr.Run.open(tmp_path).con()
    assert isinstance(con, duckdb.DuckDBPyConnection)
    number = int(contexts.density.sum(1).argmax())
    layer, index = contexts.features[number].tolist()
    told = con.sql(
        f"SELECT row, pos FROM contexts WHERE layer = {layer} AND index = {index} AND kind = 'top' ORDER BY rank"
    ).fetchall()
    assert told == [(c.row, c.pos) for c in contexts.top.of(number)]
    assert con.sql("SELECT sum(tokens) FROM density").fetchall() == [(int(contexts.density.sum()),)]


def test_bad_input_is_refused(model, contexts):
    saes = {1: tiny_sae("topk", 1)}
    with pytest.raises(ValueError, match="none of the 192 features"):
        contexts.number(sr.Feature(2, 0))
    with pytest.raises(ValueError, match="another SAE of layer 1"):
        feature_card(model, {1: tiny_sae("topk", 1, seed=2)}, sr.Feature(1, 0), contexts)
    with pytest.raises(ValueError, match="n_top is 0"):
        feature_contexts(model, saes, [[5, 6]], n_top=0)
    with pytest.raises(ValueError, match="no tokens to read"):
        feature_contexts(model, saes, [[5], [6]])
