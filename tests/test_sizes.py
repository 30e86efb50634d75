"""Effect sizes of many treatments, and coverage of the intervals that saereason prints."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats as scipy_stats

from saereason.stats import bootstrap, cohens_d, cohens_dz, d_intervals, largest_d, mean_interval

BIG = 1e9


def arms(seed, n=30, k=4, effect=0.0):
    """Treatments of the same items, which share much of what they vary by."""
    rng = np.random.default_rng(seed)
    item = rng.standard_normal((n, 1))
    base = item + 0.5 * rng.standard_normal((n, 1))
    return item + 0.5 * rng.standard_normal((n, k)) + effect, np.repeat(base, k, axis=1)


def test_effect_sizes_are_students_t_rescaled():
    treated, base = arms(0, effect=np.array([0, 0.3, -0.5, 2]))
    n = len(treated)
    unpaired, within = scipy_stats.ttest_ind(treated, base).statistic, scipy_stats.ttest_rel(treated, base).statistic
    np.testing.assert_allclose(cohens_d(treated, base), unpaired * (2 / n) ** 0.5)
    np.testing.assert_allclose(cohens_dz(treated, base), within / n**0.5)


def test_a_large_effect_is_what_cohen_said():
    rng = np.random.default_rng(0)
    base = rng.standard_normal((200_000, 1))
    treated = rng.standard_normal((200_000, 1)) + 0.8
    assert cohens_d(treated, base)[0] == pytest.approx(0.8, abs=0.01)
    assert (treated > np.median(base)).mean() == pytest.approx(0.79, abs=0.005)


@pytest.mark.parametrize("size", [cohens_d, cohens_dz])
def test_groups_without_spread_have_a_size_all_the_same(size):
    treated, base = np.array([[1.0, 0.0, -2.0]] * 5), np.zeros((5, 3))
    assert size(treated, base) == pytest.approx([BIG, 0, -BIG])


@given(hnp.arrays(np.float64, (6, 3), elements=st.floats(-1e6, 1e6)), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_everything_is_finite_and_blind_to_scale(values, seed):
    base = np.random.default_rng(seed).standard_normal((6, 3))
    p, chance = largest_d(values, base, n_permutations=40, seed=seed)
    assert ((p >= 1 / 41) & (p <= 1)).all() and np.isfinite(chance)
    for estimate, d in zip(d_intervals(values, base, n_resamples=40, seed=seed), cohens_d(values, base), strict=True):
        assert estimate.low <= estimate.value == d <= estimate.high and np.isfinite([estimate.low, estimate.high]).all()
    np.testing.assert_allclose(cohens_d(8 * values, 8 * base), cohens_d(values, base), rtol=1e-9)
    np.testing.assert_allclose(cohens_d(base, values), -cohens_d(values, base), rtol=1e-9)


def naive_largest_d(treated, base, n_permutations, seed):
    """One swap of treated and base at a time."""
    signs = np.random.default_rng(seed).integers(2, size=(n_permutations, len(treated)))
    largest = np.array([cohens_d(*swap(treated, base, row)).max() for row in signs])
    reached = (largest[:, None] >= cohens_d(treated, base) - 1e-9).sum(axis=0)
    return (1 + reached) / (1 + n_permutations), np.quantile(largest, 0.95)


def swap(treated, base, row):
    kept = row[:, None] == 1
    return np.where(kept, treated, base), np.where(kept, base, treated)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_largest_d_is_a_naive_loop(offset):
    treated, base = arms(1, n=12, effect=0.3)
    p, chance = largest_d(treated + offset, base + offset, n_permutations=150, seed=3)
    expected, quantile = naive_largest_d(treated, base, 150, 3)
    assert p.tolist() == expected.tolist() and chance == pytest.approx(quantile, rel=1e-5)


def test_taking_the_largest_of_many_is_paid_for():
    runs = 300
    found = [largest_d(*arms(seed, n=20, k=8), n_permutations=199, seed=seed)[0].min() <= 0.1 for seed in range(runs)]
    assert scipy_stats.binomtest(sum(found), runs, 0.1).pvalue > 0.005
    alone = [largest_d(*arms(seed, n=20, k=1), n_permutations=199, seed=seed)[0].min() for seed in range(runs)]
    assert scipy_stats.kstest(alone, "uniform").pvalue > 0.005


def test_the_largest_d_finds_a_rise_and_no_fall():
    treated, base = arms(2, n=40, effect=np.array([0, 0, 1, -1]))
    p, chance = largest_d(treated, base)
    assert p[2] == 1 / 2001 and (p[[0, 1, 3]] > 0.05).all()
    assert 0 < chance < cohens_d(treated, base)[2]


@pytest.mark.parametrize(("k", "least"), [(1, 0.9), (6, 0.9)])
def test_intervals_of_d_hold_all_of_them_at_about_their_level(k, least):
    truth = np.linspace(0, 1, k) / 1.25**0.5
    hits = 0
    for seed in range(150):
        found = d_intervals(*arms(seed, n=40, k=k, effect=np.linspace(0, 1, k)), n_resamples=200, seed=seed)
        hits += all(e.low <= d <= e.high for e, d in zip(found, truth, strict=True))
    assert least <= hits / 150 < 0.995


def test_a_treatment_that_does_nothing_has_no_width_and_widens_no_other():
    treated, base = arms(3)
    with_nothing = d_intervals(np.column_stack([treated, base[:, 0]]), np.column_stack([base, base[:, 0]]))
    assert list(vars(with_nothing[-1]).values()) == [0, 0, 0]
    assert with_nothing[:-1] == d_intervals(treated, base)


def test_draws_that_miss_a_rare_event_do_not_widen_the_intervals():
    treated, base = np.zeros((40, 2)), np.zeros((40, 2))
    treated[:2, 0], treated[:, 1] = 1, np.random.default_rng(0).standard_normal(40)
    rare = d_intervals(treated, base)[0]
    assert rare.low <= 0.33 < rare.high < 1.2


def test_effect_sizes_refuse_what_they_cannot_do():
    treated, base = arms(0)
    for size in (cohens_d, cohens_dz, largest_d, d_intervals):
        bare = inspect.unwrap(size)
        with pytest.raises(ValueError, match="there is 1; give at least 2"):
            bare(treated[:1], base[:1])
        with pytest.raises(ValueError, match=r"\[30, 29\] items"):
            bare(treated, base[1:])
        with pytest.raises(ValueError, match=r"\(30, 4\) and base values \(30, 3\)"):
            bare(treated, base[:, :3])
        with pytest.raises(ValueError, match="1 values that are not finite"):
            bare(treated, np.where(np.arange(120).reshape(30, 4) == 7, np.nan, base))


# means


def test_the_interval_of_a_mean_is_the_hull_of_two():
    x = np.exp(np.random.default_rng(0).standard_normal(60))
    found, width = mean_interval(x, n_resamples=6000), 4 * scipy_stats.sem(x)
    percentile = scipy_stats.bootstrap((x,), np.mean, n_resamples=6000, method="percentile", rng=1).confidence_interval
    rng = np.random.default_rng(1)
    drawn = rng.choice(x, size=(6000, 60))
    t = (drawn.mean(1) - x.mean()) / scipy_stats.sem(drawn, axis=1)
    studentised = x.mean() - np.quantile(t, [0.975, 0.025]) * scipy_stats.sem(x)
    assert found.value == pytest.approx(x.mean())
    assert found.low == pytest.approx(min(percentile.low, studentised[0]), abs=0.03 * width)
    assert found.high == pytest.approx(max(percentile.high, studentised[1]), abs=0.03 * width)


def test_the_interval_of_a_mean_at_its_ends():
    constant = mean_interval(np.full(5, 0.1))
    assert (constant.value, constant.low, constant.high) == (0.1, 0.1, 0.1)
    rare = mean_interval(np.array([1.0] + [0.0] * 49))
    assert rare.low <= 0 < rare.high < 0.3
    x = np.random.default_rng(2).standard_normal(20)
    here, there = mean_interval(x), mean_interval(5 - 2 * x)
    assert (there.low, there.high) == pytest.approx((5 - 2 * here.high, 5 - 2 * here.low), rel=1e-9)
    assert here == mean_interval(x) != mean_interval(x, seed=1)
    with pytest.raises(ValueError, match="there is 1; give at least 2"):
        mean_interval(np.ones(1))
    with pytest.raises(ValueError, match="not finite"):
        mean_interval(np.array([1.0, np.nan]))


def test_the_mean_of_skewed_values_is_held_more_often_than_by_percentiles():
    truth, held = np.exp(0.5), np.zeros(2)
    for seed in range(400):
        x = np.exp(np.random.default_rng(seed).standard_normal(40))
        both = (
            mean_interval(x, n_resamples=200, seed=seed),
            bootstrap(lambda v: v.sum() / 40, x, n_resamples=200, seed=seed),
        )
        held += [e.low <= truth <= e.high for e in both]
    assert held[0] / 400 > 0.88 and held[0] > held[1] + 8


def test_doubling_every_token_of_a_prompt_leaves_the_interval_as_it_is():
    rng = np.random.default_rng(0)
    prompts = [rng.standard_normal() + 0.3 * rng.standard_normal(n) for n in rng.integers(3, 20, size=30)]
    doubled = [np.repeat(prompt, 2) for prompt in prompts]
    for pool in (np.mean, np.max):
        once, twice = (mean_interval(np.array([pool(prompt) for prompt in rows])) for rows in (prompts, doubled))
        assert list(vars(twice).values()) == pytest.approx(list(vars(once).values()), rel=1e-12)
    # what becomes of it where tokens are the unit
    wrong, worse = (mean_interval(np.concatenate(rows)) for rows in (prompts, doubled))
    assert worse.high - worse.low < 0.75 * (wrong.high - wrong.low) < 0.5 * (once.high - once.low)
