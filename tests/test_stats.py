import inspect
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from saereason.stats import (
    Estimate,
    above,
    auroc_interval,
    auroc_lead,
    benjamini_hochberg,
    benjamini_yekutieli,
    bootstrap,
    bootstrap_bands,
    families,
    max_t,
    max_t_groups,
    mcnemar,
    paired_difference,
    studentised,
    wilson,
)

Z2 = scipy_stats.norm.ppf(0.975) ** 2
light = settings(max_examples=40, deadline=None)
counts = st.tuples(*[st.integers(0, 25)] * 3).filter(lambda c: sum(c) > 0)


def outcomes(only_a: int, only_b: int, same: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.repeat([True, False, True], [only_a, only_b, same])
    return a, np.repeat([False, True, True], [only_a, only_b, same])


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_estimate_prints_value_and_interval():
    assert str(Estimate(0.42, 0.29, 0.56)) == "0.420 [0.290, 0.560]"
    assert str(Estimate(-0.00001, -0.5, -0.0)) == "0.000 [-0.500, 0.000]"


# one proportion


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 7), (420, 1000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_wilson_is_scipys(successes, n, level):
    theirs = scipy_stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    ours = wilson(successes, n, level=level)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.low <= ours.value == successes / n <= ours.high


def test_wilson_takes_numpy_counts_and_mirrors():
    right = wilson(np.array([True, True, False]).sum(), 3)
    wrong = wilson(1, 3)
    assert (right.low, right.high) == pytest.approx((1 - wrong.high, 1 - wrong.low))
    assert type(right.value) is float


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match=f"{successes} successes of {n}"):
        wilson(successes, n)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, math.nan])
def test_levels_are_probabilities(level):
    for call in (
        lambda: wilson(1, 2, level=level),
        lambda: paired_difference(*outcomes(1, 1, 1), level=level),
        lambda: bootstrap(np.mean, noise(5), level=level),
        lambda: bootstrap_bands(noise(5, 2), level=level),
    ):
        with pytest.raises(ValueError, match=r"level is .* between 0 and 1"):
            call()


# two paired proportions


def score_squared(delta: float, only_a: int, only_b: int, n: int) -> float:
    """Tango's statistic with the restricted estimate found by maximising the likelihood itself."""

    def unlikely(p: float) -> float:
        shares = p + delta, p, 1 - 2 * p - delta
        return -sum(c * math.log(s) for c, s in zip((only_a, only_b, n - only_a - only_b), shares, strict=True) if c)

    inside = max(0.0, -delta), (1 - delta) / 2
    p = optimize.minimize_scalar(unlikely, bounds=inside, method="bounded", options={"xatol": 1e-12}).x
    return (only_a - only_b - n * delta) ** 2 / (n * (2 * p + delta - delta**2))


@pytest.mark.parametrize(
    ("only_a", "only_b", "same"), [(6, 16, 139), (40, 20, 100), (1, 0, 9), (3, 3, 0), (12, 2, 36), (5, 1, 0)]
)
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_score_statistic_equals_the_quantile_at_both_limits(only_a, only_b, same, level):
    difference = paired_difference(*outcomes(only_a, only_b, same), level=level)
    z2 = scipy_stats.norm.ppf((1 + level) / 2) ** 2
    for limit in (difference.low, difference.high):
        assert score_squared(limit, only_a, only_b, only_a + only_b + same) == pytest.approx(z2, rel=1e-4)


def test_paired_difference_of_a_published_table():
    # Cavo et al. 2012, as worked in Fagerland, Lydersen and Laake 2017, chapter 8 (R: contingencytables)
    difference = paired_difference(*outcomes(6, 16, 139))
    assert [round(x, 4) for x in (difference.value, difference.low, difference.high)] == [
        -0.0621,
        -0.124,
        -0.0054,
    ]


@pytest.mark.parametrize("n", [1, 2, 50, 100_000])
def test_paired_difference_at_the_boundaries_has_closed_forms(n):
    same = paired_difference(*outcomes(0, 0, n))
    assert (same.value, same.low, same.high) == pytest.approx((0, -Z2 / (n + Z2), Z2 / (n + Z2)), abs=1e-12)
    one_way = paired_difference(*outcomes(n, 0, 0))
    assert (one_way.value, one_way.low, one_way.high) == pytest.approx((1, (n - Z2) / (n + Z2), 1), abs=1e-12)


def test_nothing_right_in_either_still_has_width():
    difference = paired_difference(np.zeros(50, bool), np.zeros(50, bool))
    assert difference.low < -0.07 < 0.07 < difference.high


@light
@given(counts)
def test_paired_difference_contains_its_value_and_mirrors(table):
    a, b = outcomes(*table)
    difference, swapped = paired_difference(a, b), paired_difference(b, a)
    assert -1 <= difference.low <= difference.value <= difference.high <= 1
    assert difference.value == pytest.approx(a.mean() - b.mean())
    assert (swapped.value, swapped.low, swapped.high) == (
        -difference.value,
        -difference.high,
        -difference.low,
    )
    wider = paired_difference(a, b, level=0.99)
    assert wider.low <= difference.low and difference.high <= wider.high


@light
@given(counts, st.integers(0, 99))
def test_order_and_dtype_of_items_do_not_matter(table, seed):
    a, b = outcomes(*table)
    order = np.random.default_rng(seed).permutation(len(a))
    assert paired_difference(a[order].astype(int), b[order].astype(np.float32)) == paired_difference(a, b)
    assert mcnemar(a[order].astype(int), b[order].astype(np.float32)) == mcnemar(a, b)


@light
@given(counts)
def test_paired_difference_excludes_zero_where_mcnemars_score_does(table):
    only_a, only_b, _ = table
    difference = paired_difference(*outcomes(*table))
    significant = (only_a - only_b) ** 2 > Z2 * (only_a + only_b)
    assert (difference.low > 0 or difference.high < 0) == significant


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.3, 0.1), (0.02, 0.02), (0.5, 0.3)])
def test_paired_difference_covers_at_about_its_level(shares):
    n, covered = 20, 0.0
    for only_a in range(n + 1):
        for only_b in range(n + 1 - only_a):
            table = only_a, only_b, n - only_a - only_b
            difference = paired_difference(*outcomes(*table))
            if difference.low <= shares[0] - shares[1] <= difference.high:
                covered += scipy_stats.multinomial.pmf(table, n, (*shares, 1 - sum(shares)))
    assert covered > 0.93


@light
@given(counts)
def test_mcnemar_is_statsmodels(table):
    only_a, only_b, same = table
    theirs = statsmodels_mcnemar([[same, only_a], [only_b, 0]], exact=True).pvalue
    assert mcnemar(*outcomes(*table)) == pytest.approx(min(theirs, 1.0), rel=1e-9)


def test_mcnemar_at_its_ends():
    assert mcnemar(*outcomes(0, 0, 5)) == 1
    assert mcnemar(*outcomes(4, 4, 0)) == 1
    assert mcnemar(*outcomes(10, 0, 0)) == 2 / 2**10
    expected = scipy_stats.binomtest(9_700, 20_000).pvalue
    assert mcnemar(*outcomes(9_700, 10_300, 5)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("test", [paired_difference, mcnemar])
def test_paired_outcomes_are_checked(test):
    bare = inspect.unwrap(test)  # without the type checker, as users run it
    with pytest.raises(ValueError, match="hold 2; give one boolean"):
        test(np.array([0, 2]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"hold -0\.5; give one boolean"):
        test(np.array([0, 1.0]), np.array([0, -0.5]))
    with pytest.raises(ValueError, match="1 values that are not finite"):
        test(np.array([0, np.nan]), np.array([0, 1.0]))
    with pytest.raises(ValueError, match="empty"):
        test(np.array([], bool), np.array([], bool))
    with pytest.raises(ValueError, match=r"\[3, 1\] items"):
        bare(np.ones(3, bool), np.ones(1, bool))
    with pytest.raises(ValueError, match=r"shape \(3, 1\)"):
        bare(np.ones((3, 1), bool), np.ones((3, 1), bool))


# bootstrap


def ratio(x: np.ndarray, y: np.ndarray) -> float:
    return float(x.mean() / y.mean())


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_is_close_to_scipys(method):
    x = np.exp(noise(40, seed=1))
    y = x + 1 + 0.1 * noise(40, seed=2)
    ours = bootstrap(ratio, x, y, n_resamples=6000, method=method)
    theirs = scipy_stats.bootstrap(
        (x, y),
        ratio,
        paired=True,
        vectorized=False,
        n_resamples=6000,
        method=method,
        rng=np.random.default_rng(5),
    )
    interval = theirs.confidence_interval
    width = interval.high - interval.low
    assert ours.value == ratio(x, y)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=0.06 * width)


def test_bca_shifts_towards_the_long_tail_as_scipys_does():
    x = np.exp(1.2 * noise(30, seed=3))
    plain, bca = (bootstrap(np.mean, x, method=m, n_resamples=4000) for m in ("percentile", "bca"))
    theirs = scipy_stats.bootstrap((x,), np.mean, n_resamples=4000, rng=np.random.default_rng(1))
    assert bca.low > plain.low and bca.high > plain.high
    width = bca.high - bca.low
    assert bca.high == pytest.approx(theirs.confidence_interval.high, abs=0.08 * width)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@light
@given(value=st.floats(-1e6, 1e6), n=st.integers(1, 9))
def test_constant_data_has_its_value_and_no_width(method, value, n):
    x = np.full(n, value)
    assert bootstrap(np.mean, x, n_resamples=20, method=method) == Estimate(*[float(x.mean())] * 3)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_same_rows_are_drawn_in_every_array(method):
    x, label = noise(30, 2), np.arange(30)
    same = bootstrap(lambda x, y: abs(x - y).max(), x, x.copy(), n_resamples=50, method=method)
    assert same == Estimate(0.0, 0.0, 0.0)

    def misplaced(rows: np.ndarray, labels: np.ndarray) -> float:
        return float((rows != x[labels]).sum())

    assert bootstrap(misplaced, x, label, n_resamples=50, method=method).high == 0


def test_bca_is_the_percentile_interval_where_it_is_undefined():
    def both(statistic, x):
        return [bootstrap(statistic, x, method=m, n_resamples=99) for m in ("percentile", "bca")]

    # every resample has fewer distinct values than the data: the bias is infinite
    plain, bca = both(lambda x: len(np.unique(x)), noise(12))
    assert bca == plain and plain.high < plain.value
    # no single item moves the median: the acceleration is 0 / 0
    plain, bca = both(np.median, np.repeat([0.0, 1.0], [3, 8]))
    assert bca == plain and plain.low < plain.high
    # a statistic of at least two items is undefined without one of two
    plain, bca = both(lambda x: x.std() if len(x) > 1 else math.nan, noise(2))
    assert bca == plain and plain.low < plain.high


def test_bootstrap_repeats_by_seed_and_leaves_the_global_generator_alone():
    x = noise(20)
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    first = bootstrap(np.mean, x, n_resamples=50)
    bootstrap_bands(noise(20, 2), n_resamples=50)
    max_t(noise(20, 2), n_permutations=50)
    assert (np.random.get_state()[1] == before).all()
    assert first == bootstrap(np.mean, x, n_resamples=50) != bootstrap(np.mean, x, n_resamples=50, seed=1)


def test_bootstrap_is_equivariant_and_takes_any_numbers():
    x = noise(25)
    here, there = bootstrap(np.mean, x, n_resamples=200), bootstrap(np.mean, 5 - 2 * x, n_resamples=200)
    assert (there.value, there.high, there.low) == pytest.approx([5 - 2 * v for v in (here.value, here.low, here.high)])
    assert bootstrap(np.mean, x > 0, n_resamples=20).value == (x > 0).mean()
    assert bootstrap(lambda x: x.astype(float).mean(), np.arange(5), n_resamples=20).value == 2
    shares = bootstrap(lambda e: e.mean(0)[1] / e.mean(0).sum(), np.abs(noise(30, 4)), n_resamples=200)
    assert 0.1 < shares.low < shares.value < shares.high < 0.5


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_bootstrap_covers_at_about_its_level(method):
    hits = 0
    for seed in range(150):
        estimate = bootstrap(np.mean, noise(30, seed=seed), n_resamples=150, level=0.9, seed=seed, method=method)
        hits += estimate.low <= 0 <= estimate.high
    assert 0.82 < hits / 150 < 0.96


def test_bootstrap_refuses_what_it_cannot_do():
    bare, x = inspect.unwrap(bootstrap), noise(6)
    with pytest.raises(ValueError, match="array 1 has 2 values that are not finite"):
        bootstrap(ratio, x, np.array([1, np.nan, np.inf, 1, 1, 1]))
    with pytest.raises(ValueError, match="array 0 is empty"):
        bootstrap(np.mean, np.array([]))
    with pytest.raises(ValueError, match=r"\[\] items"):
        bootstrap(lambda: 1.0)
    with pytest.raises(ValueError, match=r"\[6, 5\] items"):
        bare(ratio, x, x[:5])
    with pytest.raises(ValueError, match="unknown bootstrap method 'basic'"):
        bare(np.mean, x, method="basic")
    with pytest.raises(ValueError, match="asked for 0 random draws"):
        bootstrap(np.mean, x, n_resamples=0)
    sparse = np.array([1.0, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match=r"is 1.0 on the data and not finite on \d+ of 40 resamples"):
        bootstrap(lambda v: 1.0 if v.any() else math.nan, sparse, n_resamples=40)


# bands


def test_bands_hold_the_whole_curve_at_about_their_level():
    curve, whole, pointwise = np.linspace(-1, 1, 8), 0, 0
    for seed in range(150):
        values = curve + noise(25, 8, seed=seed) + 0.5 * noise(25, 1, seed=seed + 1000)
        low, high = bootstrap_bands(values, n_resamples=200, level=0.9, seed=seed)
        whole += ((low <= curve) & (curve <= high)).all()
        pointwise += ((low <= curve) & (curve <= high)).mean()
    assert 0.84 < whole / 150 < 0.97
    assert pointwise / 150 > 0.95


def test_one_point_has_about_students_interval():
    values = noise(60, 1)
    low, high = bootstrap_bands(values, n_resamples=4000)
    t = scipy_stats.ttest_1samp(values[:, 0], 0).confidence_interval()
    assert (low[0], high[0]) == pytest.approx((t.low, t.high), abs=0.1 * (t.high - t.low))


def test_bands_of_few_items_are_as_wide_as_students():
    values = scipy_stats.norm.ppf((np.arange(12) + 0.5) / 12)[:, None]
    low, high = bootstrap_bands(values, n_resamples=4000)
    t = scipy_stats.ttest_1samp(values[:, 0], 0).confidence_interval()  # 2.20 standard errors, not 1.96
    assert high[0] - low[0] == pytest.approx(t.high - t.low, rel=0.06)


def test_bands_are_symmetric_about_the_mean_and_equivariant():
    values = noise(20, 5)
    low, high = bootstrap_bands(values, n_resamples=300)
    assert (low + high) / 2 == pytest.approx(values.mean(axis=0))
    moved_low, moved_high = bootstrap_bands(np.float64([3, 1, 2, 1, 9]) * values + 7, n_resamples=300)
    assert moved_high - moved_low == pytest.approx([3, 1, 2, 1, 9] * (high - low))
    turned_low, turned_high = bootstrap_bands(values[:, ::-1], n_resamples=300)
    assert turned_high[::-1] == pytest.approx(high) and turned_low[::-1] == pytest.approx(low)


def test_bands_of_constant_points_have_no_width_and_widen_no_other():
    values = noise(15, 3)
    low, high = bootstrap_bands(values, n_resamples=200)
    padded = np.column_stack([np.full(15, 0.1), values, np.zeros(15)])
    padded_low, padded_high = bootstrap_bands(padded, n_resamples=200)
    assert padded_low[[0, 4]].tolist() == padded_high[[0, 4]].tolist() == [0.1, 0.0]
    assert padded_low[1:4] == pytest.approx(low) and padded_high[1:4] == pytest.approx(high)
    flat_low, flat_high = bootstrap_bands(np.full((4, 2), 0.3), n_resamples=10)
    assert flat_low.tolist() == flat_high.tolist() == [0.3, 0.3]


@light
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(2, 5), st.integers(1, 4)), elements=st.sampled_from([0.0, 0.1, 1.0]))
)
def test_bands_of_rare_events_are_narrow_and_hold_the_mean(values):
    low, high = bootstrap_bands(values, n_resamples=50)
    assert (high - low < 100).all()
    assert (low <= values.mean(axis=0) + 1e-12).all() and (values.mean(axis=0) <= high + 1e-12).all()


@pytest.mark.parametrize("n", [7, 10, 23, 50])
def test_resamples_that_miss_a_rare_event_do_not_widen_the_bands(n):
    values = np.zeros((n, 3))
    values[0] = 0.1, 0.7, 1 / 3
    low, high = bootstrap_bands(values + 0.3, n_resamples=500)
    assert (high - low <= 12 * scipy_stats.sem(values)).all()


def test_bands_refuse_what_they_cannot_do():
    with pytest.raises(ValueError, match="there is 1; give at least 2"):
        bootstrap_bands(np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"values is empty, of shape \(0, 3\)"):
        bootstrap_bands(np.ones((0, 3)))
    with pytest.raises(ValueError, match="values has 1 values that are not finite"):
        bootstrap_bands(np.array([[1.0], [np.inf]]))


# max-T


def naive_max_t(differences: np.ndarray, n_permutations: int, seed: int) -> np.ndarray:
    """Student's |t| itself, one permutation at a time."""
    n = len(differences)
    signs = np.random.default_rng(seed).integers(2, size=(n_permutations, n), dtype=np.int8) * 2 - 1
    observed = np.abs(scipy_stats.ttest_1samp(differences, 0).statistic)
    reached = np.ones(differences.shape[1])
    for row in signs:
        reached += np.abs(scipy_stats.ttest_1samp(row[:, None] * differences, 0).statistic).max() >= observed * (
            1 - 1e-9
        )
    return reached / (1 + n_permutations)


def test_max_t_is_a_naive_loop_over_students_t():
    differences = noise(14, 23, seed=4) + np.linspace(0, 1, 23)
    assert max_t(differences, n_permutations=150, seed=6).tolist() == naive_max_t(differences, 150, 6).tolist()


def test_max_t_does_not_depend_on_the_pieces(monkeypatch):
    differences = noise(14, 23, seed=4) + np.linspace(0, 1, 23)
    differences[3:, ::2] = 0  # features that seldom fire: no flip makes them the largest
    differences[0, ::2] += 9
    whole, t = max_t(differences, n_permutations=150), studentised(differences)
    assert whole.tolist() == naive_max_t(differences, 150, 0).tolist()
    monkeypatch.setattr(families, "_column_chunks", lambda n, _: [slice(i, i + 5) for i in range(0, n, 5)])
    assert (max_t(differences, n_permutations=150) == whole).all()
    assert studentised(differences) == pytest.approx(t, rel=1e-12)


@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_max_t_keeps_the_family_wise_level_on_noise(tails):
    runs = 200
    discoveries = 0
    for seed in range(runs):
        shared = noise(24, 1, seed=seed + 10_000)
        differences = noise(24, 40, seed=seed) + shared  # correlated features
        if tails == "heavy":
            differences = differences**3
        discoveries += max_t(differences, n_permutations=199, seed=seed).min() <= 0.1
    assert scipy_stats.binom.cdf(discoveries, runs, 0.1) > 0.005  # not dead
    assert scipy_stats.binom.sf(discoveries - 1, runs, 0.1) > 0.005  # not too many


def test_max_t_finds_a_planted_column_and_it_alone():
    differences = noise(40, 500)
    differences[:, 123] -= 1.2
    p = max_t(differences, n_permutations=400)
    assert p.argmin() == 123 and p[123] == 1 / 401
    assert (np.delete(p, 123) > 0.05).all()
    assert np.abs(studentised(differences)).argmax() == 123


def test_max_t_of_columns_without_variance():
    differences = noise(12, 4)
    differences[:, 0] = 0
    differences[:, 1] = 0.1
    p = max_t(differences, n_permutations=500)
    assert p[0] == 1 and p[1] < 0.02
    assert max_t(np.zeros((3, 2))).tolist() == [1, 1]
    # one prompt says nothing: every flip ties with what was seen
    assert max_t(np.array([[0.1, -3.0, 0.0]])).tolist() == [1, 1, 1]
    # of three equal prompts a quarter of all flips do
    assert max_t(np.full((3, 1), 0.1), n_permutations=4000)[0] == pytest.approx(0.25, abs=0.03)


@light
@given(hnp.arrays(np.float64, (5, 3), elements=st.floats(-1e300, 1e300)), st.integers(0, 5))
def test_max_t_and_studentised_are_finite_and_blind_to_sign_and_scale(differences, seed):
    p, t = max_t(differences, n_permutations=30, seed=seed), studentised(differences)
    assert ((p >= 1 / 31) & (p <= 1)).all() and np.isfinite(t).all()
    assert (max_t(-2 * differences, n_permutations=30, seed=seed) == p).all()
    assert (studentised(-differences) == -t).all()
    assert (max_t(differences[:, ::-1], n_permutations=30, seed=seed)[::-1] == p).all()


def test_max_t_orders_features_as_studentised_does():
    differences = noise(20, 60)
    order = np.argsort(-np.abs(studentised(differences)))
    assert (np.diff(max_t(differences, n_permutations=300)[order]) >= 0).all()


def test_max_t_reads_a_half_precision_memory_map(tmp_path):
    differences = noise(10, 6).astype(np.float16)
    np.save(tmp_path / "block.npy", differences)
    mapped = np.load(tmp_path / "block.npy", mmap_mode="r")
    assert (max_t(mapped, n_permutations=50) == max_t(differences.astype(float), n_permutations=50)).all()
    assert (studentised(mapped) == studentised(differences.astype(float))).all()


def test_max_t_of_a_whole_layer_is_light():
    differences = noise(200, 20_000).astype(np.float32)
    start = time.process_time()
    p = max_t(differences, n_permutations=200)
    assert p.shape == (20_000,) and p.min() >= 1 / 201
    assert time.process_time() - start < 5


def test_families_without_features_are_empty():
    assert max_t(np.zeros((4, 0))).shape == studentised(np.zeros((4, 0))).shape == (0,)
    assert benjamini_hochberg(np.array([])).shape == benjamini_yekutieli(np.array([])).shape == (0,)


def test_max_t_and_studentised_refuse_what_they_cannot_do():
    for test in (max_t, studentised):
        with pytest.raises(ValueError, match="differences has 1 values that are not finite"):
            test(np.array([[0.0, 1.0], [np.nan, 1.0]]))
    with pytest.raises(ValueError, match=r"differences is empty, of shape \(0, 3\)"):
        max_t(np.zeros((0, 3)))
    with pytest.raises(ValueError, match="at least 2 prompts; there is 1"):
        studentised(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="asked for 0 random draws"):
        max_t(noise(4, 2), n_permutations=0)


def test_studentised_is_students_t():
    differences = noise(9, 30) * np.logspace(-200, 200, 30) + np.logspace(-200, 200, 30)
    small = slice(9, 21)  # scipy squares overflow elsewhere
    assert studentised(differences)[small] == pytest.approx(scipy_stats.ttest_1samp(differences[:, small], 0).statistic)
    scaled = differences / np.logspace(-200, 200, 30)
    assert studentised(differences) == pytest.approx(scipy_stats.ttest_1samp(scaled, 0).statistic)


def test_studentised_of_columns_without_variance():
    t = studentised(np.array([[0.0, 0.1, -7.0, 1.0], [0.0, 0.1, -7.0, -1.0], [0.0, 0.1, -7.0, 0.0]]))
    assert t == pytest.approx([0, 1e9 * math.sqrt(3), -1e9 * math.sqrt(3), 0])


# false discovery rate


@pytest.mark.parametrize(("ours", "theirs"), [(benjamini_hochberg, "bh"), (benjamini_yekutieli, "by")])
@light
@given(p=hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)), seed=st.integers(0, 9))
def test_false_discovery_rates_are_scipys(ours, theirs, p, seed):
    adjusted = ours(p)
    assert adjusted == pytest.approx(scipy_stats.false_discovery_control(p, method=theirs), rel=1e-9)
    assert ((adjusted >= p) & (adjusted <= 1)).all()
    order = np.random.default_rng(seed).permutation(len(p))
    assert (ours(p[order]) == adjusted[order]).all()


@pytest.mark.parametrize("adjust", [benjamini_hochberg, benjamini_yekutieli])
@pytest.mark.parametrize("wrong", [-0.1, 1.5, math.nan])
def test_false_discovery_rates_refuse_what_is_no_p_value(adjust, wrong):
    with pytest.raises(ValueError, match=f"{wrong} is no p-value"):
        adjust(np.array([0.5, wrong]))


# max-T of two groups


def naive_max_t_groups(values: np.ndarray, label: np.ndarray, n_permutations: int, seed: int) -> np.ndarray:
    """Student's pooled |t| itself, one shuffle at a time."""
    rng = np.random.default_rng(seed)

    def t(mask: np.ndarray) -> np.ndarray:
        return np.abs(scipy_stats.ttest_ind(values[mask], values[~mask]).statistic)

    reached, observed = np.ones(values.shape[1]), t(label)
    weights = np.where(label, 1 / label.sum(), -1 / (~label).sum())
    for _ in range(n_permutations):
        reached += t(rng.permutation(weights) > 0).max() >= observed * (1 - 1e-9)
    return reached / (1 + n_permutations)


@pytest.mark.parametrize("n_on", [3, 7, 12])
def test_max_t_groups_is_a_naive_loop_over_students_t(n_on):
    label = np.arange(14) < n_on
    values = noise(14, 23, seed=4) + np.linspace(0, 2, 23) * label[:, None]
    found = max_t_groups(values, label, n_permutations=150, seed=6)
    assert found.tolist() == naive_max_t_groups(values, label, 150, 6).tolist()


def test_max_t_groups_keeps_the_family_wise_level_on_noise():
    runs, label = 200, np.arange(30) < 10
    discoveries = sum(
        max_t_groups(noise(30, 40, seed=seed) ** 3 + noise(30, 1, seed=seed + 10_000), label, n_permutations=199).min()
        <= 0.1
        for seed in range(runs)
    )
    assert scipy_stats.binom.cdf(discoveries, runs, 0.1) > 0.005
    assert scipy_stats.binom.sf(discoveries - 1, runs, 0.1) > 0.005


def test_max_t_groups_of_columns_without_variance_and_of_bad_labels():
    values = noise(12, 3)
    values[:, 0] = 5.0
    assert max_t_groups(values, np.arange(12) < 5)[0] == 1
    for label in (np.ones(12, dtype=bool), np.zeros(12, dtype=bool), np.ones(11, dtype=bool)):
        with pytest.raises(ValueError, match="give a label each, some of both"):
            max_t_groups(values, label)


@pytest.mark.parametrize("paired", [False, True])
def test_an_area_of_one_has_an_interval_with_a_width(paired):
    on, off = np.array([2.0, 3.0, 4.0, 5.0]), np.array([-1.0, 0.0, 0.5, 1.0])
    found = auroc_interval((on, off), paired=paired)
    assert found.value == found.high == 1 and 0.4 < found.low < 0.8
    turned = auroc_interval((off, on), paired=paired)
    assert turned.value == turned.low == 0 and turned.high == pytest.approx(1 - found.low)
    more = auroc_interval((np.arange(100.0) + 200, np.arange(100.0)), paired=paired)
    assert found.low < 0.95 < more.low < 1
    lead = auroc_lead((on, off), (on + 1, off), paired=paired)
    assert lead.value == 0 and lead.low == -lead.high == pytest.approx(found.low - 1)
    none, whole = (np.zeros(4), np.zeros(4)), (on, off)
    ahead, behind = auroc_lead(whole, none, paired=paired), auroc_lead(none, whole, paired=paired)
    assert (ahead.value, ahead.low, ahead.high) == (-behind.value, -behind.high, -behind.low) and ahead.low < 0.5


def test_newcombes_limit_solves_its_own_equation():
    """Of an area observed as 1 in 30 against 50: the area whose distance from 1 is z standard errors of its own."""
    low = auroc_interval((np.arange(30.0) + 100, np.arange(50.0))).low
    error = low * (1 - low) * (1 + 39 * ((1 - low) / (2 - low) + low / (1 + low))) / (30 * 50)
    assert (1 - low) / np.sqrt(error) == pytest.approx(scipy_stats.norm.ppf(0.975), abs=1e-4)


def test_the_area_is_that_of_mann_and_whitney_and_sides_are_checked():
    rng = np.random.default_rng(0)
    on, off = rng.integers(5, size=30).astype(float), rng.integers(5, size=20).astype(float)
    expected = scipy_stats.mannwhitneyu(on, off).statistic / 600
    assert above(on, off) == auroc_interval((on, off)).value == pytest.approx(expected)
    with pytest.raises(ValueError, match="there are 30 values on and 20 off"):
        auroc_interval((on, off), paired=True)
    with pytest.raises(ValueError, match="there are 0 values on"):
        auroc_interval((on[:0], off))
