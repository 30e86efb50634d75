"""The cue rung: which tokens carry a feature, and whether they switch it on wherever they stand."""

import inspect

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from benchmarks._cues import CUE, LENGTH, context_trial, counting_model, cue_trial, hand_made_saes, texts
from saereason import CueTrial, Feature, hooks, inject, top_tokens, try_cues
from saereason.controls.cues import STRATEGIES
from saereason.controls.cues.inject import drawn_pieces, stand_ins, swapped
from saereason.controls.cues.profile import top_contexts
from saereason.model import Rendered, pad


def blurred_cue_trial(seed):
    """A detector of "Z" found by least squares in a model with random weights and attention, where it is not clean."""
    model, layer = tiny_model(seed=seed), 1
    token = model.encode("Z")[0]
    model.hf.model.embed_tokens.weight.data[token] *= 4
    rows = [model.encode(text) for text in texts(3 * seed + 2, n=200, often="Z")]
    batch = pad(rows, pad_token=0)
    resid = hooks.read(model, batch, [layer])[layer].flatten(0, 1)
    label = (batch.tokens == token).flatten().float()
    even = (label / label.mean() + (1 - label) / (1 - label).mean()).sqrt()[:, None]  # as many of either kind
    inputs = torch.cat([resid, torch.ones(len(resid), 1)], dim=1)
    weights = torch.linalg.lstsq(even * inputs, even * label[:, None]).solution[:, 0]
    sae = tiny_sae("standard", layer, d_sae=4)
    sae.b_dec.data.zero_()
    sae.W_enc.data[:, 2], sae.b_enc.data[2] = weights[:-1], weights[-1] - 0.5
    own, plain = texts(3 * seed, often="Z"), texts(3 * seed + 1)
    return try_cues(model, {layer: sae}, Feature(layer, 2), own, plain=plain, seed=seed)


# the trial


@pytest.mark.parametrize("seed", range(6))
def test_a_planted_cue_is_caught_and_a_planted_context_spared(seed):
    cue, context = cue_trial(seed), context_trial(seed)
    assert cue.outcome == "caught" and cue.tier == "large" and cue.published == "token_driven", str(cue)
    assert context.outcome != "caught" and context.tier == "negligible", str(context)
    assert context.cue_texts == ("Z",) and context.profile.concentration.value == 1  # concentration would condemn it


@pytest.mark.parametrize("seed", range(2, 5))
def test_a_cue_that_attention_blurs_is_caught(seed):
    trial = blurred_cue_trial(seed)
    assert trial.outcome == "caught" and trial.cue_texts[0] == "Z", str(trial)


@pytest.mark.slow
def test_planted_cues_are_caught_and_contexts_spared_over_50_seeds():
    cues, contexts = [cue_trial(seed) for seed in range(50)], [context_trial(seed) for seed in range(50)]
    blurred = [blurred_cue_trial(seed) for seed in range(50)]
    assert sum(trial.outcome == "caught" for trial in cues) == 50
    assert sum(trial.outcome == "caught" for trial in blurred) >= 45
    assert sum(trial.outcome == "caught" for trial in contexts) <= 1
    assert sum(trial.outcome == "passed" for trial in contexts) >= 25


def test_what_any_added_token_does_is_no_cue():
    def begun(*given, **options):
        return [Rendered(f"<|im_start|>{text}", True, None) for text in texts(*given, **options)]

    trial = try_cues(counting_model(), hand_made_saes(), LENGTH, begun(0), plain=begun(1))
    longer = [effect for effect in trial.effects if effect.strategy != "replace"]
    assert trial.published == "token_driven" and all(effect.over_plain.low > 0.8 for effect in longer)
    assert trial.outcome == "passed" and trial.best.d == 0, str(trial)


def test_a_trial_is_what_a_plain_loop_gives(model):
    saes, feature, own, plain = {1: tiny_sae("topk", 1)}, Feature(1, 3), texts(0), texts(1, n=20)
    acts = [saes[1].encode(one_by_one(model, text, 1))[1:, 3].double().numpy() for text in own]
    rows = [model.encode(text)[1:] for text in own]
    trial = try_cues(model, saes, feature, own, plain=plain, seed=5, batch_size=7)
    profile = top_tokens(rows, acts)
    assert trial.profile.token.tolist() == profile.token.tolist()
    np.testing.assert_allclose(trial.own, [act.max() for act in acts], atol=1e-4)
    before = [saes[1].encode(one_by_one(model, text, 1))[1:, 3].max().item() for text in plain]
    np.testing.assert_allclose(trial.plain, before, atol=1e-4)
    for s, effect in enumerate(trial.effects):
        for base, d, dz in (
            (np.array(trial.plain), effect.over_plain, effect.paired_over_plain),
            (trial.control[:, s], effect.over_control, effect.paired_over_control),
        ):
            treated = trial.injected[:, s]
            t = scipy_stats.ttest_ind(treated, base).statistic
            assert d.value == pytest.approx(t / (len(base) / 2) ** 0.5, rel=1e-6)
            assert dz == pytest.approx(scipy_stats.ttest_rel(treated, base).statistic / len(base) ** 0.5, rel=1e-6)
    again = try_cues(model, saes, feature, own, plain=plain, seed=5, batch_size=64)
    np.testing.assert_allclose(again.injected, trial.injected, atol=1e-4)
    assert [e.strategy for e in trial.effects] == list(STRATEGIES) and feature == trial.feature
    alone = try_cues(model, saes, feature, own, plain=plain, seed=5, strategies=["list"])
    np.testing.assert_allclose(alone.injected[:, 0], trial.injected[:, -1], atol=1e-4)


def one_by_one(model, text, layer):
    return hooks.read(model, pad([model.encode(text)], pad_token=0), [layer])[layer][0]


def test_a_trial_says_how_far_it_has_come_and_prints_as_a_sentence():
    seen = []
    own, plain = texts(0, often="Z"), texts(1, n=10)
    trial = try_cues(
        counting_model(),
        hand_made_saes(),
        CUE,
        own,
        plain=plain,
        strategies=["append", "list"],
        progress=lambda *p: seen.append(p),
    )
    assert seen == [(n, 5) for n in range(1, 6)]
    said = str(trial)
    assert said.startswith("L0/0 is driven by its tokens (large effect): d = >100 [>100, >100] over 10 plain texts")
    assert "the best of 2 strategies" in said and "'Z', 100% of the activation in 30 tokens" in said
    assert trial.transfer == 1 and isinstance(trial, CueTrial)


def test_few_texts_tell_nothing():
    trial = try_cues(counting_model(), hand_made_saes(), CUE, texts(0, often="Z"), plain=texts(1, n=3))
    assert trial.outcome == "undecided" and "cannot tell" in str(trial)


def test_what_cannot_be_tried_is_refused():
    saes, own, plain = hand_made_saes(), texts(0, often="Z"), texts(1, n=5)
    lm = counting_model()
    with pytest.raises(ValueError, match="no SAE at layer 3"):
        try_cues(lm, saes, Feature(3, 0), own, plain=plain)
    with pytest.raises(ValueError, match="silent on all 40 texts"):
        try_cues(lm, saes, CUE, texts(0), plain=plain)
    rare = try_cues(lm, saes, CUE, own, plain=plain, min_count=41)
    assert rare.cues == try_cues(lm, saes, CUE, own, plain=plain).cues, "no token occurs as often"
    with pytest.raises(ValueError, match="a text is there 2 times"):
        try_cues(lm, saes, CUE, own, plain=[*plain, own[0]])
    with pytest.raises(ValueError, match="plain text 5 has 5 tokens"):
        try_cues(lm, saes, CUE, own, plain=[*plain, "short"])
    with pytest.raises(ValueError, match="40 own and 1 plain texts"):
        try_cues(lm, saes, CUE, own, plain=plain[:1])
    for wrong in ([], ["prepend", "append, twice"]):
        with pytest.raises(ValueError, match=r"strategies are .*; give some of prepend"):
            inspect.unwrap(try_cues)(lm, saes, CUE, own, plain=plain, strategies=wrong)


# which tokens


def test_a_profile_is_what_a_plain_loop_gives():
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, 12, size=n).tolist() for n in (4, 9, 6)]
    acts = [np.maximum(rng.standard_normal(len(row)), 0) for row in rows]
    profile = top_tokens(rows, acts, n_top=2)
    mass, count = {}, {}
    for row, act in zip(rows, acts, strict=True):
        for token, value in zip(row, act, strict=True):
            mass[token], count[token] = mass.get(token, 0) + value, count.get(token, 0) + 1
    order = sorted(mass, key=lambda token: (-mass[token], token))
    assert profile.token.tolist() == order and profile.count.tolist() == [count[token] for token in order]
    np.testing.assert_allclose(profile.mass, [mass[token] for token in order])
    whole = sum(mass.values())
    assert profile.concentration.value == pytest.approx((mass[order[0]] + mass[order[1]]) / whole)
    assert profile.even_share == (count[order[0]] + count[order[1]]) / 19
    assert profile.entropy == pytest.approx(scipy_stats.entropy(list(mass.values()), base=2))
    assert profile.relative_entropy == pytest.approx(profile.entropy / np.log2(len(mass)))
    cues, means = profile.cues(3, min_count=2)
    often = [token for token in mass if count[token] >= 2 and mass[token] > 0]
    assert cues.tolist() == sorted(often, key=lambda token: -mass[token] / count[token])[:3]
    np.testing.assert_allclose(means, [mass[token] / count[token] for token in cues.tolist()])


def test_a_profile_of_one_token_and_of_all_alike():
    one = top_tokens([[3, 4, 3]], [np.array([1.0, 0.0, 2.0])], n_top=1)
    assert (one.entropy, one.relative_entropy, one.concentration.value) == (0, 0, 1)
    even = top_tokens([list(range(8))], [np.ones(8)], n_top=2)
    assert (even.entropy, even.relative_entropy, even.concentration.value, even.even_share) == (3, 1, 0.25, 0.25)
    assert top_tokens([[7]], [np.ones(1)]).relative_entropy == 0


def test_activations_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"row 1 has \(tokens, activations\) = \(2, 1\)"):
        top_tokens([[1], [1, 2]], [np.ones(1), np.ones(1)])
    with pytest.raises(ValueError, match="negative or not finite"):
        top_tokens([[1, 2]], [np.array([1, -0.1])])
    with pytest.raises(ValueError, match="silent on all 0 texts"):
        top_tokens([], [])


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_doubling_every_token_moves_no_figure_and_narrows_no_interval(seed):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(5, 30, size=n).tolist() for n in rng.integers(2, 12, size=15)]
    acts = [np.exp(rng.standard_normal(len(row))) for row in rows]
    once = top_tokens(rows, acts, n_top=3)
    twice = top_tokens([np.repeat(row, 2).tolist() for row in rows], [np.repeat(act, 2) for act in acts], n_top=3)
    ends = [list(vars(profile.concentration).values()) for profile in (once, twice)]
    assert ends[1] == pytest.approx(ends[0], rel=1e-12) and ends[0][1] < ends[0][2]
    assert twice.entropy == pytest.approx(once.entropy) and twice.even_share == once.even_share
    np.testing.assert_allclose(twice.mean, once.mean)


def test_contexts_are_the_strongest_places_one_a_text():
    rows = [[5, 9, 6, 9], [9, 7], [8, 8, 9], [1, 2]]
    acts = [np.array([0, 1.0, 0, 3]), np.array([2.0, 9]), np.array([0, 0, 5.0]), np.array([4.0, 4])]
    found = top_contexts(rows, acts, np.array([9]))
    assert found == [((8,), 9, ()), ((6,), 9, ()), ((), 9, (7,))]
    assert top_contexts(rows, acts, np.array([9]), n=1) == found[:1]


# putting tokens in


@given(st.integers(0, 10**6), st.sampled_from(STRATEGIES), st.integers(0, 1))
@settings(max_examples=200, deadline=None)
def test_putting_tokens_in_adds_them_whole_and_keeps_the_rest_in_order(seed, strategy, first):
    rng = np.random.default_rng(seed)
    row = rng.integers(10, 99, size=rng.integers(8, 20)).tolist()
    kept = list(row)
    length = {"bigram": 2, "trigram": 3}.get(strategy, 1)
    pieces = [tuple(range(-100 * n - length, -100 * n)) for n in range(1, 4)]
    new = inject(row, pieces, strategy, seed=seed, first=first, separator=(0,))
    old = [token for token in new if token > 0]
    assert row == kept and new[:first] == row[:first]
    assert inject(row, pieces, strategy, seed=seed, first=first, separator=(0,)) == new
    if strategy == "replace":
        assert len(new) == len(row) and sum(a != b for a, b in zip(new, row, strict=True)) == 3
    else:
        assert old == row and len(new) == len(row) + 3 * length + 2 * (strategy == "list")
    for piece in pieces:
        at = new.index(piece[0])
        assert tuple(new[at : at + length]) == piece
    others = [tuple(token - 1000 for token in piece) for piece in pieces]
    turned = inject(row, others, strategy, seed=seed, first=first, separator=(0,))
    assert [token + 1000 if token < -1000 else token for token in turned] == new  # the control's places are the same


def test_the_ends_and_the_list():
    row, pieces = [1, 2, 3, 4], [(7,), (8, 9)]
    assert inject(row, pieces, "prepend", seed=0, first=1) == [1, 7, 8, 9, 2, 3, 4]
    assert inject(row, pieces, "append", seed=0) == [1, 2, 3, 4, 7, 8, 9]
    listed = inject(row, pieces, "list", seed=0, separator=(0, 0))
    at = listed.index(7)
    assert listed[at : at + 5] == [7, 0, 0, 8, 9]
    with pytest.raises(ValueError, match="4 tokens cannot be replaced in a text of 3"):
        inject(row, [(7,)] * 4, "replace", seed=0, first=1)


def test_gaps_are_drawn_evenly():
    places = [inject([1, 2, 3], [(9,)], "intersperse", seed=seed).index(9) for seed in range(2000)]
    assert scipy_stats.chisquare(np.bincount(places, minlength=4)).pvalue > 0.001


def test_pieces_follow_the_weights_and_the_contexts():
    rng = np.random.default_rng(0)
    drawn = [drawn_pieces("append", np.array([5, 6]), np.array([3.0, 1.0]), [], rng) for _ in range(1000)]
    share = np.mean([piece == (5,) for pieces in drawn for piece in pieces])
    assert abs(share - 0.75) < 0.04 and {len(pieces) for pieces in drawn} == {3}
    contexts = [((1,), 5, (2,)), ((), 6, (3,))]
    assert set(drawn_pieces("bigram", np.array([5]), np.ones(1), contexts, rng)) <= {(1, 5), (6,)}
    assert drawn_pieces("trigram", np.array([5]), np.ones(1), contexts, rng)[0] in {(1, 5, 2), (6, 3)}


def test_stand_ins_are_as_frequent_and_answer_least():
    counts = {token: 1000 - token for token in range(100)} | {200: 1, 201: 2, 202: 3}
    means = {token: float(token % 2) for token in range(100)}
    found = stand_ins([0, 50, 200], counts, means, {0, 50, 200, 48}, near=4)
    assert set(found[50].tolist()) <= set(range(42, 60)) - {48, 50} and (found[50] % 2 == 0).all()
    assert {201, 202} <= set(stand_ins([200], counts, {}, {200}, near=4)[200].tolist())
    pieces = swapped([(0, 50), (200,)], found, np.random.default_rng(0))
    assert [len(piece) for piece in pieces] == [2, 1] and pieces[0][1] in found[50]
    with pytest.raises(ValueError, match="no token is left"):
        stand_ins([1], {1: 5}, {}, {1})
