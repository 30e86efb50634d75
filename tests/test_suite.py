"""The suite of mechanisms on tiny models: what is chosen, compared, undone and told."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model, tiny_sae

import saereason as sr
from saereason.effects import right
from saereason.mechanisms import Following, Without, elicit, follow, weight_change
from saereason.mechanisms.fingerprints import States
from saereason.mechanisms.overlaps import raised, sureness
from saereason.progress import steps
from saereason.stats import linear_cka
from saereason.study.suite import QUICK, Ground, run_suite
from saereason.study.suite.chosen import Chosen
from saereason.study.suite.ground import KNOWN, PROBLEMS
from saereason.study.suite.page import page, summary, verdict
from saereason.study.suite.parts import COT, WINDOWS, _matched, _undone, change_chains, resid_change
from saereason.study.suite.suite import _ahead
from saereason.study.suite.tables import shorter_table

suite = sys.modules["saereason.study.suite.suite"]

SIZES = replace(
    QUICK, n=9, n_discovery=10, n_scored=2, most=12, paths=2, n_lessons=8, n_pairs=4, n_orders=20, n_draws=2
)


def grounds_in(folder):
    base, changed = tiny_model(n_ctx=2048), tiny_model(seed=5, n_ctx=2048)
    saes = {layer: tiny_sae("topk", layer) for layer in (1, 2)}
    run = sr.Run.open(folder)
    with steps() as bars:
        return [Ground("base", base, saes, run, bars, SIZES, changed=changed)]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    return folder, run_suite(grounds_in(folder))


def test_every_mechanism_is_there_or_said_to_be_left_out(compared):
    folder, found = compared
    told = json.loads((folder / "summary.json").read_text(encoding="utf8"))
    of_base = {name.removeprefix("base: ") for name in told["mechanisms"]}
    missing = {name.removeprefix("base: ") for name in told["left_out"]}
    expected = {
        "direct", "CoT prompt", "Chain of Draft", "forced prefix", "CoT-decoding", "budget forcing", "cognitive tools",
        "as many tokens of CoT", "backward check", "one feature, boosted", "one feature, added", "ReasonScore features",
        "random feature 1", "random direction 1", "DiffMean", "compression vector", "LiReF scaling",
        "trained vector L2", "trained vectors, all layers", "adapter", "adapter, CoT prompt",
    }  # fmt: skip
    assert of_base | missing == expected and not of_base & missing
    keys = {"accuracy", "low", "high", "tokens", "unparsed", "information_gain", "information_gain_masked", "knowledge"}
    assert all(set(row) == keys for row in told["mechanisms"].values())
    n = len(of_base) - 1
    assert len(told["overlap"]) == n * (n - 1) // 2
    row = found[0].comparison.of("CoT prompt", KNOWN)
    assert told["mechanisms"]["base: CoT prompt"]["knowledge"] == pytest.approx(right(row).mean())


def test_the_page_shows_all_of_it(compared):
    folder, found = compared
    html = (folder / "report.html").read_text(encoding="utf8")
    titles = [section.title for section in page(found).sections]
    assert len(titles) == len(set(titles)) and all(title.startswith("base: ") for title in titles)
    assert sum("what the adapter changed" in title for title in titles) == 1
    for words in ("the same switch?", "without what they share", "when and where", "one of k samples", "fast and slow"):
        assert sum(words in title for title in titles) == 1 and words in html


def test_a_suite_that_is_done_is_read(compared, monkeypatch):
    folder, found = compared
    for name in ("elicit", "Thoughts.gain"):
        monkeypatch.setattr(f"saereason.mechanisms.comparison.{name}", None)
    for name in ("follow", "right_of"):
        monkeypatch.setattr(f"saereason.study.suite.parts.{name}", None)
    monkeypatch.setattr("saereason.study.suite.chosen.train_vectors", None)
    assert summary(run_suite(grounds_in(folder))) == summary(found)


def assert_alike(mine, alone):
    """The base's rows in both: on fewer threads, and beside other rows in a batch, sums are rounded otherwise."""
    for part in ("mechanisms", "overlap"):
        rows = {name: row for name, row in mine[part].items() if name.startswith("base: ")}
        assert rows.keys() == alone[part].keys()
        for name, row in rows.items():
            assert row == pytest.approx(alone[part][name], rel=1e-3, abs=1e-3), name


@pytest.mark.slow
def test_models_side_by_side_answer_as_they_do_alone(compared, tmp_path, monkeypatch):
    def made(name):
        [base] = grounds_in(tmp_path)
        other = replace(base, name=name, model=tiny_model(seed=7, n_ctx=2048), changed=None)
        return base if name == "base" else other

    helped = []
    monkeypatch.setattr(suite, "_ahead", lambda ground: helped.append(ground.name) or _ahead(ground))
    names = ["base", "other"]
    both = summary(run_suite([made(name) for name in names], [made(name) for name in names]))
    assert len(helped) == 1, "whoever is done first helps the other"
    assert_alike(both, summary(compared[1]))


def test_what_was_done_from_the_end_is_not_done_again(compared, tmp_path, monkeypatch):
    [ground] = grounds_in(tmp_path)
    _ahead(ground)

    def only_without(model, saes, mechanism, task, **options):
        assert isinstance(mechanism, Without), f"{mechanism.name} was asked again"
        return elicit(model, saes, mechanism, task, **options)

    monkeypatch.setattr("saereason.mechanisms.comparison.elicit", only_without)
    for name in ("mechanisms.comparison.Thoughts.gain", "study.suite.parts.right_of"):
        monkeypatch.setattr(f"saereason.{name}", None)
    assert_alike(summary(run_suite(grounds_in(tmp_path))), summary(compared[1]))


def test_choices_rest_on_discovery_alone(compared):
    ground = compared[1][0].ground
    reported = {item.question for name, task in ground.tasks.items() if name != KNOWN for item in task.items}
    assert not reported & {item.question for item in ground.discovery.items}
    assert all(len(task) == SIZES.n for task in ground.tasks.values())


def test_edits_of_chance_are_as_large_as_the_feature(compared):
    chosen = Chosen(compared[1][0].ground)
    size = abs(chosen.added.coefficient)
    [direction], [feature] = chosen.random_vectors(), chosen.random_features()
    assert float(direction.vector.norm()) == pytest.approx(size, rel=1e-5)
    assert (feature.coefficient, feature.layer) == (chosen.added.coefficient, chosen.added.layer)
    assert feature.feature != chosen.added.feature and direction.layer == chosen.added.layer
    assert chosen.opening == chosen.ground.model.decode(list(chosen.written.tokens[0][:3])) or chosen.opening


def test_the_chosen_edit_makes_the_cot_answers_likelier_than_any_other_that_was_tried(compared):
    chosen = Chosen(compared[1][0].ground)
    best = chosen._score((chosen.added,))
    for feature in chosen._candidates():
        for multiple in (1.0, 2.0):
            size = multiple * float(chosen.directions[feature.layer].norm())
            assert chosen._score((sr.Add(feature, size, sr.LastPromptToken()),)) <= best + 1e-6


def test_matched_sets_share_no_feature_with_what_is_taken_out(compared):
    chosen = Chosen(compared[1][0].ground)
    features = (sr.Feature(1, 3), sr.Feature(2, 5))
    sets = _matched(chosen, features)
    assert len(sets) == SIZES.n_draws
    for one in sets:
        assert [f.layer for f in one] == [1, 2] and not set(one) & set(features)


def test_undoing_compares_the_shared_features_with_matched_ones_item_by_item(compared):
    each = compared[1][0]
    chosen, features = each.chosen, (sr.Feature(1, 3),)
    found = _undone(chosen, each.comparison, COT, features)
    task, ground = each.ground.tasks[PROBLEMS], each.ground
    tables = [ground.answers(Without(COT, one), task)[0] for one in (features, *_matched(chosen, features))]
    assert found.without.value == right(tables[0]).mean()
    assert found.matched == pytest.approx(np.mean([right(table).mean() for table in tables[1:]]))
    assert found.beyond.value == pytest.approx(found.matched - found.without.value)


def test_an_adapter_that_changed_nothing_moves_nothing(compared):
    each = compared[1][0]
    same = replace(each.ground, changed=each.ground.model)
    np.testing.assert_allclose(resid_change(same, each.comparison), 0)
    np.testing.assert_allclose(weight_change(each.ground.model, each.ground.model), 0)
    assert (each.parts.weights > 0).all() and (each.parts.moved > 0).all()


def test_the_cot_prompt_is_on_its_own_way(compared):
    each = compared[1][0]
    at = each.parts.steps[COT.name]
    assert at.shape == (len(WINDOWS), 2) and np.nanmax(at) <= 1 + 1e-6
    assert np.isfinite(at[0]).all() and np.isnan(at[-1]).all(), "no answer has 32 tokens"


def test_changed_chains_are_counted_for_who_wrote_them(compared):
    for each in compared[1]:
        assert COT.name in each.parts.followed and set(each.parts.followed[COT.name]) == set(Following)
    assert "adapter, CoT prompt" in compared[1][0].parts.followed


def test_a_changed_result_is_followed_or_not_by_who_wrote_the_chain(compared, monkeypatch):
    from saereason.mechanisms.forms import Changed

    each = compared[1][0]
    chain = Changed(1, "Step 1: 2 + 3 = 6", "9", "10")
    monkeypatch.setattr("saereason.study.suite.parts.changed_chains", lambda task, found, *, seed: [chain])
    counts = change_chains(each.ground, each.comparison)
    assert set(counts) == {COT.name, "adapter", "adapter, CoT prompt"}
    for name, model in ((COT.name, each.ground.model), ("adapter", each.ground.changed)):
        task = each.ground.tasks[PROBLEMS]
        [outcome] = follow(model, task, [chain], max_new_tokens=each.ground.sizes.most)
        assert counts[name][outcome] == 1 and sum(counts[name].values()) == 1


def test_the_verdict_counts_what_helps_overlaps_and_is_undone(compared):
    assert verdict(compared[1]).count("there is no switch to compare") == 1


def test_what_shortens_is_set_against_the_cot_prompt(compared):
    """Two of four answers are shorter by 4 tokens, one right answer is lost, and one pair is finished in both."""
    draft = "Chain of Draft"
    outcomes = {COT.name: ["right", "right", "wrong", "looping"], draft: ["right", "wrong", "wrong", "truncated"]}
    tokens = {COT.name: [9, 9, 12, 12], draft: [5, 5, 12, 12]}
    finished = {COT.name: (True, True, False, False), draft: (True, False, True, False)}
    answers = [
        {"mechanism": name, "task": PROBLEMS, "outcome": outcome, "n_tokens": n}
        for name in outcomes
        for outcome, n in zip(outcomes[name], tokens[name], strict=True)
    ]
    [each] = compared[1]
    whole = each.comparison.written
    written = {name: replace(whole[name].part(slice(4)), finished=ended) for name, ended in finished.items()}
    found = replace(each.comparison, answers=pd.DataFrame(answers), written=written)
    [(name, fewer, change, both)] = shorter_table(replace(each, comparison=found)).rows
    assert (name, fewer.value, change.value, both) == (draft, 2.0, -0.25, "1 of 4")


def test_the_verdict_says_where_most_answers_were_cut_off(compared, monkeypatch):
    [each] = compared[1]
    table = each.comparison.summary()
    names, at = list(dict.fromkeys(table["mechanism"])), table["task"] == PROBLEMS
    for shares, told in (([0.5] * len(names), None), ([0.51, *[0.5] * (len(names) - 1)], 1)):
        table.loc[at, "truncated"] = shares
        monkeypatch.setattr(type(each.comparison), "summary", lambda _, table=table: table)
        said = verdict([each])
        assert ("cut off" in said) == (told is not None)
        assert told is None or (f"under {told} of {len(names)} mechanisms" in said and "at 12 tokens" in said)


def test_a_mechanism_without_what_it_needs_is_left_out_with_the_reason(compared, monkeypatch):
    from saereason.study.suite import arms

    ground = compared[1][0].ground
    chosen = Chosen(ground)
    monkeypatch.setattr(Chosen, "compressed", lambda self: (_ for _ in ()).throw(ValueError("no draft is shorter")))
    found = arms.arms_of(chosen, lambda done, total: None)
    assert found.left_out["compression vector"] == "no draft is shorter"
    assert "compression vector" not in [each.name for each in (*found.every, *found.fewer)]


def test_controls_and_costly_mechanisms_are_asked_problems_and_capitals_alone(compared):
    answers = compared[1][0].comparison.answers
    asked = answers.groupby("mechanism")["task"].nunique()
    assert asked["CoT prompt"] == asked["DiffMean"] == asked["adapter"] == 5
    for name in ("random direction 1", "trained vector L2", "cognitive tools", "as many tokens of CoT"):
        assert asked[name] == 2


# what two changes share


def states_of(values):
    return States({1: values.astype(np.float32)}, {1: values.astype(np.float32)})


def test_features_that_both_raise_are_shared_and_others_are_its_own():
    rng = np.random.default_rng(0)
    noise = lambda: rng.normal(size=(20, 6)) * 0.1  # noqa: E731
    direct = states_of(np.zeros((20, 6)))
    one, other = noise() + np.array([2, 1, 3, 0, -1, 0]), noise() + np.array([1, 1, 0, 2, -1, 0])
    shared, own = raised(direct, states_of(one), states_of(other), 3)
    assert {feature.index for feature in shared} == {0, 1} and [feature.index for feature in own][:1] == [2]
    assert 3 not in {feature.index for feature in own}, "the other's own"


def test_sureness_is_students_t():
    from scipy import stats

    change = np.random.default_rng(1).normal(size=(15, 4)) + np.array([0, 1, -1, 3])
    np.testing.assert_allclose(sureness(change), stats.ttest_1samp(change, 0).statistic)
    held = sureness(np.tile(np.array([0.0, 2.0, -0.1], dtype=np.float32), (4, 1)))
    np.testing.assert_allclose(held, [0.0, 2e9, -2e9], rtol=1e-6)


def test_alignment_of_changes_is_linear_cka_with_items_shuffled_for_chance():
    rng = np.random.default_rng(2)
    direct, a = np.zeros((30, 8)), rng.normal(size=(30, 8))
    turned = a @ np.linalg.qr(rng.normal(size=(8, 8)))[0]
    other = rng.normal(size=(30, 8))
    same = sr.overlap(states_of(direct), states_of(a), states_of(turned), n_orders=50)
    apart = sr.overlap(states_of(direct), states_of(a), states_of(other), n_orders=50)
    assert same.cka == pytest.approx(1, abs=1e-4) and same.cka > same.cka_by_chance
    assert apart.cka == pytest.approx(linear_cka(a, other), abs=1e-4) and apart.cka < 0.6


def test_vectors_and_generation_do_not_leave_the_model_changed(compared):
    each = compared[1][0]
    fresh = tiny_model(n_ctx=2048)
    for ours, plain in zip(each.ground.model.hf.parameters(), fresh.hf.parameters(), strict=True):
        assert torch.equal(ours, plain)
    assert SimpleNamespace(**summary(compared[1])).verdict == verdict(compared[1])
