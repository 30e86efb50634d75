"""Layer curves, and what two of them allow one to say."""

import copy
import dataclasses
import importlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from saereason import (
    Curve,
    Family,
    Finding,
    Item,
    LogProb,
    MeanOfBlock,
    Run,
    SkipBlock,
    SkipByGradient,
    SkipPart,
    SpliceSAE,
    Task,
    compare_depth,
    compare_kinds,
    family_of,
    localise,
    plain_family,
    published_tasks,
)
from saereason.layers import share_difference, shares
from saereason.layers.families import SOURCES
from saereason.layers.finding import ENOUGH
from saereason.layers.kinds import KindFinding, exact_p, joint_p
from saereason.tasks import confirmation_task

PROMPTS = ["Tom has 3 apples.", "2 + 2 =", "How many birds are left?", "Hi"]
LAYERS = tuple(range(12))


@pytest.fixture(scope="module")
def families(model):
    texts = [["seven", " 4", "10", "x"], ["Rome", "Oslo", "Lima", "Bern"]]
    metrics = [LogProb.of(model, PROMPTS, words, batch_size=3) for words in texts]
    return [Family("sums", "reasoning", metrics[0]), Family("towns", "knowledge", metrics[1])]


@pytest.fixture
def calls(monkeypatch):
    """Every pass of the battery; set `stop` to break off at one."""
    module = importlib.import_module("saereason.layers.operators")
    found = Calls(module.log_probs)
    monkeypatch.setattr(module, "log_probs", found)
    return found


class Calls(list):
    def __init__(self, whole):
        self.whole, self.stop = whole, None

    def __call__(self, lm, items):
        self.append(len(items))
        if len(self) == self.stop:
            raise KeyboardInterrupt
        return self.whole(lm, items)


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
    metric = LogProb.of(any_model, PROMPTS, ["a", "bc", "d", "e"], batch_size=3)
    (found,) = localise(any_model, None, [Family("letters", "neutral", metric)], run=Run.open(tmp_path))
    clean = metric(any_model).numpy()
    assert (found.family, found.kind, found.operator) == ("letters", "neutral", "skip block")
    assert found.layers == (0, 1, 2, 3) and found.drop.shape == (4, 4)
    np.testing.assert_allclose(found.clean, clean, atol=1e-6)
    for layer in range(4):
        np.testing.assert_allclose(found.drop[:, layer], clean - skipped(any_model, metric, layer), atol=1e-4)
    np.testing.assert_allclose(found.depth, [0, 1 / 3, 2 / 3, 1])


def by_hand(model, saes, operator, layer, means):
    """Hooks of our own that do what an operator says."""
    block = model.blocks[layer]

    def first(output):
        return output[0] if isinstance(output, tuple) else output

    def instead(output, value):
        return (value, *output[1:]) if isinstance(output, tuple) else value

    def whole(module, args, output):  # noqa: ARG001
        before, after = args[0], first(output)
        match operator.name:
            case "block × 0.5":
                return instead(output, before + 0.5 * (after - before))
            case "mean of block":
                return instead(output, before + means[layer])
            case "SAE splice":
                return instead(output, saes[layer].decode(saes[layer].encode(after)))

    def nothing(module, args, output):  # noqa: ARG001
        return instead(output, 0 * first(output))

    part = {"skip attention": "self_attn", "skip MLP": "mlp"}.get(operator.name)
    if part is None:
        return block.register_forward_hook(whole)
    return getattr(block, part).register_forward_hook(nothing)


def test_every_operator_is_what_hooks_by_hand_give(tmp_path, any_model, topk_saes):
    metric = LogProb.of(any_model, PROMPTS, ["a", "bc", "d", "e"], batch_size=3)
    mean = MeanOfBlock.of(any_model, PROMPTS)
    operators = [SkipBlock(0.5), mean, SkipPart("attention"), SkipPart("MLP"), SpliceSAE()]
    family = Family("letters", "neutral", metric)
    curves = localise(any_model, topk_saes, [family], operators, run=Run.open(tmp_path))
    clean = metric(any_model).numpy()
    assert [curve.operator for curve in curves] == [operator.name for operator in operators]
    for curve, operator in zip(curves, operators, strict=True):
        assert curve.layers == tuple(operator.layers(any_model, topk_saes))
        for n, layer in enumerate(curve.layers):
            handle = by_hand(any_model, topk_saes, operator, layer, mean.means)
            expected = clean - metric(any_model).numpy()
            handle.remove()
            np.testing.assert_allclose(curve.drop[:, n], expected, atol=2e-4, err_msg=f"{operator.name} {layer}")
            assert np.abs(expected).max() > 1e-3


def test_the_gradient_is_what_a_little_less_of_each_block_costs(tmp_path, any_model):
    metric = LogProb.of(any_model, PROMPTS * 3, ["a", "bc", "d", "e"] * 3)
    family = Family("letters", "neutral", metric)
    little = 1e-3
    less, linear = localise(
        any_model, None, [family], [SkipBlock(1 - little), SkipByGradient()], run=Run.open(tmp_path)
    )
    np.testing.assert_allclose(linear.drop, less.drop / little, rtol=0.05, atol=0.02)
    np.testing.assert_allclose(linear.clean, less.clean, atol=1e-5)
    assert linear.drop.shape == (12, 4) and np.abs(linear.drop).max() > 0.1


def test_what_the_run_holds_is_not_computed_again(tmp_path, model, families, calls):
    seen, run = [], Run.open(tmp_path)
    localise(model, None, families[:1], run=run)
    assert calls == [3] * 5 + [1] * 5  # two batches, clean and four layers each
    first = localise(model, None, families, run=run, progress=lambda *p: seen.append(p))
    assert len(calls) == 20 and seen == [(12, 32), (16, 32), (28, 32), (32, 32)]
    again = localise(model, None, families, run=Run.open(tmp_path))
    assert len(calls) == 20 and len(list((tmp_path / "results").iterdir())) == 4
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.drop, b.drop) and np.array_equal(a.clean, b.clean)
    part = localise(model, None, families[:1], run=run, layers=[1, 2])
    assert len(calls) == 26 and np.array_equal(part[0].drop, first[0].drop[:, 1:3])
    changed = LogProb.of(model, PROMPTS, ["seven", " 4", "10", "y"], batch_size=3)
    localise(model, None, [dataclasses.replace(families[0], metric=changed)], run=run)
    assert len(calls) == 31  # the batch without the change is there


def test_an_interrupted_battery_goes_on_where_it_stopped(tmp_path, model, families, calls):
    calls.stop = 8
    with pytest.raises(KeyboardInterrupt):
        localise(model, None, families[:1], run=Run.open(tmp_path))
    (found,) = localise(model, None, families[:1], run=Run.open(tmp_path))
    assert calls == [3] * 5 + [1] * 3 + [1] * 5
    (whole,) = localise(model, None, families[:1], run=Run.open(tmp_path / "other"))
    assert np.array_equal(found.drop, whole.drop)


@pytest.mark.parametrize(
    ("layers", "says"), [([], "at least one"), ([1, 1], "each once"), ([4], "no layer 4"), ([-1], "no layer -1")]
)
def test_layers_that_make_no_curve_are_refused(tmp_path, model, families, layers, says):
    with pytest.raises(ValueError, match=says):
        localise(model, None, families, run=Run.open(tmp_path), layers=layers)


def test_what_makes_no_battery_is_refused(tmp_path, model, families, topk_saes):
    run = Run.open(tmp_path)
    with pytest.raises(ValueError, match=r"the families are .'sums', 'sums'.; give at least one, each once"):
        localise(model, None, families[:1] * 2, run=run)
    with pytest.raises(ValueError, match=r"the operators are .'skip block', 'skip block'."):
        localise(model, None, families, [SkipBlock(), SkipBlock(0.0)], run=run)
    with pytest.raises(ValueError, match=r"SAE splice can act at \[1, 2\]"):
        localise(model, {n: topk_saes[n] for n in (1, 2)}, families, [SpliceSAE()], run=run, layers=[3])
    with pytest.raises(ValueError, match="part is 'head'"):
        SkipPart("head")


# families


def test_a_task_with_working_is_scored_at_its_computed_results(model):
    task = confirmation_task(n=4)
    family = family_of(model, task, name="sums")
    assert (family.name, family.kind, len(family.metric)) == ("sums", "reasoning", 4)
    for item, scored in zip(task.items, family.metric.items, strict=True):
        told = "".join(model.decode([t]) for t, s in zip(scored.continuation, scored.scored, strict=True) if s)
        results = "".join(item.solution[a:b] for a, b in item.spans)
        assert told == "".join(c for c in results if c.isdigit())


def test_a_task_without_working_is_scored_at_its_answer(model):
    items = tuple(Item(f"{n}", f"Is {n} even?", "yes" if n % 2 == 0 else "no") for n in range(3))
    family = family_of(model, Task("parity", "reasoning", items))
    assert [model.decode(list(one.continuation)) for one in family.metric.items] == ["yes", "no", "yes"]
    cloze = family_of(model, Task("parity", "reasoning", items, direct="", chat=False))
    assert model.decode(list(cloze.metric.items[0].continuation)) == " yes"
    with pytest.raises(ValueError, match="item x of none has no answer to score"):
        family_of(model, Task("none", "reasoning", (Item("x", "What?", ""),)))


def test_plain_text_is_scored_after_its_opening(model):
    family = plain_family(model, ["short", "x" * 20, "y" * 200])
    assert [len(item.prompt) for item in family.metric.items] == [8, 8]
    assert [len(item.continuation) for item in family.metric.items] == [12, 56] and family.kind == "neutral"


def test_published_families_are_of_both_kinds(model):
    data = Path(__file__).parents[2] / "shared" / "data"
    if not data.is_dir():
        pytest.skip(f"no benchmark data at {data}")
    found = [family_of(model, task) for task in published_tasks(model, data, 6)]
    kinds, names = [family.kind for family in found], [source.name for source in SOURCES]
    assert [family.name for family in found] == [name for name in names if name in {family.name for family in found}]
    assert kinds.count("reasoning") >= 4 and kinds.count("knowledge") >= 4  # some do not fit a context of 512 letters


# kinds


def family_curves(centres, kind, seed=0):
    return [
        dataclasses.replace(curve(bump(centre), seed=seed + n, name=f"{kind} {n}"), kind=kind)
        for n, centre in enumerate(centres)
    ]


def test_kinds_that_differ_beyond_their_families_are_told_apart():
    deep, shallow = family_curves([7, 8, 7.5, 8.5], "reasoning"), family_curves([3, 4, 3.5, 2.5], "knowledge", 9)
    found = compare_kinds([*deep, *shallow])
    assert found.p == pytest.approx(2 / 70) and found.low < found.difference < found.high
    assert found.statement.startswith("Reasoning depends on deeper layers than knowledge under skip block")
    turned = compare_kinds(
        [*family_curves([3, 4, 3.5, 2.5], "reasoning"), *family_curves([7, 8, 7.5, 8.5], "knowledge")]
    )
    assert "shallower" in turned.statement and turned.difference < 0
    assert set(found.centroids) == {c.family for c in (*deep, *shallow)}
    for value, low, high in found.centroids.values():
        assert low < value < high


def test_families_that_spread_as_much_as_the_kinds_show_nothing():
    found = compare_kinds([*family_curves([2, 8, 5, 9], "reasoning"), *family_curves([3, 9, 2, 7], "knowledge", 9)])
    assert found.p > 0.05 and "not shown to differ in depth" in found.statement


def test_too_few_families_say_nothing_of_kinds():
    weak = [
        dataclasses.replace(c, drop=c.drop * 0 + np.random.default_rng(n).normal(size=c.drop.shape))
        for n, c in enumerate(family_curves([3], "knowledge"))
    ]
    strong = family_curves([3, 4, 2], "knowledge", 5)
    named = [dataclasses.replace(c, family=f"strong {n}") for n, c in enumerate(strong)]
    found = compare_kinds([*family_curves([7, 8, 7, 8], "reasoning"), *named, *weak])
    assert "Inconclusive about kinds" in found.statement and list(found.families_left_out) == ["knowledge 0"]
    nothing = compare_kinds(weak)
    assert np.isnan(nothing.p) and "0 reasoning and 0 knowledge" in nothing.statement


@pytest.mark.parametrize("n_first", [2, 3])
def test_the_exact_p_is_that_of_scipy(n_first):
    from scipy.stats import permutation_test

    values = np.random.default_rng(n_first).normal(size=7)

    def statistic(a, b):
        return abs(a.mean() - b.mean())

    expected = permutation_test(
        (values[:n_first], values[n_first:]), statistic, alternative="greater", n_resamples=10_000
    ).pvalue
    assert exact_p(values, n_first) == pytest.approx(expected)


def test_a_family_whose_effects_are_not_finite_is_left_out_with_that_reason():
    broken = family_curves([3], "knowledge")[0]
    broken.drop[2, 3] = np.nan
    found = compare_kinds([*family_curves([7, 8], "reasoning"), broken])
    assert "1 of 60 items of knowledge 0 have effects that are not finite" in found.families_left_out["knowledge 0"]


def test_one_of_many_operators_does_not_pass_by_chance():
    """Of six operators that see nothing, one has a p under 0.05 far more often than one time in twenty."""
    alone, together = [], []
    for seed in range(150):
        rng, findings = np.random.default_rng(seed), []
        for operator in range(6):
            n_of = 5 if operator < 2 else 4
            names = [f"{kind} {n}" for kind in ("reasoning", "knowledge") for n in range(n_of)]
            values = dict(zip(names, rng.normal(size=2 * n_of).tolist(), strict=True))
            kinds = {name: name.split()[0] for name in names}
            p = exact_p(np.array(list(values.values())), n_of)
            centroids = {name: (value, value, value) for name, value in values.items()}
            findings.append(KindFinding("", str(operator), centroids, kinds, 0.0, 0.0, 0.0, p, (), {}))
        joint = joint_p(findings)
        assert all(joint[found.operator] >= found.p - 1e-12 for found in findings)
        alone.append(min(found.p for found in findings) <= 0.05)
        together.append(min(joint.values()) <= 0.05)
    assert np.mean(alone) > 0.12 and np.mean(together) <= 0.08


def test_one_operator_alone_keeps_its_p_and_families_may_be_missing():
    made = [*family_curves([7, 8, 7, 8], "reasoning"), *family_curves([3, 2, 3, 2, 3], "knowledge", 9)]
    one = compare_kinds(made)
    assert joint_p([one]) == {one.operator: pytest.approx(one.p)}
    fewer = compare_kinds([dataclasses.replace(each, operator="SAE splice") for each in made[:-1]])
    both = joint_p([one, fewer])
    assert set(both) == {one.operator, "SAE splice"} and one.p <= both[one.operator] <= 0.05
    nothing = dataclasses.replace(fewer, p=float("nan"))
    assert joint_p([nothing]) == {} and joint_p([one, nothing]) == joint_p([one])


def test_curves_that_do_not_go_together_make_no_kinds():
    with pytest.raises(ValueError, match=r"there are curves of the families \[\]"):
        compare_kinds([])
    first, second = family_curves([3, 4], "reasoning")
    other = dataclasses.replace(second, operator="SAE splice")
    for curves in ([first, first], [first, other]):
        with pytest.raises(ValueError, match="give each family once, under one operator"):
            compare_kinds(curves)
    fewer = curve(bump(3)[:6], layers=LAYERS[:6], name="fewer")
    with pytest.raises(ValueError, match="give a neutral curve over the same layers"):
        compare_kinds([first, second], neutral=fewer)
    with pytest.raises(ValueError, match="compare curves over the same ones"):
        compare_kinds([first, fewer])


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
        assert not found.differ or "These two families differ" in found.statement
        differ += not found.low <= 0 <= found.high
    assert differ <= 8  # of 60, 3 expected


TAILS = {"more": 0.05, "less": 0.0}


def test_a_difference_under_half_a_layer_is_not_called_one():
    """The interval lies within half a layer, and excludes zero; or it reaches beyond, and shows nothing."""
    first, second = (curve(bump(4) + tail * bump(9), n=400, noise=0.02, name=name) for name, tail in TAILS.items())
    alike = compare_depth(first, second)
    assert 0 < alike.low < alike.high < alike.least == pytest.approx(0.5 / 11)
    assert alike.alike and not alike.differ and "alike in depth to within half a layer" in alike.statement
    noisy = compare_depth(*(curve(bump(4), n=40, noise=1.0, seed=n, name=str(n)) for n in range(2)))
    assert noisy.low < -noisy.least and noisy.high > noisy.least and not (noisy.differ or noisy.alike)
    assert noisy.statement.startswith("These two families are not shown to differ by half a layer in depth: 0 and 1 (")
    beyond = dataclasses.replace(alike, low=alike.least * 1.01, high=0.3)
    assert beyond.differ and not dataclasses.replace(beyond, low=alike.least).differ


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


def test_a_family_that_gains_by_the_changes_has_no_loss_to_share_out():
    """A model that cannot do a task is often better at its answers with layers changed: that is no dependence."""
    gains = curve(-bump(5), name="gains")
    found = compare_depth(gains, curve(bump(5), name="some"))
    assert is_inconclusive(found) and "gains gains by the changes in all" in found.statement
    kinds = compare_kinds([gains, curve(bump(5), name="some")])
    assert list(kinds.families_left_out) == ["gains"] and "no loss" in kinds.families_left_out["gains"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_effects_that_are_not_finite_are_inconclusive_and_named(bad):
    broken, whole = curve(bump(4), name="broken"), curve(bump(6), name="whole")
    broken.drop[3, 5] = broken.drop[7, 2] = broken.drop[7, 3] = bad
    found = compare_depth(broken, whole)
    assert is_inconclusive(found) and "2 of 60 items of broken have effects that are not finite" in found.statement
    assert np.isnan(share_difference(broken, whole)).all()
    assert is_inconclusive(compare_depth(whole, broken))


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_fewer_than_eight_items_are_inconclusive(n):
    few, many = curve(bump(4), n=n, name="few"), curve(bump(6))
    for pair in ((few, many), (many, few)):
        found = compare_depth(*pair)
        assert is_inconclusive(found) == (n < 8)
        assert (f"few has {n} of the 8 items that an interval needs" in found.statement) == (n < 8)


def test_layers_that_plain_text_cannot_do_without_are_left_out():
    plain = curve([4.0, *[0.1] * 10, 2.0], noise=0.01)
    first, second = curve(bump(3) + 9 * bump(0, 0.1), name="a"), curve(bump(8) + 9 * bump(0, 0.1), seed=1, name="b")
    without = compare_depth(first, second, neutral=plain)
    assert without.layers_left_out == (0, 11) and compare_depth(first, second).layers_left_out == ()
    assert without.centroid_difference == pytest.approx(-5 / 11, abs=0.1)
    one_broken, broken = plain.drop.copy(), plain.drop * np.nan
    one_broken[0] = np.nan
    assert compare_depth(first, second, neutral=dataclasses.replace(plain, drop=one_broken)).layers_left_out == (0, 11)
    with pytest.raises(ValueError, match="has no item whose effects are all finite"):
        compare_depth(first, second, neutral=dataclasses.replace(plain, drop=broken))
    with pytest.raises(ValueError, match="give a neutral curve over the same layers"):
        compare_depth(first, second, neutral=dataclasses.replace(plain, n_layers=24))
    nothing_left = compare_depth(first, second, neutral=curve(np.full(12, 5.0), noise=0))
    assert is_inconclusive(nothing_left) and nothing_left.layers_left_out == LAYERS


def test_curves_over_different_layers_are_not_compared():
    first, fewer = curve(bump(3)), curve(bump(3)[:6], layers=LAYERS[:6], name="fewer")
    for compare in (compare_depth, share_difference):
        with pytest.raises(ValueError, match="compare curves over the same layers"):
            compare(first, fewer)
    with pytest.raises(ValueError, match="give a neutral curve over the same layers"):
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


# planted truth, exact


def silenced(model, working):
    """A copy in which all blocks but some write exactly nothing."""
    hf = copy.deepcopy(model.hf)
    quiet = dataclasses.replace(model, hf=hf, name="silenced")
    for n, block in enumerate(quiet.blocks):
        if n not in working:
            block.self_attn.o_proj.weight.data.zero_()
            block.mlp.down_proj.weight.data.zero_()
    return quiet


@given(st.sets(st.integers(0, 5), min_size=2, max_size=2), st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_skipping_blocks_that_write_nothing_changes_no_bit(working, seed):
    model = silenced(tiny_model(n_layers=6, seed=seed), working)
    prompts = [f"{n} birds and {n + 2} more are" for n in range(12)]
    metric = LogProb.of(model, prompts, [f" {2 * n + 2}" for n in range(12)])
    with tempfile.TemporaryDirectory() as folder:
        [found] = localise(model, None, [Family("sums", "reasoning", metric)], run=Run.open(Path(folder)))
    silent = [n for n in range(6) if n not in working]
    assert not found.drop[:, silent].any() and found.drop[:, sorted(working)].all()
    if found.drop.sum():
        np.testing.assert_array_equal(shares(found).value[silent], 0)


def test_skipping_a_block_equals_deleting_the_layer(model, tmp_path):
    metric = LogProb.of(model, PROMPTS, ["a", "bc", "d", "e"])
    [found] = localise(model, None, [Family("letters", "neutral", metric)], run=Run.open(tmp_path))
    for layer in range(model.n_layers):
        hf = copy.deepcopy(model.hf)
        del hf.model.layers[layer]
        hf.config.num_hidden_layers -= 1
        for n, block in enumerate(hf.model.layers):
            block.self_attn.layer_idx = n
        shorter = dataclasses.replace(model, hf=hf, name="shorter")
        np.testing.assert_allclose(found.clean - found.drop[:, layer], metric(shorter).numpy(), atol=1e-5)
