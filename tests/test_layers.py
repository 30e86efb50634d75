"""Layer curves, and what two of them allow one to say."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saereason import Curve, Family, Finding, LogProb, Run, SkipBlock, compare_depth, localise
from saereason.layers import share_difference, shares
from saereason.layers.finding import ENOUGH

PROMPTS = ["Tom has 3 apples.", "2 + 2 =", "How many birds are left?", "Hi"]
LAYERS = tuple(range(12))


@pytest.fixture(scope="module")
def families(model):
    texts = [["seven", " 4", "10", "x"], ["Rome", "Oslo", "Lima", "Bern"]]
    metrics = [LogProb.of(model, PROMPTS, words) for words in texts]
    return [Family("sums", "reasoning", metrics[0], "sums-1"), Family("towns", "knowledge", metrics[1], "towns-1")]


def skipped(model, metric, layer):
    """The metric with a block's contribution taken out by a hook of our own."""

    def hook(module, args, output):  # noqa: ARG001
        return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]

    handle = model.blocks[layer].register_forward_hook(hook)
    value = metric(model).numpy()
    handle.remove()
    return value


def curve(profile, *, n=60, noise=0.1, seed=0, name="family", layers=LAYERS):
    """Effects around a profile over layers, each item with a size of its own."""
    rng = np.random.default_rng(seed)
    size = rng.gamma(8, 1 / 8, size=(n, 1))
    drop = size * np.asarray(profile, dtype=float) + noise * rng.standard_normal((n, len(layers)))
    return Curve(name, "reasoning", "skip block", layers, len(LAYERS), drop, np.zeros(n))


def bump(centre, width=1.5):
    return np.exp(-((np.array(LAYERS) - centre) ** 2) / (2 * width**2))


# the battery


def test_a_curve_is_what_skipping_each_block_by_hand_gives(tmp_path, any_model):
    metric = LogProb.of(any_model, PROMPTS, ["a", "bc", "d", "e"])
    family = Family("letters", "neutral", metric, "f")
    (found,) = localise(any_model, None, [family], run=Run.open(tmp_path))
    clean = metric(any_model).numpy()
    assert (found.family, found.kind, found.operator) == ("letters", "neutral", "skip block")
    assert found.layers == (0, 1, 2, 3) and found.drop.shape == (4, 4)
    np.testing.assert_allclose(found.clean, clean, atol=1e-6)
    for layer in range(4):
        np.testing.assert_allclose(found.drop[:, layer], clean - skipped(any_model, metric, layer), atol=1e-4)
    np.testing.assert_allclose(found.depth, [0, 1 / 3, 2 / 3, 1])


def test_what_the_run_holds_is_not_computed_again(tmp_path, model, families):
    calls, seen = [], []

    def counted(family):
        def metric(lm):
            calls.append(family.name)
            return family.metric(lm)

        return dataclasses.replace(family, metric=metric)

    run, watched = Run.open(tmp_path), [counted(family) for family in families]
    part = localise(model, None, watched[:1], run=run, layers=[1, 2])
    assert calls == ["sums"] * 3
    first = localise(model, None, watched, run=run, progress=lambda *p: seen.append(p))
    assert len(calls) == 3 + 2 + 5 and seen == [(n, 10) for n in range(1, 11)]
    again = localise(model, None, watched, run=Run.open(tmp_path))
    assert len(calls) == 10 and len(list((tmp_path / "results").iterdir())) == 10
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.drop, b.drop) and np.array_equal(a.clean, b.clean)
    assert np.array_equal(part[0].drop, first[0].drop[:, 1:3])
    changed = dataclasses.replace(watched[0], fingerprint="sums-2")
    localise(model, None, [changed], run=run, layers=[0])
    assert len(calls) == 12


def test_an_interrupted_battery_goes_on_where_it_stopped(tmp_path, model, families):
    calls = []

    def failing(lm):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return families[0].metric(lm)

    family = dataclasses.replace(families[0], metric=failing)
    with pytest.raises(KeyboardInterrupt):
        localise(model, None, [family], run=Run.open(tmp_path))
    (found,) = localise(model, None, [family], run=Run.open(tmp_path))
    assert len(calls) == 3 + 3
    (whole,) = localise(model, None, families[:1], run=Run.open(tmp_path / "other"))
    assert np.array_equal(found.drop, whole.drop)


@pytest.mark.parametrize(
    ("layers", "says"), [([], "at least one"), ([1, 1], "each once"), ([4], "no layer 4"), ([-1], "no layer -1")]
)
def test_layers_that_make_no_curve_are_refused(tmp_path, model, families, layers, says):
    with pytest.raises(ValueError, match=says):
        localise(model, None, families, run=Run.open(tmp_path), layers=layers)


def test_the_operator_skips_a_block():
    assert str(SkipBlock()(3)) == "ScaleBlock(L3, 0)"


# shares


@given(st.integers(0, 10**6), st.integers(2, 20))
@settings(max_examples=30, deadline=None)
def test_shares_sum_to_one_and_keep_their_signs(seed, n):
    drop = np.random.default_rng(seed).normal(0.3, 1, size=(n, 12))
    found = shares(dataclasses.replace(curve(bump(3), n=n), drop=drop), n_resamples=50)
    assert found.value.sum() == pytest.approx(1)
    np.testing.assert_allclose(found.draws.sum(1), 1)
    np.testing.assert_array_equal(np.sign(found.value), np.sign(drop.mean(0)) * np.sign(drop.sum()))


def test_shares_are_not_clipped():
    found = shares(curve([3.0, -1.0, *[0.0] * 10], noise=0))
    np.testing.assert_allclose(found.value[:3], [1.5, -0.5, 0], atol=1e-12)
    np.testing.assert_allclose(found.draws[:, :3], np.tile([1.5, -0.5, 0], (2000, 1)), atol=1e-12)


def test_layers_left_out_take_no_share():
    keep = np.arange(12) != 3
    found = shares(curve(bump(3), noise=0), keep=keep)
    assert found.value[3] == 0 and found.value.sum() == pytest.approx(1)


def test_the_total_effect_is_counted_in_bootstrap_errors():
    found = shares(curve(bump(3), n=200, noise=0))
    totals = curve(bump(3), n=200, noise=0).drop.sum(1)
    assert found.total_in_errors == pytest.approx(totals.mean() / (totals.std() / np.sqrt(200)), rel=0.1)


# findings


@pytest.mark.parametrize("gap", [-6, -2, 2, 6])
def test_a_planted_difference_in_depth_is_found_with_its_sign(gap):
    first, second = (
        curve(bump(5.5 + s * gap / 2), seed=n, name=name) for n, (name, s) in enumerate([("a", 1), ("b", -1)])
    )
    found = compare_depth(first, second)
    assert np.sign(found.low) == np.sign(found.high) == np.sign(gap)
    assert found.low < found.centroid_difference < found.high
    assert found.low < gap / 11 < found.high or abs(found.centroid_difference - gap / 11) < 0.1
    assert f"a depends on {'deeper' if gap > 0 else 'shallower'} layers than b" in found.statement
    assert found.statement.startswith("These two families differ:") and found.n_items == (60, 60)
    turned = compare_depth(second, first)
    assert turned.centroid_difference == pytest.approx(-found.centroid_difference)


def test_two_halves_of_one_family_rarely_differ():
    differ = 0
    for seed in range(60):
        whole = curve(bump(4) + 0.3 * bump(9), seed=seed, n=80)
        halves = (
            dataclasses.replace(whole, drop=whole.drop[rows], clean=whole.clean[rows])
            for rows in (slice(None, 40), slice(40, None))
        )
        found = compare_depth(*halves, seed=seed)
        assert "not shown to differ" in found.statement or "These two families differ" in found.statement
        differ += not found.low <= 0 <= found.high
    assert differ <= 8  # of 60, 3 expected


def is_inconclusive(found):
    figures = (*found.centroids, found.centroid_difference, found.low, found.high)
    return found.statement.startswith("Inconclusive: ") and all(np.isnan(figures))


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_without_an_effect_there_is_nothing_to_share_out(noise):
    none, some = curve(np.zeros(12), noise=noise, name="none"), curve(bump(5), name="some")
    for pair in ((none, some), (some, none), (none, none)):
        found = compare_depth(*pair)
        assert is_inconclusive(found) and "none has no total effect to share out" in found.statement
        assert "some" not in found.statement.replace("some has", "")
    assert f"under {ENOUGH:g} standard errors" in compare_depth(none, some).statement
    assert share_difference(none, some).shape == (3, 12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_effects_that_are_not_finite_are_inconclusive_and_named(bad):
    broken, whole = curve(bump(4), name="broken"), curve(bump(6), name="whole")
    broken.drop[3, 5] = broken.drop[7, 2] = broken.drop[7, 3] = bad
    found = compare_depth(broken, whole)
    assert is_inconclusive(found) and "2 of 60 items of broken have effects that are not finite" in found.statement
    assert np.isnan(share_difference(broken, whole)).all()
    assert is_inconclusive(compare_depth(whole, broken))


def test_a_single_item_is_inconclusive():
    one, many = curve(bump(4), n=1, name="one"), curve(bump(6))
    for pair in ((one, many), (many, one)):
        assert is_inconclusive(compare_depth(*pair)) and "one has one item" in compare_depth(*pair).statement


def test_layers_that_plain_text_cannot_do_without_are_left_out():
    plain = curve([4.0, *[0.1] * 10, 2.0], noise=0.01)
    first, second = curve(bump(3) + 9 * bump(0, 0.1), name="a"), curve(bump(8) + 9 * bump(0, 0.1), seed=1, name="b")
    without = compare_depth(first, second, neutral=plain)
    assert without.layers_left_out == (0, 11) and compare_depth(first, second).layers_left_out == ()
    assert without.centroid_difference == pytest.approx(-5 / 11, abs=0.1)
    nothing_left = compare_depth(first, second, neutral=curve(np.full(12, 5.0), noise=0))
    assert is_inconclusive(nothing_left) and nothing_left.layers_left_out == LAYERS


def test_curves_over_different_layers_are_not_compared():
    first, fewer = curve(bump(3)), curve(bump(3)[:6], layers=LAYERS[:6], name="fewer")
    for compare in (compare_depth, share_difference):
        with pytest.raises(ValueError, match="compare curves over the same layers"):
            compare(first, fewer)
    with pytest.raises(ValueError, match="compare curves over the same layers"):
        compare_depth(first, first, neutral=fewer)
    with pytest.raises(ValueError, match="compare curves over the same layers"):
        compare_depth(first, dataclasses.replace(first, n_layers=24))


@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([0.0, 1e-12, 0.1, 1e6]), st.floats(-2, 2))
@settings(max_examples=60, deadline=None)
def test_a_finding_is_made_of_any_curves(seed, n, noise, height):
    first, second = (curve(height * bump(4), n=n, noise=noise, seed=seed + k) for k in (0, 1))
    found = compare_depth(first, second, seed=seed)
    assert isinstance(found, Finding) and found.statement.endswith(".")
    assert is_inconclusive(found) or found.low <= found.high
    assert share_difference(first, second, seed=seed).shape == (3, 12)


def test_the_same_seed_gives_the_same_finding():
    pair = curve(bump(4), seed=1), curve(bump(5), seed=2)
    assert compare_depth(*pair, seed=3) == compare_depth(*pair, seed=3) != compare_depth(*pair, seed=4)
    np.testing.assert_array_equal(share_difference(*pair), share_difference(*pair))


def test_the_pointwise_intervals_hold_the_difference_of_shares():
    first, second = curve(bump(3), n=200), curve(bump(8), n=200, seed=1)
    value, low, high = share_difference(first, second)
    assert (low <= value).all() and (value <= high).all()
    np.testing.assert_allclose(value, bump(3) / bump(3).sum() - bump(8) / bump(8).sum(), atol=0.05)
    assert torch.tensor(value).sum().abs() < 1e-9
