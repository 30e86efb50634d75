"""Proposals by every score, and the study that challenges them."""

import dataclasses
import importlib
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import counting_behaviour, tiny_model, tiny_sae

import saereason as sr
from saereason.behaviours.steps import with_steps
from saereason.features import FeatureTable
from saereason.progress import steps
from saereason.study import propose, run_study


@pytest.fixture(scope="module")
def counting():
    model = tiny_model()
    return model, {2: tiny_sae("topk", 2), 3: tiny_sae("standard", 3)}, counting_behaviour(model)


@pytest.fixture(scope="module")
def proposals(counting):
    return propose(*counting, n=2)


def test_every_score_proposes_its_best_or_says_why_not(counting, proposals):
    assert set(proposals.by_score) | set(proposals.left_out) == {
        "paired difference",
        "Cohen's d",
        "correlation over tokens",
        "output score",
        "effect on the next token",
        "ReasonScore",
        "correlation with being right",
        "attribution",
        "first token written",
        "pooled over what is written",
    }
    assert "ReasonScore" in proposals.left_out, "a tiny model writes no words"
    table = sr.search(*counting[:2], counting[2].discovery.examples)
    assert proposals.by_score["paired difference"] == tuple(table.top(2, "studentised"))
    for name, features in proposals.by_score.items():
        assert len(features) <= 2
        assert all(proposals.table.row(feature)[name] > 0 for feature in features)
    assert proposals.features == sorted({f for features in proposals.by_score.values() for f in features})


def test_a_behaviour_without_trials_is_proposed_for_by_its_examples(counting):
    model, saes, behaviour = counting
    bare = dataclasses.replace(
        behaviour, rehearsal=None, practice=None, absent=None, present=None, instructed=None, task=None
    )
    found = propose(model, saes, bare, n=1)
    assert len(found.by_score) == 4 and not found.left_out


def test_what_cannot_be_searched_is_told_and_not_left_out(counting):
    model, _, behaviour = counting
    with pytest.raises(ValueError, match="it belongs to another model"):
        propose(model, {2: tiny_sae("topk", 2, d_in=16)}, behaviour)
    with pytest.raises(ValueError, match="0 features by each score were asked for"):
        propose(model, {2: tiny_sae("topk", 2)}, behaviour, n=0)


def test_a_study_leaves_tables_and_a_page(counting, tmp_path):
    model, saes, behaviour = counting
    with steps() as bars:
        study = run_study(model, saes, behaviour, sr.Run.open(tmp_path), bars, n_per_score=1)
    assert [verdict.feature for verdict in study.verdicts] == study.proposals.features
    assert len(FeatureTable.load(tmp_path / "proposals.parquet")) == 192
    assert len(pd.read_parquet(tmp_path / "verdicts.parquet")) == 8 * len(study.verdicts)
    page = (tmp_path / "report.html").read_text(encoding="utf8")
    assert "who stands on the ladder?" in page and str(study.verdicts[0].feature) in page
    assert "ReasonScore: 0 of the words occur" in page
    assert f'any of them</bdi></td><td class="number"><bdi>{len(study.verdicts)}</bdi></td>' in page
    assert '<a href="explorer.html">' in page
    cards = (tmp_path / "explorer.html").read_text(encoding="utf8")
    assert all(f'id="{verdict.feature}"' in cards for verdict in study.verdicts)


def test_the_word_step_is_put_in_and_nothing_else():
    text = "One day two of them went out to see the sea"
    told = with_steps(text, 3)
    assert told.split().count("step") == 4 and told.split()[0] == "One"
    assert [word for word in told.split() if word != "step"] == text.split()
    assert with_steps(text, 3) == told != with_steps(text, 4)


def test_answers_are_paired_by_question_though_some_are_empty(counting, monkeypatch):
    """A model that writes nothing to some of the questions: what is left goes with its own question."""
    model, saes, behaviour = counting
    module = importlib.import_module("saereason.study.propose")
    whole, asked = module.generate, []

    def with_empty_answers(lm, prompts, **options):
        said = whole(lm, prompts, **options)
        silent = 1 if prompts[0].endswith("Q") else 3
        tokens = tuple(() if n == silent else row for n, row in enumerate(said.tokens))
        return dataclasses.replace(said, tokens=tokens)

    def noted(lm, on, off, **options):
        asked.append((on, off))
        return sr.Examples.pair(lm, on, off, **options)

    monkeypatch.setattr(module, "generate", with_empty_answers)
    monkeypatch.setattr(module, "Examples", SimpleNamespace(pair=noted, graded=sr.Examples.graded))
    propose(model, saes, behaviour, n=1)
    for on, off in asked:
        assert len(on) == 14 and [text[:-1] for text in on] == [text[:-1] for text in off]


def test_a_model_that_writes_nothing_leaves_those_scores_out(counting, monkeypatch):
    model, saes, behaviour = counting
    module = importlib.import_module("saereason.study.propose")
    whole = module.generate

    def silent(lm, prompts, **options):
        said = whole(lm, prompts, **options)
        return dataclasses.replace(said, tokens=((),) * len(prompts))

    monkeypatch.setattr(module, "generate", silent)
    found = propose(model, saes, behaviour, n=1)
    assert "the model wrote nothing after any of 16 prompts" in found.left_out["pooled over what is written"]
    assert "paired difference" in found.by_score
