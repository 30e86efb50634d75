"""Which features go with a behaviour: sums, scores, the streaming pass, and chance."""

import copy
import dataclasses
import gc
import importlib
import inspect

import numpy as np
import pytest
import torch
from conftest import tiny_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from saereason import (
    Feature,
    FeatureTable,
    add_max_t,
    diff_mean,
    generate,
    hooks,
    matched_features,
    random_directions,
    search,
)
from saereason.examples import Examples
from saereason.model import pad
from saereason.saes import copies
from saereason.search import Block, Moments, moments
from saereason.search.pooled import AT_LEAST
from saereason.search.scores import auroc, cohens_d, welch_t
from saereason.stats import max_t_groups, mean_interval, studentised

ON = [
    "Tom has 3 apples. Think.",
    "2 + 2 =?",
    "How many birds? Think!",
    "Hi, think",
    "Why",
    "A longer question, with 77.",
]
OFF = ["Tom has 3 apples.", "2 + 2 =", "How many birds?", "Hi", "Why not", "A longer question, with 78."]
pooling = importlib.import_module("saereason.search.pooled")


@pytest.fixture(scope="module")
def examples(model):
    return Examples.pair(model, ON, OFF)


def last_acts(model, saes, prompts):
    """Activations at the last token, `[prompt, layer and feature]`, one prompt at a time."""
    rows = []
    for prompt in prompts:
        resid = hooks.read(model, pad([model.encode(prompt)], pad_token=0), sorted(saes))
        rows.append(torch.cat([saes[layer].encode(resid[layer][:, -1]) for layer in sorted(saes)], dim=-1))
    return torch.cat(rows).double().numpy()


# sums


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.floats(-1e4, 1e4))
@settings(max_examples=50, deadline=None)
def test_law_8_moments_add_up(seed, n, m, offset):
    values = offset + torch.randn(n + m, 5, generator=torch.Generator().manual_seed(seed))
    parts, whole = moments(values[:n]) + moments(values[n:]), moments(values)
    assert parts.count == whole.count == n + m
    for name in ("total", "square", "mean"):
        assert torch.allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-12 * abs(offset))


@given(st.integers(0, 10**6), st.integers(3, 40), st.sampled_from([0.0, 0.3, 50.0]))
@settings(max_examples=50, deadline=None)
def test_the_studentised_difference_is_the_paired_t(seed, n, offset):
    rng = np.random.default_rng(seed)
    on, off = offset + rng.standard_normal((n, 4)), rng.standard_normal((n, 4))
    t = moments(torch.from_numpy(on - off)).studentised.numpy()
    np.testing.assert_allclose(t, scipy_stats.ttest_rel(on, off).statistic, rtol=1e-9)
    np.testing.assert_allclose(t, studentised(on - off), rtol=1e-9)


def test_constants_and_zeros_are_finite():
    values = torch.tensor([[0.0, 2.0, -0.1]]).expand(5, 3)
    t = moments(values).studentised
    assert t[0] == 0 and torch.isfinite(t).all() and t[1] > 1e6 and t[2] < -1e6
    with pytest.raises(ValueError, match="1 prompts have no standard error"):
        _ = moments(values[:1]).studentised


# the pass


def test_every_score_is_what_a_plain_loop_gives(model, saes, examples):
    table = search(model, saes, examples)
    on, off = last_acts(model, saes, ON), last_acts(model, saes, OFF)
    assert list(table) == [Feature(layer, index) for layer in range(4) for index in range(96)]
    expected = {
        "difference": (on - off).mean(0),
        "mean_on": on.mean(0),
        "mean_off": off.mean(0),
        "rate_on": (on > 0).mean(0),
        "rate_off": (off > 0).mean(0),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(table[name], values, atol=1e-4)
    moving = np.abs(on - off).max(0) > 0.01
    theirs = scipy_stats.ttest_rel(on[:, moving], off[:, moving]).statistic
    np.testing.assert_allclose(table["studentised"][moving], theirs, rtol=1e-2, atol=1e-3)
    assert moving.sum() > 20


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7])
def test_the_batch_size_does_not_matter(model, topk_saes, examples, batch_size):
    whole, parts = (search(model, topk_saes, examples, batch_size=size) for size in (64, batch_size))
    for name in ("difference", "mean_on", "mean_off", "rate_on", "rate_off"):
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-4)


def test_the_block_on_disk_holds_every_prompts_activations_in_the_tables_order(tmp_path, model, saes, examples):
    saes = {3: saes[3], 1: saes[1]}
    path = tmp_path / "deep" / "block"
    table = search(model, saes, examples, block=path, batch_size=4)
    block = Block.open(path)
    assert block.values.shape == (2 * len(ON), len(table)) and block.values.dtype == np.float32
    on, off = last_acts(model, saes, ON), last_acts(model, saes, OFF)
    np.testing.assert_allclose(block.values[block.label], on, atol=1e-4)
    np.testing.assert_allclose(block.differences[:, :], on - off, atol=1e-4)
    np.testing.assert_allclose(block.differences[:, :].mean(0), table["difference"], atol=1e-6)
    assert block.rows.tolist() == [[n // 2, 1 - n % 2] for n in range(2 * len(ON))]
    assert table["layer"].tolist() == [1] * 96 + [3] * 96


def test_columns_are_read_from_the_file_as_they_are_mapped(model, tmp_path, topk_saes, examples):
    search(model, {1: topk_saes[1]}, examples, block=tmp_path / "b")
    block = Block.open(tmp_path / "b")
    assert block.shape == block.values.shape == (2 * len(ON), 96)
    for columns in (slice(0, 5), slice(90, 200), slice(None), slice(7, 7)):
        np.testing.assert_array_equal(block.read(columns), block.values[:, columns])
    np.testing.assert_array_equal(block[1:3, 4:9], block.values[1:3, 4:9])
    np.testing.assert_array_equal(np.concatenate([part for _, part in block.chunks(10)], 1), block.values)
    whole = (tmp_path / "b" / "values.npy").read_bytes()
    (tmp_path / "b" / "values.npy").write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="ends early; search again"):
        block.read(slice(90, 96))


def test_a_search_that_fails_leaves_no_block(tmp_path, model, topk_saes, examples):
    def stop(done, total):
        assert (done, total) == (4, 2 * len(ON))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(model, topk_saes, examples, block=tmp_path / "block", batch_size=4, progress=stop)
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_prompts(tmp_path, model, topk_saes):
    held = []

    def weigh(done, total):
        assert total == 800
        if done in (2 * AT_LEAST + 8, 3 * AT_LEAST + 8):  # a batch after so many tokens were encoded
            held.append(sum(t.nbytes for t in gc.get_objects() if issubclass(type(t), torch.Tensor)))

    examples = Examples.pair(model, *([f"Tom {has} {n:03} apples" for n in range(400)] for has in ("has", "had")))
    search(model, topk_saes, examples, block=tmp_path / "block", batch_size=8, progress=weigh)
    assert len(held) == 2 and held[1] <= held[0] * 1.01


def test_what_cannot_be_searched_is_refused(model, topk_saes, examples):
    with pytest.raises(ValueError, match="there are no SAEs to search"):
        search(model, {}, examples)
    with pytest.raises(ValueError, match="belongs to another model"):
        search(model, {1: tiny_sae("topk", 1, d_in=48)}, examples)
    with pytest.raises(ValueError, match=r"\d+ prompts show the behaviour and 0 do not"):
        search(model, topk_saes, dataclasses.replace(examples, label=torch.ones_like(examples.label)))
    with pytest.raises(ValueError, match="the rows of a group are apart"):
        search(model, topk_saes, dataclasses.replace(examples, group=examples.group.roll(1)))
    with pytest.raises(ValueError, match="6 prompts on and 5 off"):
        Examples.pair(model, ON, OFF[1:])
    with pytest.raises(ValueError, match="'Think' is one text; give lists of prompts"):
        Examples.pair(model, "Think", OFF)
    with pytest.raises(ValueError, match="5 and 6 texts for 6 pairs; give one a prompt"):
        Examples.pair(model, ON, OFF, written=([[5]] * 5, [[5]] * 6))
    with pytest.raises(ValueError, match="0 prompts on"):
        Examples.pair(model, [], [])


# texts, and every score against scipy


TEXTS_ON, TEXTS_OFF = [f"Step {n}: we add {n} and {n + 3}." for n in range(7)], ["Once there was a king.", *OFF[:4]]


def all_acts(model, saes, text):
    """Activations at every token but the first, `[token, layer and feature]`."""
    resid = hooks.read(model, pad([model.encode(text)], pad_token=0), sorted(saes))
    return torch.cat([saes[layer].encode(resid[layer][0, 1:]) for layer in sorted(saes)], dim=-1).double().numpy()


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("batch_size", [3, 64])
def test_scores_of_texts_are_scipys(tmp_path, model, saes, pool, batch_size):
    table = search(
        model, saes, Examples.texts(model, TEXTS_ON, TEXTS_OFF), pool=pool, batch_size=batch_size, block=tmp_path / "b"
    )
    acts = [all_acts(model, saes, text) for text in (*TEXTS_ON, *TEXTS_OFF)]
    values = np.stack([each.mean(0) if pool == "mean" else each.max(0) for each in acts])
    on, off, n = values[: len(TEXTS_ON)], values[len(TEXTS_ON) :], len(TEXTS_ON)
    np.testing.assert_allclose(table["mean_on"] - table["mean_off"], table["difference"], atol=1e-9)
    np.testing.assert_allclose(table["difference"], on.mean(0) - off.mean(0), atol=1e-4)
    np.testing.assert_allclose(table["rate_on"], (on > 0).mean(0), atol=1e-9)
    moving = (on.std(0) > 0.01) & (off.std(0) > 0.01)
    welch = scipy_stats.ttest_ind(on[:, moving], off[:, moving], equal_var=False).statistic
    np.testing.assert_allclose(table["studentised"][moving], welch, rtol=1e-2, atol=1e-3)
    spread = np.sqrt(((n - 1) * on.var(0, ddof=1) + (len(off) - 1) * off.var(0, ddof=1)) / (len(values) - 2))
    d = (on.mean(0) - off.mean(0)) / np.where(spread > 0, spread, 1)
    np.testing.assert_allclose(table["cohens_d"][moving], d[moving], rtol=1e-2, atol=1e-3)
    r = [scipy_stats.pointbiserialr(np.arange(len(values)) < n, column).statistic for column in values.T[moving]]
    np.testing.assert_allclose(table["correlation"][moving], r, rtol=1e-2, atol=1e-3)
    u = [scipy_stats.mannwhitneyu(a, b).statistic / n / len(off) for a, b in zip(on.T, off.T, strict=True)]
    assert np.isclose(table["auroc"], u, atol=1e-6).mean() > 0.97  # rounding may order near-equals otherwise
    label = np.concatenate([np.full(len(each), n < len(TEXTS_ON)) for n, each in enumerate(acts)])
    tokens = np.concatenate(acts)
    varies = tokens.std(0) > 0.01
    r = [scipy_stats.pearsonr(column, label).statistic for column in tokens.T[varies]]
    np.testing.assert_allclose(table["pearson"][varies], r, atol=1e-3)
    assert varies.sum() > 20 and moving.sum() > 20


@pytest.mark.parametrize("batch_size", [3, 64])
def test_pearson_with_any_number_a_token_is_scipys(model, saes, batch_size):
    examples = Examples.texts(model, TEXTS_ON, TEXTS_OFF)
    numbers = 5 + torch.randn(examples.tokens.shape, generator=torch.Generator().manual_seed(3))
    table = search(model, saes, dataclasses.replace(examples, target=numbers), batch_size=batch_size)
    tokens = np.concatenate([all_acts(model, saes, text) for text in (*TEXTS_ON, *TEXTS_OFF)])
    varies = tokens.std(0) > 0.01
    told = numbers[examples.valid].numpy()
    r = [scipy_stats.pearsonr(column, told).statistic for column in tokens.T[varies]]
    np.testing.assert_allclose(table["pearson"][varies], r, atol=1e-3)
    assert (table["studentised"] == search(model, saes, examples, batch_size=batch_size)["studentised"]).all()
    still = dataclasses.replace(examples, target=torch.full(examples.tokens.shape, 0.1))
    assert not search(model, saes, still)["pearson"].any(), "what does not vary goes with nothing"
    with pytest.raises(ValueError, match="give a finite number for each scored token"):
        search(model, saes, dataclasses.replace(examples, target=numbers / 0))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_auroc_counts_ties_half(pairs):
    values, label = (np.array(column) for column in zip(*pairs, strict=True))
    if label.all() or not label.any():
        with pytest.raises(ValueError, match="both are needed"):
            auroc(values[:, None].astype(float), label)
    else:
        u = scipy_stats.mannwhitneyu(values[label], values[~label]).statistic
        found = auroc(values[:, None].astype(float), label)
        assert found == pytest.approx(u / label.sum() / (~label).sum())


def test_scores_of_constants_are_finite():
    same, other = moments(torch.full((4, 1), 2.0)), moments(torch.full((3, 1), 1.0))
    for score in (cohens_d, welch_t):
        assert score(same, same) == 0 and 1e6 < score(same, other) < float("inf")
    with pytest.raises(ValueError, match="give two of each"):
        welch_t(same, moments(torch.ones(1, 1)))
    with pytest.raises(ValueError, match="give at least three in all"):
        cohens_d(moments(torch.ones(1, 1)), moments(torch.ones(1, 1)))


def test_what_the_model_writes_is_scored_in_place_of_the_prompt(model, topk_saes):
    written = generate(model, ON, max_new_tokens=4).tokens, generate(model, OFF, max_new_tokens=3).tokens
    table = search(model, topk_saes, Examples.pair(model, ON, OFF, written=written))
    rows = []
    for prompt, tokens in zip(ON, written[0], strict=True):
        ids = model.encode(prompt)
        resid = hooks.read(model, pad([ids + list(tokens)], pad_token=0), sorted(topk_saes))
        rows.append(torch.cat([topk_saes[n].encode(resid[n][0, len(ids) :]) for n in sorted(topk_saes)], -1).mean(0))
    np.testing.assert_allclose(table["mean_on"], torch.stack(rows).mean(0), atol=1e-4)
    with pytest.raises(ValueError, match="11 texts were written after 12 prompts"):
        Examples.pair(model, ON, OFF, written=([(), *written[0][1:]], written[1]))


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_doubling_every_token_of_a_prompt_leaves_scores_and_intervals_as_they_are(
    monkeypatch, tmp_path, model, topk_saes, pool
):
    """With residuals that depend on the token alone, so that a doubled token says the same twice."""
    rows = torch.randn(4, model.d_vocab, 32, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(pooling, "read", lambda _, batch, layers, at: {n: rows[n][batch.tokens[at]] for n in layers})
    whole = Examples.pair(model, ON, OFF, written=([model.encode(p) for p in ON], [model.encode(p)[:4] for p in OFF]))
    twice = (each.repeat_interleave(2, dim=1) for each in (whole.tokens, whole.mask, whole.label, whole.valid))
    paths = tmp_path / "once", tmp_path / "twice"
    once, doubled = (
        add_max_t(search(model, topk_saes, examples, pool=pool, block=path), path, n_permutations=99)
        for examples, path in zip((whole, Examples(*twice, whole.group)), paths, strict=True)
    )
    assert (once["rate_on"] > 0).sum() > 20
    for name in once.columns:
        np.testing.assert_allclose(doubled[name], once[name], rtol=1e-4, atol=1e-5, err_msg=name)
    values = [Block.open(path).differences[:, :] for path in paths]
    moving = np.flatnonzero(values[0].std(0) > 0)[:5]
    for feature in moving:
        narrow, wide = (mean_interval(each[:, feature], n_resamples=200) for each in values)
        assert list(vars(narrow).values()) == pytest.approx(list(vars(wide).values()), rel=1e-3, abs=1e-5)


# law 9, with residuals of our own in place of the model's


def pipeline(monkeypatch, path, model, saes, *, seed, planted=None, n=40):
    """The whole search on Gaussian residuals; a planted feature is written into those of the prompts on."""
    generator = torch.Generator().manual_seed(seed)

    def residuals(_, batch, layers, at):
        shape = (*batch.tokens.shape, 32)
        found = {layer: torch.randn(shape, generator=generator) for layer in layers}
        if planted is not None:
            row = saes[planted.layer].W_dec[planted.index]
            found[planted.layer][::2] += 3 * row / row.norm()
        return {layer: resid[at] for layer, resid in found.items()}

    monkeypatch.setattr(pooling, "read", residuals)
    table = search(model, saes, Examples.pair(model, *([f"{a}{k:04}" for k in range(n)] for a in "ab")), block=path)
    return add_max_t(table, path, n_permutations=99, seed=seed)


@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_law_9_a_planted_feature_is_found_first_and_discovered(monkeypatch, tmp_path, model, architecture):
    saes = {layer: tiny_sae(architecture, layer) for layer in (1, 2)}
    planted = Feature(2, 17)
    table = pipeline(monkeypatch, tmp_path / "b", model, saes, seed=0, planted=planted)
    assert next(iter(table.top(1, "studentised"))) == planted
    assert table.row(planted)["p_max_t"] == 0.01 and table.row(planted)["difference"] > 0
    assert (table.at(1)["p_max_t"] > 0.05).all()


def test_law_9_on_noise_discoveries_stay_at_the_nominal_level(monkeypatch, tmp_path, model):
    saes = {1: tiny_sae("standard", 1)}
    runs = [pipeline(monkeypatch, tmp_path / "b", model, saes, seed=seed, n=24) for seed in range(80)]
    assert sum((table["p_max_t"] <= 0.05).any() for table in runs) <= 9  # of 80, 4 expected


def test_max_t_wants_the_table_that_the_search_gave(tmp_path, model, topk_saes, examples):
    table = search(model, topk_saes, examples, block=tmp_path / "block")
    with pytest.raises(ValueError, match="not in the order of its features"):
        add_max_t(table.top(len(table), "difference"), tmp_path / "block")
    with pytest.raises(ValueError, match="has 384 features and the table 96"):
        add_max_t(table.at(0), tmp_path / "block")


# directions and chance


@pytest.mark.parametrize("batch_size", [2, 5, 64])
def test_diff_mean_is_what_a_plain_loop_gives(any_model, batch_size):
    found = diff_mean(any_model, Examples.pair(any_model, ON, OFF), [0, 3], batch_size=batch_size)
    for layer, vector in found.items():
        on, off = (
            torch.stack(
                [hooks.read(any_model, pad([any_model.encode(p)], pad_token=0), [layer])[layer][0, -1] for p in ps]
            )
            for ps in (ON, OFF)
        )
        torch.testing.assert_close(vector, on.mean(0) - off.mean(0), atol=1e-4, rtol=1e-4)
        assert vector.dtype == torch.float32


def test_diff_mean_needs_tokens_of_both_kinds(model, examples):
    with pytest.raises(ValueError, match="12 tokens show the behaviour and 0 do not"):
        diff_mean(model, dataclasses.replace(examples, label=torch.ones_like(examples.label)), [1])


def rates(n=300, seed=0):
    rate = np.random.default_rng(seed).random(n) ** 4
    rate[::7] = 0
    return FeatureTable({"layer": np.arange(n) // 100, "index": np.arange(n) % 100, "firing_rate": rate})


APART = {layer: tiny_sae("topk", layer, d_in=256, d_sae=100) for layer in range(3)}
"""SAEs for `rates`, in which no feature is a copy of another."""


@given(st.integers(0, 100), st.integers(0, 299), st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_matched_features_share_layer_and_firing_rate(seed, place, n):
    table = rates()
    feature = list(table)[place]
    found = matched_features(table, APART, feature, n, seed=seed, near=3)
    assert found == matched_features(table, APART, feature, n, seed=seed, near=3)
    assert len(set(found)) == n and feature not in found
    assert {f.layer for f in found} <= {feature.layer} and all(type(f.index) is int for f in found)
    firing = table.where((table["firing_rate"] > 0) & (table["layer"] == feature.layer))
    gaps = {
        f: abs(np.log(r / max(table.row(feature)["firing_rate"], 1e-12)))
        for f, r in zip(firing, firing["firing_rate"], strict=True)
    }
    gaps.pop(feature, None)
    assert all(gaps[f] <= sorted(gaps.values())[3 * n - 1] for f in found)
    others = matched_features(table, APART, feature, n, seed=seed, near=3, besides=[*found, Feature(9, 0)])
    assert set(others).isdisjoint(found) and len(others) == n


def test_a_matched_feature_is_no_copy():
    """Neither of the feature nor of those besides; one at a cosine below 0.7 may be drawn."""
    sae = tiny_sae("topk", 1, d_in=256, d_sae=100)
    with torch.no_grad():
        for place, of, cosine in ((2, 1, 1.0), (3, 1, 0.75), (4, 1, 0.6), (6, 5, 0.8)):
            away = sae.W_dec[place] - (sae.W_dec[place] @ sae.W_dec[of]) / sae.W_dec[of].square().sum() * sae.W_dec[of]
            units = sae.W_dec[of] / sae.W_dec[of].norm(), away / away.norm()
            sae.W_dec[place] = 3 * (cosine * units[0] + (1 - cosine**2) ** 0.5 * units[1])
    table = FeatureTable({"layer": np.ones(100, dtype=int), "index": np.arange(100), "firing_rate": np.full(100, 0.1)})
    one = Feature(1, 1)
    assert [each.index for each in copies({1: sae}, one)] == [2, 3]
    drawn = {f.index for seed in range(60) for f in matched_features(table, {1: sae}, one, 5, seed=seed, near=20)}
    assert drawn.isdisjoint({1, 2, 3}) and {4, 5, 6} <= drawn
    drawn = {
        f.index
        for seed in range(60)
        for f in matched_features(table, {1: sae}, one, 5, seed=seed, near=20, besides=[Feature(1, 5), Feature(0, 7)])
    }
    assert drawn.isdisjoint({1, 2, 3, 5, 6}) and {4, 7} <= drawn


def test_matched_features_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"layer 1 has \d+ other features that fire and are no copies; 100 random"):
        matched_features(rates(), APART, Feature(1, 5), 100)
    with pytest.raises(ValueError, match="L9/0 is in the table 0 times"):
        matched_features(rates(), APART, Feature(9, 0), 3)


def test_random_directions_have_the_norm_and_no_preference():
    found = torch.stack(random_directions(16, 4000, norm=2.5, seed=1))
    assert torch.allclose(found.norm(dim=-1), torch.tensor(2.5))
    assert found.mean(0).abs().max() < 0.05
    assert torch.allclose(found.T @ found / 4000, torch.eye(16) * 2.5**2 / 16, atol=0.05)
    assert torch.equal(found, torch.stack(random_directions(16, 4000, norm=2.5, seed=1)))
    assert not torch.equal(found[0], random_directions(16, 4000, norm=2.5, seed=2)[0])


def test_moments_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        moments(torch.ones(3, 2)).count = 4
    assert isinstance(moments(torch.ones(3, 2)), Moments)


def test_p_of_unpaired_texts_is_by_shuffles_of_their_labels(tmp_path, model, topk_saes):
    examples = Examples.texts(model, TEXTS_ON, TEXTS_OFF)
    table = add_max_t(search(model, topk_saes, examples, block=tmp_path / "b"), tmp_path / "b", n_permutations=200)
    block = Block.open(tmp_path / "b")
    p = max_t_groups(block.values, block.label, n_permutations=200)
    assert table["p_max_t"].tolist() == p.tolist() and p.min() < 0.05 < p.max()
    few = block.max_t(np.array([5, 9]), n_permutations=200)
    assert len(few) == 2 and (few <= p[[5, 9]]).all()


def test_groups_of_which_some_are_pairs_have_no_p(tmp_path, model, topk_saes):
    examples = Examples.pair(model, ON, OFF)
    examples = dataclasses.replace(examples, valid=examples.valid & (torch.arange(len(examples.valid)) > 0)[:, None])
    table = search(model, topk_saes, examples, block=tmp_path / "b")
    with pytest.raises(ValueError, match="give pairs, or none"):
        add_max_t(table, tmp_path / "b")


@pytest.mark.parametrize("kind", ["topk", "standard", "jumprelu"])
def test_what_is_not_finite_is_refused_and_not_scored(model, kind):
    lm = copy.deepcopy(model)
    token = lm.encode("Z")[-1]
    lm.hf.get_input_embeddings().weight.data[token] = torch.nan
    pairs = Examples.pair(lm, ["one Z two", "Z three"], ["one two", "three"])
    with pytest.raises(ValueError, match=r"the SAE at layer 2 cannot be used: .* at 2 of 4 tokens are not finite"):
        search(lm, {2: tiny_sae(kind, 2)}, pairs)


def test_a_constant_feature_is_not_found_whatever_the_lengths_of_the_texts(model, tmp_path):
    sae = tiny_sae("standard", 2)
    sae.W_enc.data[:, 7], sae.b_enc.data[7] = 0, 0.1
    texts = [f"{n} and {n + 1} make {'so ' * 3}" for n in range(12)], [f"{n}? {'well ' * 12}" for n in range(12)]
    table = search(model, {2: sae}, Examples.texts(model, *texts), block=tmp_path / "block")
    row = table.row(Feature(2, 7))
    assert row["studentised"] == row["cohens_d"] == 0 and row["auroc"] == 0.5
    assert add_max_t(table, tmp_path / "block", n_permutations=99).row(Feature(2, 7))["p_max_t"] == 1


def test_pooling_by_another_name_is_refused(model, topk_saes, examples):
    with pytest.raises(ValueError, match="pool is 'Max'; it must be one of mean, max"):
        inspect.unwrap(search)(model, topk_saes, examples, pool="Max")  # as it runs without beartype


def test_a_block_of_other_prompts_is_refused(tmp_path, model, topk_saes, examples):
    search(model, topk_saes, examples, block=tmp_path / "block")
    others = Examples.pair(model, ["one two", "three four", "five"], ["one tw", "three fou", "fiv"])
    with pytest.raises(ValueError, match="holds activations on other prompts than the table's"):
        add_max_t(search(model, topk_saes, others), tmp_path / "block")


def test_a_block_replaces_a_block_and_nothing_else(tmp_path, model, topk_saes, examples):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="holds other files, which a block would replace"):
        search(model, topk_saes, examples, block=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
    table = search(model, topk_saes, examples, block=tmp_path / "block")
    for _ in range(2):
        search(model, topk_saes, examples, block=str(tmp_path / "block"))
    table.save(tmp_path / "block" / "table.parquet")
    with pytest.raises(ValueError, match="holds other files, which a block would replace"):
        search(model, topk_saes, examples, block=tmp_path / "block")
    with pytest.raises(ValueError, match="is a file, and a block is a folder"):
        search(model, topk_saes, examples, block=tmp_path / "mine" / "thesis.txt")


def test_a_block_goes_where_a_link_points(tmp_path, model, topk_saes, examples):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "scratch")
    search(model, topk_saes, examples, block=tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "scratch" / "values.npy").is_file()


def test_too_few_prompts_leave_the_block_as_it_was(tmp_path, model, topk_saes, examples):
    search(model, topk_saes, examples, block=tmp_path)
    before = (tmp_path / "values.npy").read_bytes()
    one = Examples.pair(model, ON[:1], OFF[:1])
    with pytest.raises(ValueError, match="1 prompts show the behaviour and 1 do not; give two of each"):
        search(model, topk_saes, one, block=tmp_path)
    assert (tmp_path / "values.npy").read_bytes() == before


def test_prompts_that_are_there_twice_are_told(model, topk_saes):
    with pytest.warns(UserWarning, match="2 of 8 prompts are there before and count once more"):
        search(model, topk_saes, Examples.pair(model, [*ON, *ON[:2]], [*OFF, *OFF[:2]]))
    assert Examples.pair(model, ON[:2] * 2, OFF[:4]).n_repeated == 0, "asked another way"


def test_groups_out_of_order_are_refused(model, topk_saes, examples):
    turned = {name: getattr(examples, name).flip(0) for name in ("tokens", "mask", "label", "valid", "group")}
    with pytest.raises(ValueError, match="the groups do not ascend from row to row"):
        search(model, topk_saes, Examples(**turned))
