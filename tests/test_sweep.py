"""Sweeps: arms together are the arms one by one, done once, with the damage they do."""

import dataclasses
import math
import sys

import numpy as np
import pytest
import torch
from conftest import tiny_model

import saereason as sr
from saereason import hooks
from saereason.effects import Grades, Shows, Trial, answers, doses, sweep, sweep_units
from saereason.generate import generate
from saereason.metrics import LogProb
from saereason.prefixes import Prefixes
from saereason.steering import (
    Add,
    AddVector,
    Clamp,
    Everywhere,
    Generated,
    LastPromptToken,
    OnRows,
    Patch,
    Prompt,
    Splice,
    Steps,
    steered,
)

F, G = sr.Feature(1, 3), sr.Feature(2, 7)
PLAIN = ("Some words stand here in a row", "How many birds are left on the roof")
SAME = ["item", "text", "outcome", "n_tokens", "first_token", "firings"]


@pytest.fixture(scope="module")
def trial():
    prompts = tuple(f"{word} {n}" for n, word in enumerate(["Tom has apples", "Hi", "2 + 2 =", "How many birds", "x"]))
    return Trial(prompts, Shows("[a-m]"), tuple(map(str, range(5))), 8)


@pytest.fixture(scope="module")
def ending():
    model = tiny_model()
    model.hf.generation_config.eos_token_id = list(range(4, 104, 9))
    return model


ARMS = [
    *doses([Add(F, 1.0), Clamp(G, 1.0)], [5.0, 20.0], [LastPromptToken(), Generated()]),
    (Add(F, 9.0), AddVector(3, torch.ones(32), 2.0, LastPromptToken())),
    Splice(1),
]


def test_doses_are_every_combination():
    made = doses([Add(F, 1.0), Clamp(G, 1.0)], [5.0, 20.0], [LastPromptToken(), Generated()])
    assert len(made) == 8 and made[:2] == [Add(F, 5.0, LastPromptToken()), Add(F, 20.0, LastPromptToken())]
    assert doses([Clamp(G, 1.0, Generated())], [2.0]) == [Clamp(G, 2.0, Generated())]
    with pytest.raises(ValueError, match=r"Splice\(L1\) has no size"):
        doses([Splice(1)], [2.0])


@pytest.mark.parametrize("rows_at_once", [2, 16, 96])
def test_arms_in_one_batch_are_the_arms_one_by_one(ending, topk_saes, trial, rows_at_once):
    done = []
    found = sweep(
        ending, topk_saes, trial, ARMS, rows_at_once=rows_at_once, progress=lambda *counts: done.append(counts)
    )
    assert done[-1] == (11, 11) and len(found.arms) == 11
    for name, arm in found.arms.items():
        alone = answers(ending, topk_saes, trial, interventions=arm)
        table = found.of(name)
        assert table[SAME].to_dict("records") == [{key: row[key] for key in SAME} for row in alone]
        np.testing.assert_allclose(table["relative_size"], [row["relative_size"] for row in alone], rtol=1e-4)
    assert found.answers["text"].nunique() > 10


def test_what_is_done_is_not_done_again(ending, topk_saes, trial, tmp_path, monkeypatch):
    run, calls = sr.Run.open(tmp_path), []

    def stopping(done, total):  # noqa: ARG001
        calls.append(done)
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(ending, topk_saes, trial, ARMS, run=run, rows_at_once=10, plain=PLAIN, progress=stopping)
    kept = len(list((tmp_path / "results").glob("dose-*.parquet")))
    assert kept == calls[-1] == 6
    module, rows = sys.modules["saereason.effects.work"], []
    monkeypatch.setattr(module, "generate", lambda m, p, **o: rows.append(len(p)) or generate(m, p, **o))
    resumed = sweep(ending, topk_saes, trial, ARMS, run=run, rows_at_once=10, plain=PLAIN)
    assert sum(rows) == 5 * (11 - kept) + 5, "the arms that were missing, and the clean openings for KL"
    rows.clear()
    again = sweep(ending, topk_saes, trial, ARMS, run=run, rows_at_once=96, plain=PLAIN)
    assert not rows
    whole = sweep(ending, topk_saes, trial, ARMS, plain=PLAIN)
    for each in (resumed, again):
        assert each.answers[SAME].equals(whole.answers[SAME])
        np.testing.assert_allclose(each.damage["plain_nats"], whole.damage["plain_nats"], rtol=1e-5)
        assert each.summary().columns.tolist() == whole.summary().columns.tolist()


def test_the_summary_says_what_became_of_each_arm(ending, topk_saes, trial):
    found = sweep(ending, topk_saes, trial, ARMS, plain=PLAIN)
    table = found.summary().set_index("arm")
    clean = table.loc["clean"]
    assert (clean["change"], clean["kl"], clean["other_first_token"], clean["firings"]) == (0, 0, 0, 0)
    name = next(name for name in found.arms if name.startswith("Add(L1/3, 20)") and "LastPromptToken" in name)
    row, of = table.loc[name], found.of(name)
    right = (of["outcome"] == "right").to_numpy()
    assert row["accuracy"] == right.mean() and row["accuracy_low"] < row["accuracy"] <= row["accuracy_high"]
    assert row["target"] == "Add(L1/3)" and row["size"] == 20.0 and row["when"] == "LastPromptToken()"
    assert row["change"] == right.mean() - (found.of("clean")["outcome"] == "right").mean()
    assert row["tokens"] == of["n_tokens"].mean() and row["firings"] == 5
    metric = LogProb.of(ending, [p[:8] for p in PLAIN], [p[8:] for p in PLAIN])
    with steered(ending, topk_saes, *found.arms[name]):
        assert row["perplexity"] == pytest.approx(math.exp(-float(metric(ending).mean())), rel=1e-4)
    everywhere = sweep(ending, topk_saes, trial, [Add(F, 20.0, Everywhere())], plain=PLAIN).summary()
    assert everywhere["kl"][1] > 0 and everywhere["perplexity"][1] != everywhere["perplexity"][0]
    assert sweep(ending, topk_saes, trial, []).summary()["perplexity"].isna().all()


def test_kl_is_that_of_the_first_step_that_an_edit_reaches(ending, topk_saes, trial):
    arms = [Add(F, 20.0, when) for when in (LastPromptToken(), Generated(), Steps(2, 9))]
    table = sweep(ending, topk_saes, trial, arms, plain=PLAIN).summary()
    written = generate(ending, trial.prompts, max_new_tokens=8).tokens
    assert len({len(said) < 3 for said in written}) == 2, "some answers end early"
    for (kl, n), arm, first in zip(table[["kl", "kl_n"]].to_numpy()[1:], arms, (0, 1, 3), strict=True):
        each = []
        for prompt, said in zip(trial.prompts, written, strict=True):
            if len(said) < first:
                continue  # the clean answer has ended before
            row = torch.tensor([ending.encode(prompt) + list(said[:first])])
            with torch.no_grad(), hooks.prompts(torch.tensor([row.shape[1] - first])):
                clean = ending.hf(row).logits[0, -1].log_softmax(-1)
                with steered(ending, topk_saes, arm):
                    edited = ending.hf(row).logits[0, -1].log_softmax(-1)
            each.append(float((edited.exp() * (edited - clean)).sum()))
        assert kl == pytest.approx(np.mean(each), rel=1e-3, abs=1e-5) and n == len(each)
    late = sweep(ending, topk_saes, trial, [Add(F, 2.0, Steps(90, 99))], plain=PLAIN, may_be_silent=True).damage
    assert late["kl"].isna().tolist() == [False, True] and late["kl_n"].tolist() == [5, 0]


def test_a_sweep_inside_an_outer_block_is_another(ending, topk_saes, trial, tmp_path):
    run, arms = sr.Run.open(tmp_path), [Add(F, 5.0)]
    outer = Add(G, 60.0, LastPromptToken())
    plain = sweep(ending, topk_saes, trial, arms, run=run)
    with steered(ending, topk_saes, outer):
        inside = sweep(ending, topk_saes, trial, arms, run=run)
        alone = sweep(ending, topk_saes, trial, arms)
        again = sweep_units(ending, topk_saes, trial, arms, run=run)
    assert inside.answers[SAME].equals(alone.answers[SAME]) and again["done"].all()
    assert not inside.answers["text"].equals(plain.answers["text"])
    assert sweep(ending, topk_saes, trial, arms, run=run).answers[SAME].equals(plain.answers[SAME])
    mine = hooks.Edit(1, "mine", lambda at: at.valid, lambda at: at.resid)
    with (
        pytest.raises(ValueError, match="under the edit 'mine' cannot be told from others on disk; use `steered`"),
        hooks.edited(ending, [mine]),
    ):
        sweep(ending, topk_saes, trial, arms, run=run)


@pytest.mark.parametrize("rows_at_once", [2, 5, 96])
def test_edits_that_differ_by_row_go_by_the_trials_prompts(ending, topk_saes, trial, rows_at_once):
    others = [prompt[::-1] for prompt in trial.prompts]
    arms = [Add(F, 50.0, OnRows((1, 2))), Patch.of(ending, 1, others, Prompt()), Add(F, 50.0)]
    found = sweep(ending, topk_saes, trial, arms, rows_at_once=rows_at_once)
    for name, arm in found.arms.items():
        alone = answers(ending, topk_saes, trial, interventions=arm)
        assert found.of(name)[SAME].to_dict("records") == [{key: row[key] for key in SAME} for row in alone]
    with pytest.raises(ValueError, match=r"Patch\(L1\) differs by the row of a prompt, and plain texts have none"):
        sweep(ending, topk_saes, trial, [arms[1]], plain=PLAIN)


JUDGE = """
@dataclasses.dataclass(frozen=True)
class Mine:
    def __call__(self, item, text, tokens, *, finished):
        return Outcome.{}
"""


def test_a_judge_whose_source_has_changed_judges_again(ending, topk_saes, trial, tmp_path):
    run, shares = sr.Run.open(tmp_path), []
    for outcome in ("RIGHT", "WRONG", "RIGHT"):
        there = {"dataclasses": dataclasses, "Outcome": sr.tasks.Outcome, "__name__": "mine"}
        exec(JUDGE.format(outcome), there)
        found = sweep(ending, topk_saes, dataclasses.replace(trial, judge=there["Mine"]()), [Add(F, 5.0)], run=run)
        shares.append(found.summary()["accuracy"].tolist())
    assert shares == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]] and len(list((tmp_path / "results").iterdir())) == 4


def test_weights_changed_in_place_are_another_model(topk_saes, trial, tmp_path):
    model, run, prefixes = tiny_model(), sr.Run.open(tmp_path), Prefixes()
    before = sweep(model, topk_saes, trial, [], run=run).answers
    written = generate(model, trial.prompts, max_new_tokens=4, prefixes=prefixes).texts
    with torch.no_grad():
        model.hf.model.layers[2].mlp.down_proj.weight.zero_()
    after = sweep(model, topk_saes, trial, [], run=run).answers
    assert not after["text"].equals(before["text"])
    assert after["text"].equals(sweep(model, topk_saes, trial, []).answers["text"])
    clean = generate(model, trial.prompts, max_new_tokens=4).texts
    assert generate(model, trial.prompts, max_new_tokens=4, prefixes=prefixes).texts == clean != written


def test_without_a_run_anything_can_judge(ending, topk_saes, trial):
    def judge(item, text, tokens, *, finished):  # noqa: ARG001
        return sr.tasks.Outcome.RIGHT

    mine = dataclasses.replace(trial, judge=judge)
    assert sweep(ending, topk_saes, mine, [Add(F, 5.0)]).summary()["accuracy"].tolist() == [1.0, 1.0]


def test_first_tokens_are_counted(ending, topk_saes, trial):
    found = sweep(ending, topk_saes, trial, [Add(F, 20.0, LastPromptToken())])
    for name in found.arms:
        counts = found.first_tokens(name)
        assert sum(n for _, n in counts) == 5 and counts == sorted(counts, key=lambda pair: -pair[1])
        assert dict(counts)[int(found.of(name)["first_token"].iloc[0])] >= 1
        assert len(found.first_tokens(name, 1)) == 1


def test_bad_input_is_refused(ending, topk_saes, trial):
    with pytest.raises(ValueError, match="is given twice"):
        sweep(ending, topk_saes, trial, [Add(F, 2.0), Add(F, 2.0)])
    with pytest.raises(ValueError, match="rows_at_once is 0"):
        sweep(ending, topk_saes, trial, [Add(F, 2.0)], rows_at_once=0)
    with pytest.raises(ValueError, match="the judge knows 1 items and there are 5 prompts"):
        dataclasses.replace(trial, judge=Grades((("1",),)))
    with pytest.raises(ValueError, match="there are 1 scores for 2 items"):
        Grades((("1",), ("2",)), (None,))
    kept = sweep(ending, topk_saes, trial, [Add(F, 2.0), Add(F, 2.0, keep_norm=True)]).summary()
    assert kept["target"].tolist() == ["clean", "Add(L1/3)", "Add(L1/3, norm kept)"]
    with pytest.raises(ValueError, match="plain text 1 has 2 tokens; give more than 8"):
        sweep(ending, topk_saes, trial, [], plain=[PLAIN[0], "ab"])
    with pytest.raises(sr.SilentEditError):
        sweep(ending, topk_saes, trial, [Add(F, 2.0, Steps(90, 91))])


def test_what_cannot_be_told_from_others_is_not_kept(ending, topk_saes, trial, tmp_path):
    mine = dataclasses.replace(trial, judge=lambda item, text, tokens, *, finished: sr.tasks.Outcome.RIGHT)
    with pytest.raises(ValueError, match=r"lambda.* cannot be told from others on disk; give a frozen dataclass"):
        sweep(ending, topk_saes, mine, [Add(F, 5.0)], run=sr.Run.open(tmp_path))
