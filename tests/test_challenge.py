"""The ladder of claims: each rung's rule, verdicts, and that nothing is done twice."""

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import counting_behaviour, tiny_model, tiny_sae

import saereason as sr
from saereason.controls import Rivals, Rung, Sample, Templates, Verdict, challenge
from saereason.controls.ladder import LADDER, NAMES, verdict_rows
from saereason.controls.ladder.bench import Bench, Candidate
from saereason.controls.ladder.chance import beats_chance
from saereason.controls.ladder.correlates import separation
from saereason.effects import Opens, Shows, Trial, answers
from saereason.search import Block
from saereason.search.block import filled
from saereason.stats import Estimate, above
from saereason.tasks import Outcome


def rung(number, passed, **options):
    return Rung(number, passed, "so it was", **options)


def verdict(*passed):
    rungs = tuple(rung(n, p) for n, p in enumerate(passed, 1))
    return Verdict(sr.Feature(1, 2), "counting", rungs, 3.0, 1000, 5, 3)


@pytest.fixture(scope="module")
def counting():
    model = tiny_model()
    return model, counting_behaviour(model)


@pytest.fixture(scope="module")
def climbed(counting, tmp_path_factory):
    model, behaviour = counting
    saes = {2: tiny_sae("topk", 2)}
    run = sr.Run.open(tmp_path_factory.mktemp("challenge"))
    table = sr.search(model, saes, behaviour.discovery.examples)
    features = list(table.where(table["difference"] > 0).top(2, "studentised"))
    rivals = Rivals(
        others=(saes, {2: tiny_sae("topk", 2, seed=3)}),
        frozen={2: tiny_sae("topk", 2, seed=4)},
        untrained=(tiny_model(seed=5), {2: tiny_sae("topk", 2, seed=6)}),
    )
    return (
        model,
        saes,
        features,
        behaviour,
        rivals,
        run,
        challenge(model, saes, features, behaviour, rivals=rivals, run=run),
    )


def test_every_rung_is_climbed_and_says_what_against(climbed):
    *_, features, _, _, _, verdicts = climbed
    assert [v.feature for v in verdicts] == features
    for each in verdicts:
        assert [r.number for r in each.rungs] == list(NAMES)
        assert all(r.passed is not None for r in each.rungs), "everything was there to try"
        assert all(r.n and r.against for r in each.rungs)
        assert (each.n_features, each.n_candidates, each.n_sizes) == (96, 2, 3)
        assert str(each).count(". ") == 0 or str(each).endswith("each.")


def test_a_feature_recurs_in_its_own_sae_and_not_in_one_of_random_weights(climbed):
    *_, verdicts = climbed
    last = verdicts[0].rungs[-1]
    assert last.figure.low <= last.figure.value <= last.figure.high and last.unit == "AUROC" and last.n == 16
    assert "cosine 1.00" in last.said and not last.passed and last.details["least_cosine"] < 0.7


def test_the_run_holds_splits_and_rungs(climbed):
    _, _, features, behaviour, _, run, verdicts = climbed
    assert run.manifest["discovery"] == list(behaviour.discovery.ids)
    assert run.manifest["confirmation"] == list(behaviour.confirmation.ids)
    assert run.manifest["candidates"] == [str(f) for f in features]
    table = pd.read_parquet(run.folder / "verdicts.parquet")
    assert len(table) == len(features) * len(LADDER)
    assert list(table["outcome"]) == [row["outcome"] for row in verdict_rows(verdicts)]


def test_what_is_done_is_not_done_again(climbed, monkeypatch):
    model, saes, features, behaviour, rivals, run, verdicts = climbed
    monkeypatch.setattr("saereason.controls.ladder.bench.answers", None)
    monkeypatch.setattr("saereason.controls.ladder.cues.try_cues", None)
    monkeypatch.setattr("saereason.controls.ladder.bench.search", None)
    again = challenge(model, saes, features, behaviour, rivals=rivals, run=run)
    assert again == verdicts


def test_a_cut_off_challenge_goes_on(climbed, monkeypatch, tmp_path):
    model, saes, features, behaviour, rivals, _, verdicts = climbed
    run, done = sr.Run.open(tmp_path), []

    def stop(n, _):
        done.append(n)
        if n == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        challenge(model, saes, features, behaviour, rivals=rivals, run=run, progress=stop)
    counted = []
    monkeypatch.setattr(
        "saereason.controls.ladder.bench.answers", lambda *a, **o: counted.append(1) or answers(*a, **o)
    )
    assert challenge(model, saes, features, behaviour, rivals=rivals, run=run) == verdicts
    assert 0 < len(counted) < 2 * (3 + 1 + 20 + 2 + 3 + 11), "the first feature's arms were there"


def test_without_rivals_and_trials_rungs_are_untried(counting):
    model, behaviour = counting
    bare = dataclasses.replace(
        behaviour, matched=None, rehearsal=None, absent=None, present=None, instructed=None, task=None
    )
    saes = {2: tiny_sae("topk", 2)}
    table = sr.search(model, saes, behaviour.discovery.examples)
    [found] = challenge(model, saes, list(table.top(1, "studentised")), bare)
    assert [r.passed for r in found.rungs[3:]] == [None] * 5
    assert found.height <= 3


def test_bad_input_is_refused(counting):
    model, behaviour = counting
    saes, one = {2: tiny_sae("topk", 2)}, sr.Feature(2, 3)
    with pytest.raises(ValueError, match="each once"):
        challenge(model, saes, [one, one], behaviour)
    with pytest.raises(ValueError, match="each once"):
        challenge(model, saes, [], behaviour)
    with pytest.raises(ValueError, match="at least 10"):
        challenge(model, saes, [one], behaviour, n_draws=9)
    with pytest.raises(ValueError, match="all positive"):
        challenge(model, saes, [one], behaviour, multiples=(1.0, 0.0))
    with pytest.raises(ValueError, match="no SAE at layer 1"):
        challenge(model, saes, [sr.Feature(1, 3)], behaviour)
    twice = dataclasses.replace(behaviour, showing=behaviour.showing[:1] * 2)
    with pytest.raises(ValueError, match="a text is there 2 times"):
        challenge(model, saes, [one], twice)
    broken, empty = tiny_sae("topk", 2), tiny_sae("topk", 2)
    broken.W_dec.data[64] = torch.nan
    empty.W_dec.data[3] = 0
    with pytest.raises(ValueError, match="1 decoder rows of the SAE at layer 2 are not finite"):
        challenge(model, saes, [one], behaviour, rivals=Rivals(others=({2: broken},)))
    with pytest.raises(ValueError, match="the decoder row of L2/3 is 0"):
        challenge(model, {2: empty}, [one], behaviour)


def test_splits_may_not_share_a_prompt(counting):
    _, behaviour = counting
    with pytest.raises(ValueError, match="in discovery and in confirmation"):
        dataclasses.replace(behaviour, confirmation=behaviour.discovery)
    with pytest.raises(ValueError, match="in discovery and in confirmation"):
        dataclasses.replace(behaviour, task=behaviour.rehearsal)
    with pytest.raises(ValueError, match="none to rehearse on"):
        dataclasses.replace(behaviour, rehearsal=None)
    with pytest.raises(ValueError, match="different ids"):
        Sample(behaviour.discovery.examples, behaviour.discovery.ids[1:])


@pytest.mark.parametrize(
    ("passed", "height", "stopped"),
    [
        ((True,) * 8, 8, None),
        ((False,) + (True,) * 7, 0, 1),
        ((True, True, False, True, False, True, True, None), 2, 3),
        ((True, True, True, None, None, None, None, None), 3, 4),
    ],
)
def test_height_is_the_highest_consecutive_rung(passed, height, stopped):
    found = verdict(*passed)
    assert found.height == height
    assert (found.stopped_by.number if found.stopped_by else None) == stopped


def test_a_verdict_is_one_sentence():
    assert str(verdict(True, True, False, True, False, True, True, None)) == (
        "L1/2 as counting: it replicates (rung 2), but it does not survive cues (rung 3): so it was; above, it passes "
        "rungs 4, 6, 7 and fails rung 5; 5 candidates of 1,000 features, 3 sizes each."
    )
    assert "nothing is shown: it does not correlate (rung 1)" in str(verdict(False, *[True] * 7))
    assert "whether it beats chance was not tried (rung 4)" in str(verdict(True, True, True, *[None] * 5))
    assert "passes all 8 rungs" in str(verdict(*[True] * 8))


def test_a_rung_survives_json():
    one = rung(4, True, figure=Estimate(0.5, 0.25, 0.75), n=3, against=("a", "b"), details={"p": 0.1})
    assert Rung.of(one.json) == one
    assert Rung.of(rung(8, None).json) == rung(8, None)
    json.loads(one.json)


@pytest.mark.parametrize("paired", [True, False])
def test_separation_is_the_auroc_with_an_interval_over_prompts(paired, tmp_path):
    rng = np.random.default_rng(0)
    on, off = np.round(rng.normal(1, 1, 60), 1), np.round(rng.normal(0, 1, 60), 1)
    groups = np.repeat(np.arange(60), 2) if paired else np.arange(120)
    values = np.stack([on, off], axis=1).ravel() if paired else np.concatenate([on, off])
    label = np.tile([1, 0], 60) if paired else np.repeat([1, 0], 60)
    with filled(tmp_path / "block", 120, np.array([[0, 0]])) as filling:
        filling.add(np.stack([groups, label], axis=1), values[:, None].astype(np.float32))
    found = separation(Block.open(tmp_path / "block"), 0)
    pairs = on[:, None] - off[None]
    assert found.value == pytest.approx(((pairs > 0) + 0.5 * (np.abs(pairs) < 1e-6)).mean(), abs=1e-3)
    assert found.low < found.value < found.high and 0.05 < found.high - found.low < 0.3


def test_above_counts_ties_half():
    assert above(np.array([1.0, 1.0]), np.array([1.0, 0.0])) == 0.75


def test_templates_bear_each_token(counting):
    _, behaviour = counting
    texts = Templates(n_tokens=2).bearing(behaviour, [" step", "\n", "wait", "more"])
    assert len(texts) == 16 and all("step" in t or "wait" in t for t in texts)
    assert Templates().paraphrases(behaviour, []) == behaviour.paraphrases


def test_judges():
    opens = Opens(((3, 4), (5,)))
    assert opens(0, "", [3, 4, 9], finished=True) is Outcome.RIGHT
    assert opens(1, "", [3, 4], finished=True) is Outcome.WRONG
    assert Shows("a", times=2)(0, "ba", [], finished=True) is Outcome.WRONG
    assert Shows("a", times=2)(0, "baa", [], finished=False) is Outcome.RIGHT


def test_a_trial_needs_an_id_for_each_prompt():
    with pytest.raises(ValueError, match="an id for each"):
        Trial(("a", "b"), Shows("a"), ("1", "1"))
    with pytest.raises(ValueError, match="at least one"):
        Trial((), Shows("a"), ())


def test_the_ladder_is_the_one_of_the_docs():
    assert len(LADDER) == len(NAMES) == 8 and all(step.__doc__.startswith("Passes if") for step in LADDER)


def test_chance_is_beaten_by_more_than_all_draws(counting, monkeypatch, tmp_path):
    """A feature that works where no draw does passes; one that a single draw equals does not."""
    model, behaviour = counting
    saes = {2: tiny_sae("topk", 2)}

    def climb(best_draw, folder):
        bench = Bench(model, saes, behaviour, (sr.Feature(2, 1),), Rivals(), Templates(), 10, (1.0,), None, 0, folder)
        shares = {}

        def right(_self, _trial, *edits):
            if not edits:
                return np.zeros(16, dtype=bool)
            mine = isinstance(edits[0], sr.Add) and edits[0].feature == sr.Feature(2, 1)
            name = str(edits[0])
            shares[name] = 12 if mine else (best_draw if len(shares) == 3 else 0)
            return np.arange(16) < shares[name]

        monkeypatch.setattr(Bench, "right", right)
        return beats_chance(bench, Candidate(sr.Feature(2, 1), 1, 2.0, 1))

    assert climb(11, tmp_path / "a").passed
    assert not climb(12, tmp_path / "b").passed


def test_the_other_parts_of_a_split_feature_are_counted(counting, tmp_path):
    model, behaviour = counting
    sae = tiny_sae("topk", 2)
    with torch.no_grad():
        sae.W_dec[2:4] = sae.W_dec[1]
    one = sr.Feature(2, 1)
    bench = Bench(model, {2: sae}, behaviour, (one,), Rivals(), Templates(), 10, (1.0,), None, 0, tmp_path)
    assert "copies of it not drawn: 2" in beats_chance(bench, Candidate(one, 1, 2.0, 1)).said


def test_where_all_others_are_copies_rungs_are_untried_and_the_rest_is_climbed(counting):
    model, behaviour = counting
    sae = tiny_sae("topk", 2)
    with torch.no_grad():
        sae.W_dec[1:90] = sae.W_dec[1]
    one, other = challenge(model, {2: sae}, [sr.Feature(2, 1), sr.Feature(2, 95)], behaviour)
    assert "other features that fire and are no copies; 10 random ones" in one.rungs[3].said
    assert (one.rungs[3].passed, one.rungs[6].passed) == (None, None) and one.rungs[4].passed is not None
    assert other.rungs[3].number == 4


def test_rungs_of_another_behaviour_or_writer_do_not_stand_in(counting, tmp_path):
    """Two challenges in one run folder, and one whose texts are written otherwise under the same name."""
    model, behaviour = counting
    bare = dataclasses.replace(
        behaviour, rehearsal=None, practice=None, absent=None, present=None, instructed=None, task=None
    )
    saes, run = {2: tiny_sae("topk", 2)}, sr.Run.open(tmp_path)
    features = list(sr.search(model, saes, bare.discovery.examples).top(1, "studentised"))
    other = dataclasses.replace(bare, discovery=bare.confirmation, confirmation=bare.discovery)

    def meanwhile(done, total):  # noqa: ARG001
        if done == 1:
            challenge(model, saes, features, other, run=run)

    [mixed] = challenge(model, saes, features, bare, run=run, progress=meanwhile)
    [alone] = challenge(model, saes, features, bare)
    assert [rung.said for rung in mixed.rungs] == [rung.said for rung in alone.rungs]
    [few] = challenge(model, saes, features, bare, run=run, counterexamples=Templates(1))
    [anew] = challenge(model, saes, features, bare, counterexamples=Templates(1))
    assert few.rungs[2].said == anew.rungs[2].said


def test_what_cannot_be_challenged_is_refused_before_any_work(counting):
    model, behaviour = counting
    saes = {2: tiny_sae("topk", 2)}
    narrow = Rivals(others=({2: tiny_sae("topk", 2, d_in=16)},))
    with pytest.raises(ValueError, match="it belongs to another model"):
        challenge(model, saes, [sr.Feature(2, 0)], behaviour, rivals=narrow, progress=lambda *_: pytest.fail("worked"))
    renamed = Sample(behaviour.discovery.examples, tuple(f"other/{n}" for n in range(16)))
    with pytest.raises(ValueError, match="32 of 32 texts of confirmation are discovery's, under other ids"):
        dataclasses.replace(behaviour, confirmation=renamed)
    one = Trial(behaviour.task.prompts[:1] if behaviour.task else ("Hi",), Shows("a"), ("lone",), 3)
    with pytest.raises(ValueError, match="the trial `task` has one prompt"):
        dataclasses.replace(behaviour, task=one)


def test_counterexamples_bear_the_token_as_it_is_and_are_named_only_if_there_are_any(counting):
    model, behaviour = counting
    texts = Templates().bearing(behaviour, (" step", "\n", "Let"))
    assert "The word step was painted on the side of the boat." in texts and len(texts) == 16
    saes = {2: tiny_sae("topk", 2)}
    feature = next(
        feature
        for feature in sr.search(model, saes, behaviour.discovery.examples).top(96, "mean_on")
        if not challenge_rung_three(model, saes, feature, behaviour).said.startswith("it is")
    )

    class Nobody(Templates):
        def bearing(self, behaviour, tokens):  # noqa: ARG002
            return []

    with_texts = challenge_rung_three(model, saes, feature, behaviour)
    without = challenge_rung_three(model, saes, feature, behaviour, Nobody())
    assert "counterexamples by templates" in with_texts.against
    assert "counterexamples by templates" not in without.against and "counterexamples" not in without.said
    untold = challenge_rung_three(model, saes, feature, dataclasses.replace(behaviour, showing=()))
    assert untold.passed is None and "no texts that show it" in untold.said


def challenge_rung_three(model, saes, feature, behaviour, writer=Templates()):
    from saereason.controls.ladder.cues import survives_cues

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(model, saes, behaviour, (feature,), Rivals(), writer, 10, (1.0,), None, 0, Path(folder))
        return survives_cues(bench, Candidate(feature, 1, 1.0, 1))
