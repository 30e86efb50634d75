"""What differences look like where there is none: halves, shifts along depth, swaps within pairs."""

import dataclasses

import numpy as np
import pytest

from saereason.layers import Curve, compare_depth, halved, shifted, swapped


def curve(drop, name="a", n_layers=None):
    layers = drop.shape[1]
    return Curve(name, "reasoning", "skip block", tuple(range(layers)), n_layers or layers, drop, np.zeros(len(drop)))


def at(layer, n, seed, name="a", n_layers=8):
    """Items that lose by one layer and its neighbours, each its own amount."""
    rng = np.random.default_rng(seed)
    profile = np.exp(-((np.arange(n_layers) - layer) ** 2) / 2)
    return curve(rng.gamma(4, 1, (n, 1)) * profile + 0.1 * rng.standard_normal((n, n_layers)), name)


def centroid(drop):
    mean = drop.mean(0)
    return mean @ np.arange(len(mean)) / (len(mean) - 1) / mean.sum()


def test_swaps_are_those_of_a_naive_loop():
    first, second = at(2, 12, 0), at(5, 12, 1, "b")
    found = swapped(first, second, n=50, seed=3)
    stay = np.random.default_rng(3).integers(2, size=(51, 12)).astype(bool)[1:]
    a, b = (each.drop / each.drop.sum(1).mean() for each in (first, second))
    naive = [centroid(np.where(row[:, None], a, b)) - centroid(np.where(row[:, None], b, a)) for row in stay]
    np.testing.assert_allclose(found.draws, naive, atol=1e-12)
    assert found.value == pytest.approx(compare_depth(first, second).centroid_difference)
    assert found.reached < 0.05, "these families differ"
    assert found.draws.mean() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("weak", [1.0, 0.25])
def test_swapping_items_of_one_kind_reaches_what_is_there(weak):
    """Also where one family loses four times as much in all, and the other is all the noisier in its shares."""
    reached = []
    for n in range(150):
        second = at(3, 30, 1000 + n, "b")
        noise = 0.3 * np.random.default_rng(n).standard_normal(second.drop.shape)
        second = dataclasses.replace(second, drop=weak * second.drop + noise)
        reached.append(swapped(at(3, 30, n), second, n=300, seed=n).reached)
    assert 0.4 < np.mean(reached) < 0.6, "p is even where there is nothing"
    assert np.mean(np.array(reached) < 0.05) < 0.12


def test_halves_of_one_family_lie_as_far_apart_as_chance_puts_them():
    small, large = halved(at(3, 20, 0)), halved(at(3, 320, 0))
    assert 0 < large.usual < small.usual, "more items, nearer halves"
    apart = [centroid(at(3, 160, n).drop) - centroid(at(3, 160, 500 + n).drop) for n in range(300)]
    assert large.usual == pytest.approx(np.quantile(np.abs(apart), 0.95), rel=0.3), "as two fresh families of that size"


def test_profiles_agree_more_than_shifted_ones_only_in_their_place():
    same, other = shifted(at(3, 40, 0), at(3, 40, 1, "b")), shifted(at(1, 40, 0), at(6, 40, 1, "b"))
    assert same.value > 0.95 and same.reached == 0 and len(same.draws) == 7
    assert other.value < 0 and np.max(other.draws) > 0.95, "the shift by which they lie apart"
    assert other.reached > 0.5, "to be unlike is not to agree"


def test_layers_are_shifted_in_the_order_of_depth():
    first, second = at(2, 12, 0), at(5, 12, 1, "b")
    turned = [dataclasses.replace(each, layers=each.layers[::-1], drop=each.drop[:, ::-1]) for each in (first, second)]
    np.testing.assert_allclose(shifted(*turned).draws, shifted(first, second).draws)


def test_layers_that_no_text_can_do_without_are_left_out_of_all_three():
    first, second = at(2, 12, 0), at(5, 12, 1, "b")
    vital = curve(np.tile([9.0, 0, 0, 0, 0, 0, 0, 9.0], (10, 1)), "plain text")
    told = compare_depth(first, second, neutral=vital)
    assert swapped(first, second, neutral=vital).value == pytest.approx(told.centroid_difference)
    assert len(shifted(first, second, neutral=vital).draws) == 5
    assert halved(first, neutral=vital).value != pytest.approx(halved(first).value, abs=1e-12)


BAD = np.where(np.arange(40).reshape(10, 4) == 7, np.inf, 1.0)


@pytest.mark.parametrize(
    "drop",
    [np.zeros((10, 4)), np.full((10, 4), np.nan), BAD, np.ones((1, 4)), -np.ones((10, 4)), np.ones((3, 4))],
    ids=["flat", "nan", "inf", "one item", "gain", "few items"],
)
def test_where_compare_depth_says_nothing_there_is_no_null(drop):
    bad, good = curve(drop), at(2, len(drop), 0, "b", n_layers=4)
    assert "nconclusive" in compare_depth(bad, good).statement
    for null in (swapped(bad, good), swapped(good, bad), shifted(bad, good), shifted(good, bad), halved(bad)):
        assert np.isnan([null.value, null.usual, null.reached]).all() and not len(null.draws)


def test_rows_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="there are 12 items of a and 11 of b; give curves of matched pairs"):
        swapped(at(2, 12, 0), at(5, 11, 1, "b"))
    with pytest.raises(ValueError, match="compare curves over the same layers"):
        shifted(at(2, 12, 0), at(2, 12, 0, "b", n_layers=7))
