"""Each way of making a model reason, against its definition."""

import copy
import dataclasses
import itertools
import math
import re

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_sae

import saereason as sr
from saereason import hooks
from saereason.effects import Thoughts, answer_log_probs, information_gain
from saereason.effects.thoughts import mask_answer
from saereason.mechanisms.adapted import Adapted
from saereason.mechanisms.asking import Asked, ChainOfThought, Direct, ForcedPrefix, ThinkLonger
from saereason.mechanisms.backward import BackwardCheck, inverses
from saereason.mechanisms.comparison import compare, kept_answers, together
from saereason.mechanisms.decoding import CoTDecoding, Path, first_tokens, leads, paths, surest, tokens_in
from saereason.mechanisms.fingerprints import along, states, states_at
from saereason.mechanisms.forms import Changed, Demonstrated, changed_chains, demonstrated, follow
from saereason.mechanisms.mechanism import Written, answer_rows, elicit
from saereason.mechanisms.overlaps import overlap
from saereason.mechanisms.sampling import right_of
from saereason.mechanisms.steering import Steered, compression, compression_vector
from saereason.mechanisms.tools import TOOLS, AsManyTokens, CognitiveTools, Tool
from saereason.mechanisms.undone import Without
from saereason.mechanisms.vectors import VectorRecipe, train_vectors, with_vectors, worked_lessons
from saereason.mechanisms.weights import weight_change
from saereason.metrics import log_probs_after
from saereason.model import pad
from saereason.stats import pass_at_k
from saereason.tasks import problems
from saereason.tasks.grading import answer_span
from saereason.writing import Budget

SAES = {layer: tiny_sae("topk", layer) for layer in (1, 2)}
ITEMS = tuple(sr.Item(str(n), f"What is {n} + {n + 1}", str(2 * n + 1)) for n in range(1, 13))
TASK = sr.Task("made", "reasoning", ITEMS[:5], direct="Number:", cot="Steps:")
MANY = dataclasses.replace(TASK, items=ITEMS)


def write(model, mechanism, task=TASK, n=8):
    return elicit(model, SAES, mechanism, task, max_new_tokens=n, batch_size=3)


@pytest.mark.parametrize(
    ("mechanism", "words"),
    [(Direct(), "Number:"), (ChainOfThought(), "Steps:"), (Asked("draft", "Be brief."), "Be brief.")],
)
def test_a_mechanism_that_asks_otherwise_is_its_prompt(model, mechanism, words):
    found = write(model, mechanism)
    plain = sr.generate(model, TASK.prompts(model, words), max_new_tokens=8)
    assert (found.texts, found.tokens, found.finished) == (plain.texts, plain.tokens, plain.finished)
    assert found.spent == tuple(map(len, plain.tokens)) and found.consistent is None
    assert mechanism.name and mechanism.describe().endswith((".", '"'))


def test_a_forced_prefix_opens_every_answer_and_counts(model):
    found = write(model, ForcedPrefix("So"))
    plain = sr.generate(model, TASK.prompts(model, "Number:"), max_new_tokens=6, forced=[model.encode("So")] * 5)
    assert found.tokens == plain.tokens and all(text.startswith("So") for text in found.texts)
    with pytest.raises(ValueError, match="the prefix has 2 of 2 new tokens"):
        write(model, ForcedPrefix("So"), n=2)
    with pytest.raises(ValueError, match="the prefix is empty"):
        ForcedPrefix("")


def test_budget_forcing_is_the_budget_after_the_cot_prompt(model):
    budget = Budget(6, wait="W")
    plain = sr.generate(model, TASK.prompts(model, "Steps:"), max_new_tokens=8, budget=budget)
    assert write(model, ThinkLonger(budget)).tokens == plain.tokens


def test_steering_is_in_force_while_it_writes_and_then_gone(model):
    edit = sr.Add(sr.Feature(1, 3), 9.0, sr.LastPromptToken())
    clean = write(model, Direct())
    for cot, words in ((False, "Number:"), (True, "Steps:")):
        with sr.steered(model, SAES, edit):
            plain = sr.generate(model, TASK.prompts(model, words), max_new_tokens=8)
        found = write(model, Steered("feature", (edit,), cot))
        assert found.tokens == plain.tokens != clean.tokens
    assert write(model, Direct()).tokens == clean.tokens
    with pytest.raises(ValueError, match="has no interventions"):
        Steered("none", ())


# CoT-decoding


def test_first_tokens_are_the_likeliest_that_do_not_end_the_text(any_model):
    prompts = TASK.prompts(any_model, "Number:")
    found = first_tokens(any_model, prompts, 5, batch_size=2)
    for prompt, row in zip(prompts, found.tolist(), strict=True):
        logits = hooks.run(any_model, pad([any_model.encode(prompt)], pad_token=0), use_cache=False).logits[0, -1]
        order = [token for token in logits.argsort(descending=True).tolist() if token != 2]
        assert row == order[:5]
    with pytest.raises(ValueError, match="k is 104"):
        first_tokens(any_model, prompts, 104, batch_size=2)


def test_a_lead_is_the_difference_of_the_two_largest_probabilities(any_model):
    prompts = [any_model.encode(prompt) for prompt in ("one", "another one")]
    tokens, places = ((5, 6, 7, 8), (9, 10)), ([1, 3], [0])
    found = leads(any_model, prompts, tokens, places, batch_size=2)
    for row, said, at, gap in zip(prompts, tokens, places, found, strict=True):
        for n, value in zip(at, gap, strict=True):
            batch = pad([[*row, *said[:n]]], pad_token=0)
            top = hooks.run(any_model, batch, use_cache=False).logits[0, -1].softmax(-1).topk(2).values
            assert value == pytest.approx(float(top[0] - top[1]), abs=1e-5)


def test_cot_decoding_takes_the_path_that_is_surest_of_its_answer(model):
    mechanism = CoTDecoding(k=3)
    found = write(model, mechanism)
    prompts = TASK.prompts(model, "Number:")
    first = first_tokens(model, prompts, 3, batch_size=5)
    for n, prompt in enumerate(prompts):
        forced = [[token] for token in first[n].tolist()]
        made = sr.generate(model, [prompt] * 3, max_new_tokens=7, forced=forced)
        by_hand = paths(model, made, ["1"] * 3, batch_size=1)
        best = surest(by_hand, "largest")
        assert (found.texts[n], found.tokens[n]) == (best.text, best.tokens)
        assert found.spent[n] == sum(len(path.tokens) for path in by_hand)
    one = CoTDecoding(k=1)
    assert write(model, one).tokens == write(model, Direct()).tokens, "one path is the greedy one"
    with pytest.raises(ValueError, match="k is 0"):
        CoTDecoding(k=0)


def test_confidence_is_of_the_tokens_of_the_answer_alone(model):
    text = "so 12 is it"
    tokens = tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert tokens_in(model, tokens, (3, 5)) == [3, 4]
    made = dataclasses.replace(sr.generate(model, ["Hi"], max_new_tokens=1), tokens=(tokens,), finished=(True,))
    [path] = paths(model, made, ["7"], batch_size=1)
    [gap] = leads(model, [model.encode("Hi")], [tokens], [[3, 4]], batch_size=1)
    assert path.answer == "12" and path.confidence == pytest.approx(gap.mean())
    [none] = paths(model, dataclasses.replace(made, finished=(False,)), ["7"], batch_size=1)
    assert none.answer is None and none.confidence == 0


def test_paths_that_agree_may_win_by_their_sum():
    made = [Path(text, (), True, answer, delta) for text, answer, delta in [
        ("greedy", None, 0.0), ("a", "7", 0.6), ("b", "8", 0.4), ("c", "8", 0.5)]]  # fmt: skip
    assert surest(made, "largest").text == "a" and surest(made, "sum").text == "c"
    assert surest(made[:1] * 2, "sum").text == "greedy"


@pytest.mark.parametrize(
    ("text", "like", "finished", "said"),
    [
        ("It is 3. The answer is 12.", "5", True, "12"),
        ("3 and then 4", "5", True, "4"),
        ("3 and then 4", "5", False, None),
        ("The answer is 3 and", "5", False, "3"),
        ("The answer is (B).", "A", True, "B"),
        ("No, it is not", "yes", True, "No"),
        ("Perhaps it is", "yes", True, None),
        ("Think.\nThe answer is: Paris", "Rome", True, "Paris"),
        ("Think.\nParis", "Rome", True, "Paris"),
        ("Think.\nParis", "Rome", False, None),
    ],
)
def test_where_a_text_gives_its_answer(text, like, finished, said):
    span = answer_span(text, like, finished=finished)
    assert (None if span is None else text[slice(*span)]) == said


# vectors


def test_the_compression_vector_is_the_mean_difference_of_last_tokens(any_model):
    short, long = ["ab", "abcd", "x"], ["a longer one", "another long one", "the longest of them all"]
    found = compression_vector(any_model, short, long, 2, batch_size=2)
    ends = [
        [hooks.read(any_model, pad([any_model.encode(text)], pad_token=0), [2])[2][0, -1] for text in texts]
        for texts in (short, long)
    ]
    torch.testing.assert_close(found, torch.stack(ends[0]).mean(0) - torch.stack(ends[1]).mean(0), atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="2 short and 3 long"):
        compression_vector(any_model, short[:2], long, 2)


def test_compression_acts_on_decoding_steps_alone_at_the_kl_asked_for(model):
    vector = compression_vector(model, ["ab", "cd"], ["a longer", "another"], 2)
    prompts = TASK.prompts(model, "Steps:")
    wrote = sr.generate(model, prompts, max_new_tokens=6).tokens
    budget = sr.Divergence.over(model, prompts, wrote)
    mechanism, kl = compression(vector, 2, budget, nats=0.05)
    [edit] = mechanism.interventions
    assert mechanism.cot and kl == pytest.approx(0.05, rel=0.1) and isinstance(edit.when, sr.Generated)
    assert float(budget(SAES, edit).mean()) == pytest.approx(kl, rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(edit.vector, vector, dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-5)


def test_trained_vectors_lower_the_loss_and_leave_the_model_as_it_was(any_model):
    before = any_model.hash
    lessons = worked_lessons(any_model, 48)
    seen = []
    vectors = train_vectors(
        any_model, VectorRecipe((1, 2), batch_size=4, learning_rate=0.1), lessons,
        progress=lambda step, total, loss: seen.append((step, total, loss)),
    )  # fmt: skip
    assert sorted(vectors) == [1, 2] and len(seen) == 12 and any_model.hash == before
    assert np.mean([loss for *_, loss in seen[-3:]]) < np.mean([loss for *_, loss in seen[:3]]) - 0.02
    metric = sr.LogProb(
        tuple(sr.metrics.Scored(tuple(x.prompt), tuple(x.answer), tuple(x.learnt)) for x in lessons[:8])
    )
    clean = metric(any_model).mean()
    with with_vectors("vectors", vectors).apply(any_model, SAES) as steered_model:
        assert (metric(steered_model).mean() - clean) > 0.02
    again = train_vectors(any_model, VectorRecipe((1, 2), batch_size=4, learning_rate=0.1), lessons)
    assert all(torch.equal(vectors[layer], again[layer]) for layer in vectors)
    with pytest.raises(ValueError, match="there are 0 layers and 48 lessons"):
        train_vectors(any_model, VectorRecipe(()), lessons)


# tools


def test_the_calls_of_tools_see_only_what_they_are_given(model):
    tools = CognitiveTools(TOOLS, most=5)
    calls = tools.calls(model, TASK, batch_size=3, progress=lambda done, total: None)
    assert list(calls) == ["draft", *(tool.name for tool in TOOLS)]
    draft = calls["draft"]
    for tool in TOOLS:
        for n, item in enumerate(TASK.items):
            seen = f"{item.question}\n\nDraft:\n{draft.texts[n]}\n" if tool.sees_draft else item.question
            assert calls[tool.name].prompts[n] == model.render(f"{seen}\n{tool.words}")
            others = [
                call.texts[n] for name, call in calls.items() if name not in ("draft", tool.name) and call.texts[n]
            ]
            text = calls[tool.name].prompts[n].text
            assert not any(len(other) > 2 and other in text for other in others if other not in draft.texts[n])
    found = write(model, tools)
    for n, item in enumerate(TASK.items):
        notes = "\n".join(f"{tool.name}: {calls[tool.name].texts[n].strip()}" for tool in TOOLS)
        assert found.prompts[n] == tuple(model.encode(model.render(f"{item.question}\nNotes:\n{notes}\nSteps:")))
        assert found.spent[n] == len(found.tokens[n]) + sum(len(call.tokens[n]) for call in calls.values())


def test_the_control_of_tools_writes_as_many_tokens(model):
    tools = CognitiveTools((Tool("say", "Say."), Tool("check", "Check.", sees_draft=True)), most=6)
    found, control = (write(model, each) for each in (tools, AsManyTokens(tools)))
    before = [[each.spent[n] - len(each.tokens[n]) for n in range(5)] for each in (found, control)]
    assert before[0] == before[1] and min(before[0]) > 0
    assert found.prompts != control.prompts and "Notes:\nsay: " in model.decode(control.prompts[0])


@pytest.mark.parametrize("when", [None, sr.LastPromptToken(), sr.Generated(), sr.Everywhere()])
def test_states_are_the_same_where_what_prompts_begin_with_is_read_once(any_model, monkeypatch, when):
    edit = sr.AddVector(1, torch.ones(any_model.d_model), 4.0, when) if when else None
    mechanism = Steered("edited", (edit,)) if when else Direct()
    wrote = write(any_model, mechanism)
    runs, run = [], hooks.run
    monkeypatch.setattr(hooks, "run", lambda m, b, *a, **k: runs.append(len(b.tokens)) or run(m, b, *a, **k))
    found = []
    for worth in (1, 10**9):
        monkeypatch.setattr("saereason.prefixes.WORTH", worth)
        found.append(states_at(any_model, SAES, mechanism, wrote, [(-4, -3), (-1, 99), (-1, -1), (2, 3)], batch_size=3))
    often = any_model.hf.config.model_type != "gemma3_text" and when != sr.Everywhere()
    assert runs == ([1, 1] if often else []), "one for the beginning of each batch"
    for once, plain in zip(*found, strict=True):
        for layer in SAES:
            np.testing.assert_allclose(once.resid[layer], plain.resid[layer], atol=2e-4)
            np.testing.assert_allclose(once.acts[layer], plain.acts[layer], atol=2e-4)


def test_the_calls_of_tools_are_made_once_where_nothing_is_hooked(model):
    tools = CognitiveTools((Tool("say", "Say."),), most=4)

    def calls(model, task):
        return tools.calls(model, task, batch_size=5, progress=lambda done, total: None)

    first = calls(model, TASK)
    assert calls(model, TASK) is first and calls(model, TASK.take(3)) is not first
    with sr.steered(model, {}, sr.AddVector(1, torch.ones(model.d_model), 50.0)):
        changed = calls(model, TASK)
    assert changed["say"].tokens != first["say"].tokens and calls(model, TASK) is first
    other = dataclasses.replace(model, tokenizer=copy.deepcopy(model.tokenizer))
    other.tokenizer.chat_template = "{{ messages[0]['content'] }} >"
    assert calls(other, TASK) is not first
    assert CognitiveTools(tools.tools, most=4) == tools and "_made" not in repr(tools)


def test_a_question_is_turned_round_at_its_last_number():
    wrote = Written(((1,),) * 3, ("The answer is 7", "nothing", "8"), ((1,),) * 3, (True, True, True), (1,) * 3)
    items = [sr.Item("a", "2 and 5?", "7"), sr.Item("b", "3 and 5?", "8"), sr.Item("c", "none?", "9")]
    [found] = inverses(items, wrote)
    assert (found.place, found.number) == (0, "5")
    assert found.question == "2 and x?\nThe answer to this is 7. What number is x?"


def test_the_backward_check_leaves_answers_as_they_are(model, monkeypatch):
    plain = write(model, ChainOfThought())
    said = iter([["The answer is 9"] * 5, ["x is 2", "3", "none", "The answer is 5", "6"]])

    def made(model, prompts, **options):  # noqa: ARG001
        texts = next(said)[: len(prompts)]
        return dataclasses.replace(
            sr.generate(model, prompts, max_new_tokens=1), texts=tuple(texts), finished=(True,) * len(prompts)
        )

    assert write(model, BackwardCheck()).tokens == plain.tokens
    monkeypatch.setattr("saereason.mechanisms.backward.generate", made)
    found = write(model, BackwardCheck())
    assert found.consistent == (True, True, False, True, True)  # the last numbers are 2 to 6
    trial = sr.Trial.of(model, TASK)
    assert [row["consistent"] for row in answer_rows(trial, found)] == [True, True, False, True, True]
    assert all(row["spent"] == 2 for row in answer_rows(trial, found))


# adapters


def test_another_checkpoint_answers_in_the_models_place(model):
    other = tiny_model(seed=5)
    found = write(model, Adapted("other", other, cot=True))
    assert found.tokens == sr.generate(other, TASK.prompts(other, "Steps:"), max_new_tokens=8).tokens
    with pytest.raises(ValueError, match="Give a checkpoint of the same architecture"):
        write(model, Adapted("deeper", tiny_model(n_layers=5)))


# fingerprints


@pytest.mark.parametrize("architecture", ["standard", "topk"])
def test_states_are_means_over_the_positions_that_predict_the_answer(any_model, architecture):
    saes = {layer: tiny_sae(architecture, layer) for layer in (1, 2)}
    edit = sr.Add(sr.Feature(1, 3), 9.0, sr.LastPromptToken())
    mechanism = Steered("feature", (edit,))
    found = elicit(any_model, saes, mechanism, TASK, max_new_tokens=6)
    whole = states(any_model, saes, mechanism, found, batch_size=2)
    first, late = states_at(any_model, saes, mechanism, found, [(-1, -1), (99, 100)], batch_size=5)
    assert np.isnan(late.resid[1]).all() and np.isnan(late.acts[2]).all()
    for n, ids in enumerate(found.prompts):
        with sr.steered(any_model, saes, edit), hooks.prompts(torch.tensor([len(ids)])):
            read = hooks.read(any_model, pad([[*ids, *found.tokens[n][:-1]]], pad_token=0), [1, 2])
        for layer in (1, 2):
            rows = read[layer][0, len(ids) - 1 :]
            np.testing.assert_allclose(whole.resid[layer][n], rows.mean(0), atol=1e-4)
            np.testing.assert_allclose(whole.acts[layer][n], saes[layer].encode(rows).mean(0), atol=1e-3)
            np.testing.assert_allclose(first.resid[layer][n], rows[0], atol=1e-4)
    [clean] = states_at(any_model, saes, Direct(), found, [(-1, -1)])
    np.testing.assert_allclose(first.less(clean).resid[1], (9.0 * saes[1].W_dec[3]).expand(5, -1).numpy(), atol=1e-3)


def test_the_same_change_overlaps_and_another_does_not(model):
    def of(mechanism):
        return states(model, SAES, mechanism, elicit(model, SAES, Direct(), MANY, max_new_tokens=4))

    edits = [Steered(f"f{n}", (sr.Add(sr.Feature(1, n), 6.0),)) for n in (3, 40)]
    direct, one, other = of(Direct()), of(edits[0]), of(edits[1])
    same, apart = overlap(direct, one, one), overlap(direct, one, other)
    assert same.cosine > 0.7 > 0.5 > same.cosine_by_chance and same.p < 0.01 and same.resid_cosine > 0.9
    assert same.top > same.top_by_chance and apart.cosine < 0.5 and apart.resid_cosine < 0.6
    with pytest.raises(ValueError, match="5 items have answers under all of them"):
        few = states(model, SAES, Direct(), write(model, Direct()))
        overlap(few, few, few)


def test_taking_features_out_is_a_clamp_within_the_mechanism(model):
    feature, edit = sr.Feature(2, 5), sr.Add(sr.Feature(1, 3), 9.0, sr.LastPromptToken())
    mechanism = Without(Steered("feature", (edit,)), (feature,))
    with sr.steered(model, SAES, edit), sr.steered(model, SAES, sr.Clamp(feature, 0.0)):
        plain = sr.generate(model, TASK.prompts(model, "Number:"), max_new_tokens=8)
    assert write(model, mechanism).tokens == plain.tokens
    assert mechanism.name == "feature without L2/5" and "Held at zero: L2/5." in mechanism.describe()
    with pytest.raises(ValueError, match="no features are to be taken out"):
        Without(Direct(), ())


# side by side


@pytest.mark.parametrize("checks", [(True, None, False, True, True), (True,) * 5, None])
def test_kept_answers_are_those_that_were_written(model, tmp_path, monkeypatch, checks):
    written = dataclasses.replace(write(model, ChainOfThought()), consistent=checks)
    made = iter([written])
    monkeypatch.setattr("saereason.mechanisms.comparison.elicit", lambda *_, **__: next(made))
    run = sr.Run.open(tmp_path)
    for _ in range(2):  # computed, and read
        assert kept_answers(model, SAES, ChainOfThought(), TASK, run, max_new_tokens=8)[1] == written


def test_a_comparison_puts_every_mechanism_on_the_same_items(model, tmp_path):
    edit = sr.Add(sr.Feature(1, 3), 9.0, sr.LastPromptToken())
    mechanisms = [ChainOfThought(), Steered("feature", (edit,)), BackwardCheck(), Adapted("other", tiny_model(seed=5))]
    tasks = {"near": MANY, "far": TASK}
    seen, run = [], sr.Run.open(tmp_path)
    found = compare(model, SAES, mechanisms, tasks, run=run, max_new_tokens=6, progress=lambda *s: seen.append(s))
    names = ["direct", "CoT prompt", "feature", "backward check", "other"]
    assert [each.name for each in found.mechanisms] == names and seen == [(n, 5) for n in range(1, 6)]
    assert len(found.answers) == 5 * (12 + 5) and set(found.overlaps) == set(itertools.combinations(names[1:], 2))
    plain = elicit(model, SAES, Steered("feature", (edit,)), MANY, max_new_tokens=6)
    assert list(found.of("feature")["text"]) == list(plain.texts)
    expected = states(model, SAES, Steered("feature", (edit,)), plain)
    np.testing.assert_allclose(found.states["feature"].acts[2], expected.acts[2], atol=1e-5)
    gain = information_gain(model, MANY, "Steps:", plain.texts)
    np.testing.assert_allclose(found.gains["feature"].own, gain.own, atol=1e-5)
    table = found.summary().set_index(["mechanism", "task"])
    assert len(table) == 10 and table.loc[("direct", "near"), "change"] == 0
    assert table.loc[("feature", "near"), "gain_own"] == pytest.approx(gain.own.mean(), abs=1e-5)
    assert np.isnan(table.loc[("feature", "far"), "gain_own"])
    shares = table[["accuracy", "wrong", "unparsable", "truncated", "looping"]].sum(axis=1)
    np.testing.assert_allclose(shares, 1)


def test_a_comparison_that_is_done_is_read(model, tmp_path, monkeypatch):
    run = sr.Run.open(tmp_path)
    first = compare(model, SAES, [ChainOfThought()], {"near": MANY}, run=run, max_new_tokens=4)
    monkeypatch.setattr("saereason.mechanisms.comparison.elicit", None)
    monkeypatch.setattr("saereason.mechanisms.comparison.Thoughts.gain", None)
    again = compare(model, SAES, [ChainOfThought()], {"near": MANY}, run=run, max_new_tokens=4)
    assert again.summary().equals(first.summary())
    with pytest.raises(TypeError):
        compare(model, SAES, [ForcedPrefix("So")], {"near": MANY}, run=run, max_new_tokens=4)
    with pytest.raises(ValueError, match=r"the mechanisms are \['direct', 'CoT prompt', 'CoT prompt'\]"):
        compare(model, SAES, [ChainOfThought(), Asked("CoT prompt", "Go.")], {"near": MANY}, run=run)


def test_a_change_points_where_it_points(model):
    wrote = elicit(model, SAES, Direct(), TASK, max_new_tokens=4)
    one, other = (states(model, SAES, Steered("f", (sr.Add(sr.Feature(1, n), 6.0),)), wrote) for n in (3, 40))
    direct = states(model, SAES, Direct(), wrote)
    a, b = one.less(direct), other.less(direct)
    np.testing.assert_allclose(along(a, a), 1, atol=1e-6)
    mean = [change.acts[1].mean(0) for change in (a, b)]
    assert along(a, b)[0] == pytest.approx(mean[0] @ mean[1] / np.prod([np.linalg.norm(m) for m in mean]), abs=1e-6)
    [never] = states_at(model, SAES, Direct(), wrote, [(99, 99)])
    assert np.isnan(along(never, a)).all()


# form or inference


def test_demonstrations_of_another_form_look_alike():
    given = problems(4, seed=0, split="discovery")
    valid, invalid, irrelevant, shuffled = (
        demonstrated(given, f) for f in ("valid", "invalid", "irrelevant", "shuffled")
    )
    assert valid.examples == tuple((p.question, p.solution) for p in given)
    for n, (p, (question, text)) in enumerate(zip(given, invalid.examples, strict=True)):
        steps = re.findall(r"Step \d: (\d+) (.) (\d+) = (\d+)\.", text)
        assert question == p.question and len(steps) == len(p.steps)
        assert all(int(s[3]) != step.result and s[:3] == (str(step.left), step.sign, str(step.right))
                   for s, step in zip(steps, p.steps, strict=True))  # fmt: skip
        assert text.endswith(f"The answer is {steps[-1][3]}.")
        assert irrelevant.examples[n] == (p.question, given[(n + 1) % 4].solution)
        lines = shuffled.examples[n][1].splitlines()[:-1]
        in_order = [f"Step {k}: {step}." for k, step in enumerate(p.steps, 1)]
        assert lines != in_order and sorted(x[8:] for x in lines) == sorted(x[8:] for x in in_order)
    with pytest.raises(ValueError, match="1 problem has no other"):
        demonstrated(given[:1], "irrelevant")


def test_demonstrations_stand_before_the_question(model):
    found = write(model, Demonstrated("shown", (("2 + 2?", "It is 4."),)))
    prompts = [model.render(f"2 + 2?\nIt is 4.\n\n{item.question}\nSteps:") for item in TASK.items]
    assert found.tokens == sr.generate(model, prompts, max_new_tokens=8).tokens


def test_a_chain_is_changed_at_its_first_result_and_worked_out_anew():
    texts = (
        "Step 1: 3 + 4 = 7.\nStep 2: 7 * 2 = 14.\nThe answer is 14.",
        "Step 1: 3 + 4 = 7.\nStep 2: 5 * 2 = 10.\nThe answer is 10.",  # rests on nothing
        "Step 1: 3 + 4 = 7.\nThe answer is 7.",
        "Step 1: 3 + 4 = 7.\nStep 2: 7 - 2 = 5.\nThe answer is 9.",
        "Step 1: 9 - 4 = 5.\nStep 2: 9 + 5 = 14.\nStep 3: 14 - 2 = 12.\nThe answer is 12.",
        "Step 1: 9 - 4 = 5.\nStep 2: 9 + 5 = 14.\nStep 3: 14 - 5 = 9.\nThe answer is 9.",  # 9, whatever it is
    )
    task = dataclasses.replace(TASK, items=ITEMS[:6])
    wrote = Written(((1,),) * 6, texts, ((1,),) * 6, (True,) * 6, (1,) * 6)
    one, other = changed_chains(task, wrote)
    wrong = int(one.opening.rsplit(" ", 1)[1])
    assert one == Changed(0, f"Step 1: 3 + 4 = {wrong}", "14", str(2 * wrong)) and wrong != 7
    assert other == Changed(4, other.opening, "12", str(9 + int(other.opening.rsplit(" ", 1)[1]) - 2))


def test_an_answer_follows_a_change_or_keeps_what_it_was(model, monkeypatch):
    chains = [Changed(n, "so 5", "7", "11") for n in range(4)]
    texts = ["The answer is 11.", "The answer is 7", "The answer is 3.", "hm"]

    def made(model, prompts, *, forced, **options):  # noqa: ARG001
        assert [model.decode(row) for row in forced] == ["so 5"] * 4
        return dataclasses.replace(
            sr.generate(model, prompts, max_new_tokens=1), texts=tuple(texts), finished=(True,) * 4
        )

    monkeypatch.setattr("saereason.mechanisms.forms.generate", made)
    assert follow(model, TASK, chains) == ["follows", "keeps", "other", "none"]
    assert follow(model, TASK, []) == []


# what a thought is worth, and pass@k


def test_samples_are_counted_by_item(model):
    task = dataclasses.replace(TASK, items=tuple(dataclasses.replace(item, answer=" ") for item in ITEMS[:3]))
    edit = Steered("feature", (sr.Add(sr.Feature(1, 3), 9.0),))
    scored = dataclasses.replace(
        task, items=tuple(dataclasses.replace(x, answer="", score=lambda said: float("e" in said)) for x in task.items)
    )
    found = right_of(model, SAES, edit, scored, 6, temperature=1.0, max_new_tokens=8, seed=3)
    with sr.steered(model, SAES, *edit.interventions):
        made = sr.generate(model, scored.prompts(model, "Number:") * 6, max_new_tokens=8, temperature=1.0, seed=3)
    trial = sr.Trial.of(model, scored)
    graded = zip(made.texts, made.tokens, made.finished, strict=True)
    rights = [trial.judge(n % 3, text, tokens, finished=end) == "right" for n, (text, tokens, end) in enumerate(graded)]
    assert found.tolist() == np.reshape(rights, (6, 3)).sum(0).tolist()
    with pytest.raises(ValueError, match="temperature 0"):
        right_of(model, SAES, edit, scored, temperature=0.0)


def test_the_change_of_weights_is_by_layer():
    base, changed = tiny_model(), tiny_model()
    weight = changed.blocks[2].self_attn.q_proj.weight
    weight.data += 0.1
    found = weight_change(base, changed)
    size = sum(float(w.double().square().sum()) for w in base.blocks[2].state_dict().values()) ** 0.5
    assert found[[0, 1, 3]].tolist() == [0, 0, 0] and found[2] == pytest.approx(
        0.1 * weight.numel() ** 0.5 / size, rel=1e-4
    )
    with pytest.raises(ValueError, match="have other weights"):
        weight_change(base, tiny_model("gemma3"))


def test_information_gain_is_two_forwards(model):
    thoughts = ["so 3", "7 7", "", "11 is 9", "the 11"]
    found = information_gain(model, TASK, "Steps:", thoughts)
    bare = answer_log_probs(model, TASK, "Steps:")
    np.testing.assert_allclose(found.own, answer_log_probs(model, TASK, "Steps:", thoughts) - bare, atol=1e-5)
    assert found.own[2] == 0, "no thought"
    blank = ["so …", "7 7", "", "11 is …", "the …"]
    assert [mask_answer(text, item) for text, item in zip(thoughts, TASK.items, strict=True)] == blank
    np.testing.assert_allclose(found.masked, answer_log_probs(model, TASK, "Steps:", blank) - bare, atol=1e-5)
    turned = [*thoughts[1:], thoughts[0]]
    np.testing.assert_allclose(found.other, answer_log_probs(model, TASK, "Steps:", turned) - bare, atol=1e-5)
    assert found.own[2] == pytest.approx(0, abs=1e-5)
    alike = dataclasses.replace(TASK, items=tuple(dataclasses.replace(item, answer="3") for item in TASK.items))
    assert np.isnan(information_gain(model, alike, None, thoughts).other).all()
    with pytest.raises(ValueError, match="1 thoughts for 5 items"):
        information_gain(model, TASK, None, ["so"])


def test_an_edit_of_some_items_is_of_these_in_every_part_of_the_gain(model):
    thoughts, edit = ["so 3", "7 7", "x", "11 is 9", "the 11"], sr.Add(sr.Feature(1, 5), 30.0)
    with sr.steered(model, SAES, *sr.per_row([], [edit], [], [], [])):
        found = information_gain(model, TASK, "Steps:", thoughts)
        own, bare = (answer_log_probs(model, TASK, "Steps:", said) for said in (thoughts, None))
    np.testing.assert_allclose(found.own, own - bare, atol=1e-5)
    plain = information_gain(model, TASK, "Steps:", thoughts)
    assert abs(plain.own[1] - found.own[1]) > 1e-3
    np.testing.assert_allclose(np.delete(found.own, 1), np.delete(plain.own, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("thought", "masked"),
    [("12 and 112 and 12.5", "… and 112 and 12.5"), ("12, then 12.", "…, then …."), ("1.12 12,000", "1.12 12,000")],
)
def test_an_answer_is_masked_where_it_stands_by_itself(thought, masked):
    assert mask_answer(thought, sr.Item("a", "q", "12")) == masked


def test_pass_at_k_is_the_share_of_all_choices_of_k():
    n, right = 6, np.array([0, 1, 3, 6])
    found = pass_at_k(right, n, range(1, 7))
    for k, estimate in found.items():
        shares = []
        for c in right:
            samples = [True] * c + [False] * (n - c)
            shares.append(np.mean([any(chosen) for chosen in itertools.combinations(samples, k)]))
        assert estimate.value == pytest.approx(np.mean(shares)) and estimate.low <= estimate.value <= estimate.high
    assert found[1].value == pytest.approx(right.mean() / n)
    many = pass_at_k(np.array([50, 3]), 1000, [500])[500]
    assert many.value == pytest.approx(
        (2 - math.comb(950, 500) / math.comb(1000, 500) - math.comb(997, 500) / math.comb(1000, 500)) / 2
    )
    for bad in ((right, 5, [1]), (right, 6, [7]), (right, 6, [])):
        with pytest.raises(ValueError, match=r"give 0 to n|k must be from 1"):
            pass_at_k(*bad)


def test_tasks_asked_alike_are_asked_together_and_some_mechanisms_asked_less(model, tmp_path):
    facts = dataclasses.replace(TASK, name="facts", kind="knowledge", direct="Name:")
    far = dataclasses.replace(
        TASK, name="far", items=tuple(dataclasses.replace(item, id=f"far {item.id}") for item in TASK.items)
    )
    tasks = {"near": MANY, "far": far, "facts": facts}
    joined = together(tasks)
    assert [list(parts) for _, parts in joined] == [["near", "far"], ["facts"]]
    assert joined[0][1] == {"near": slice(0, 12), "far": slice(12, 17)} and joined[0][0].items == MANY.items + far.items
    assert len(together({"near": MANY, "again": MANY})) == 2, "an item of two tasks is asked twice"
    edit, run = Steered("f", (sr.Add(sr.Feature(1, 3), 9.0),)), sr.Run.open(tmp_path)
    found = compare(model, SAES, [ChainOfThought()], tasks, run=run, fewer=[edit], max_new_tokens=6)
    for name in ("near", "far"):
        alone = elicit(model, SAES, ChainOfThought(), tasks[name], max_new_tokens=6)
        assert list(found.of("CoT prompt", name)["text"]) == list(alone.texts)
    asked = found.answers[found.answers["mechanism"] == "f"]
    assert set(asked["task"]) == {"near", "facts"} and len(found.summary()) == 3 + 3 + 2
    assert found.written["f"].texts == elicit(model, SAES, edit, MANY, max_new_tokens=6).texts


def test_a_thought_is_scored_once_however_often_it_is_asked_about(model, monkeypatch):
    scored, asked = Thoughts(model, TASK, "Steps:"), []
    plain = log_probs_after

    def counted(model, items, shared):
        asked.append(len(items))
        return plain(model, items, shared)

    monkeypatch.setattr("saereason.effects.thoughts.log_probs_after", counted)
    thoughts = ["so 3", "7 7", "", "11 is 9", "the 11"]
    first, again = scored.gain(thoughts), scored.gain(thoughts)
    np.testing.assert_array_equal(first.own, again.own)
    assert sum(asked) == len(scored.known) and sum(asked) < 4 * len(TASK)
    alone = [answer_log_probs(model, TASK, "Steps:", [said] * 5)[n] for n, said in enumerate(thoughts)]
    np.testing.assert_allclose(scored.log_probs(thoughts)[0], alone, atol=1e-5)
    with pytest.raises(ValueError, match="there are 1 thoughts for 5 items"):
        scored.gain(["so"])
