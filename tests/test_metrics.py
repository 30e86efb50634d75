"""Log-probabilities, which tokens they are of, and what interventions do to them."""

import numpy as np
import pytest
import torch
from conftest import tiny_model

from saereason import (
    Add,
    After,
    Effect,
    Everywhere,
    Feature,
    Generated,
    LastPromptToken,
    LogProb,
    Metric,
    Patch,
    Scale,
    ScaleBlock,
    SilentEditError,
    Steps,
    hooks,
    measure,
    per_row,
    steered,
)
from saereason.metrics import Scored, log_probs_after
from saereason.prefixes import Prefixes

PROMPTS = ["Tom has 3 apples.", "2 + 2 =", "How many birds are left on the roof?", "Hi"]
TEXTS = ["He has 3 + 4 = 7.", " 4", "10 - 3 = 7. 7 + 12 = 19.", "x"]


def spans_of(text):
    """The digits after each equals sign."""
    ends = [n + 2 for n, c in enumerate(text) if c == "="]
    return [(start, start + len(text[start:].split(".")[0])) for start in ends] or [(0, len(text))]


def naive(model, prompt, text, scored):
    """Mean log-probability of some characters, one item at a time, from the plain model."""
    before, after = model.encode(prompt), model.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        said = model.hf(input_ids=torch.tensor([before + after])).logits[0].log_softmax(-1)
    values = [said[len(before) + n - 1, token].item() for n, token in enumerate(after) if n in scored]
    return float(np.mean(values))


def test_the_log_probability_is_what_a_plain_loop_gives(any_model):
    metric = LogProb.of(any_model, PROMPTS, TEXTS)
    assert isinstance(metric, Metric) and len(metric) == 4
    expected = [naive(any_model, p, t, range(len(t))) for p, t in zip(PROMPTS, TEXTS, strict=True)]
    np.testing.assert_allclose(metric(any_model), expected, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_batch_does_not_matter(any_model, batch_size):
    whole, parts = (LogProb.of(any_model, PROMPTS, TEXTS, batch_size=size) for size in (32, batch_size))
    torch.testing.assert_close(parts(any_model), whole(any_model), atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize("edited", [False, True])
def test_what_begins_alike_is_read_once_and_scored_as_by_itself(any_model, batch_size, edited, monkeypatch):
    """Several ends of several questions, the longest beyond a sliding window, scored in part."""
    any_model.hf(input_ids=torch.tensor([[5, 6]]), output_hidden_states=True)  # transformers leaves hooks of its own
    ran, run = [], hooks.run
    monkeypatch.setattr(hooks, "run", lambda m, rows, *a, **k: ran.append(rows.tokens.shape) or run(m, rows, *a, **k))
    items, shared = [], []
    for end in (" so:", " it is", ", " + "and " * 30):
        for item in LogProb.of(any_model, PROMPTS, TEXTS, [spans_of(text) for text in TEXTS]).items:
            more = any_model.tokenizer(end, add_special_tokens=False)["input_ids"]
            items.append(Scored((*item.prompt, *more), item.continuation, item.scored))
            shared.append(len(item.prompt))
    with steered(any_model, None, *([ScaleBlock(1, 0.5, when=Generated())] if edited else [])):
        expected = LogProb(tuple(items))(any_model)
        ran.clear()
        found = log_probs_after(any_model, items, shared, batch_size=batch_size)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    if batch_size == 32:
        assert [shape[0] for shape in ran] == ([12] if edited else [4, 12])


@pytest.mark.parametrize("when", [LastPromptToken(), Generated(), Steps(1, 2), After(" "), Everywhere(), None])
def test_prompts_that_no_edit_visits_are_read_once_for_all_edits(any_model, when, monkeypatch):
    passes, run = [], hooks.run
    edits = [[] if when is None else [ScaleBlock(layer, 0.5, when=when)] for layer in (0, 1)]
    items = LogProb.of(any_model, PROMPTS[:3], TEXTS[:3], [spans_of(text) for text in TEXTS[:3]]).items
    plain, kept = LogProb(items), LogProb(items, prefixes=Prefixes())
    expected, found = [], []
    for metric, into in ((plain, expected), (kept, found)):
        for each in edits:
            with steered(any_model, None, *each, may_be_silent=True) as model_receipt:
                into.append(metric(any_model))
            into.append(model_receipt.receipt)
        monkeypatch.setattr(hooks, "run", lambda m, rows, *a, **k: passes.append(a) or run(m, rows, *a, **k))
    for one, other in zip(expected[::2], found[::2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    for one, other in zip(expected[1::2], found[1::2], strict=True):
        assert [(e.firings, e.positions, e.rows) for e in one.edits] == [
            (e.firings, e.positions, e.rows) for e in other.edits
        ]
    assert len(passes) == (2 if when == Everywhere() else 3)


@pytest.mark.parametrize("kind", ["long positions", "convolutions", "a layer without keys"])
def test_where_little_can_be_shared_the_numbers_are_the_same(kind):
    """The prompts end before the rotary frequencies of the one change, the longest item after."""
    from test_generate import odd_model

    model = odd_model(kind)
    items = LogProb.of(model, ["Tom has", "2 + 2 ="], ["x" * 40, " 4"]).items
    expected = LogProb(items)(model)
    torch.testing.assert_close(LogProb(items, prefixes=Prefixes())(model), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(log_probs_after(model, items, [3, 5]), expected, atol=1e-4, rtol=0)


def test_what_is_not_shared_in_part_is_refused(model):
    items = LogProb.of(model, PROMPTS[:1], TEXTS[:1]).items
    for shared in (0, len(items[0].prompt)):
        with pytest.raises(ValueError, match="of every prompt some tokens must be shared and some not"):
            log_probs_after(model, items, [shared])
    with pytest.raises(ValueError, match="an item has 601 tokens and the context"):
        log_probs_after(model, [Scored((5,) * 600, (6,), (True,))], [7])


def test_items_keep_their_order_and_progress_counts_them(model):
    done = []
    items = LogProb.of(model, PROMPTS, TEXTS).items
    metric = LogProb(items, 3, done.append)
    turned = LogProb(tuple(reversed(items)), 3)
    assert torch.allclose(metric(model), turned(model).flip(0), atol=1e-4)
    assert done == [3, 1]


def test_spans_choose_the_tokens_that_reach_into_them(model):
    spans = [spans_of(text) for text in TEXTS]
    metric = LogProb.of(model, PROMPTS, TEXTS, spans)
    chosen = [
        "".join(c for c, s in zip(t, i.scored, strict=True) if s) for t, i in zip(TEXTS, metric.items, strict=True)
    ]
    assert chosen == ["7", " 4", "719", "x"]
    expected = [
        naive(model, p, t, {n for a, b in s for n in range(a, b)})
        for p, t, s in zip(PROMPTS, TEXTS, spans, strict=True)
    ]
    np.testing.assert_allclose(metric(model), expected, atol=1e-4)


def test_digits_only_leaves_out_all_else(model):
    metric = LogProb.of(model, PROMPTS[:3], TEXTS[:3], digits_only=True)
    expected = [
        naive(model, p, t, {n for n, c in enumerate(t) if c.isdigit()})
        for p, t in zip(PROMPTS[:3], TEXTS[:3], strict=True)
    ]
    np.testing.assert_allclose(metric(model), expected, atol=1e-4)


def test_a_chat_prompt_is_scored_as_rendered(model):
    shown = model.render("Why?")
    (item,) = LogProb.of(model, [shown], ["x"]).items
    assert list(item.prompt) == model.encode(shown) and model.decode(item.continuation) == "x"


@pytest.mark.parametrize(
    ("text", "spans", "digits_only"),
    [
        ("", [(0, 0)], False),
        ("abc", [(3, 9)], False),
        ("abc", [(2, 2)], False),
        ("abc", [], False),
        ("abc", [(0, 3)], True),
        ("abc 5", [(0, 5), (7, 9)], False),
        ("abc 5", [(0, 3), (4, 5)], True),
    ],
)
def test_a_span_without_tokens_is_refused(model, text, spans, digits_only):
    with pytest.raises(ValueError, match="is to be scored"):
        LogProb.of(model, ["Why?"], [text], [spans], digits_only=digits_only)


def test_items_that_cannot_be_scored_are_refused(model):
    with pytest.raises(ValueError, match="zip"):
        LogProb.of(model, PROMPTS, TEXTS[1:])
    with pytest.raises(ValueError, match="the prompt has no tokens"):
        LogProb.of(model, [""], ["x"])
    with pytest.raises(ValueError, match="0 of 2 tokens are scored"):
        Scored((1,), (2, 3), (False, False))
    with pytest.raises(ValueError, match="2 of 1 tokens are scored"):
        Scored((1,), (2,), (True, True))
    with pytest.raises(ValueError, match="nothing predicts the first"):
        Scored((), (2,), (True,))
    with pytest.raises(ValueError, match="an item has 600 tokens and the context of tiny-llama is 512"):
        LogProb.of(model, ["x" * 300], ["y" * 300])(model)
    assert LogProb(())(model).shape == (0,)


# effects


def test_an_effect_is_edited_less_clean_for_each_intervention_on_its_own(model, topk_saes):
    metric = LogProb.of(model, PROMPTS, TEXTS)
    edits = [ScaleBlock(1, 0.0), Add(Feature(2, 5), 4.0), ScaleBlock(3, 1.0)]
    done = []
    effects = measure(model, topk_saes, metric, edits, progress=done.append)
    assert done == [1, 2, 3]
    for effect, edit in zip(effects, edits, strict=True):
        with steered(model, topk_saes, edit):
            edited = metric(model)
        assert effect.intervention is edit
        assert torch.equal(effect.edited, edited) and torch.equal(effect.clean, metric(model))
        assert torch.equal(effect.delta, edited - metric(model))
    assert effects[0].delta.abs().min() > 0.01 and torch.equal(effects[2].delta, torch.zeros(4, dtype=torch.float64))


def test_the_clean_run_is_made_once(model):
    calls = []

    def metric(_):
        calls.append(1)
        return LogProb.of(model, ["a"], ["b"])(model)

    measure(model, None, metric, [ScaleBlock(n, 0.5) for n in range(3)])
    assert len(calls) == 4
    assert measure(model, None, metric, []) == []


def test_an_intervention_that_does_nothing_is_an_error_and_the_model_stays_as_it_was(model, topk_saes):
    metric = LogProb.of(model, PROMPTS, TEXTS)
    before = metric(model)
    with pytest.raises(SilentEditError, match="never fired"):
        measure(model, topk_saes, metric, [Scale(Feature(1, 3), 2.0, when=Steps(900, 901))])
    with pytest.raises(ValueError, match="layer 9"):
        measure(model, topk_saes, metric, [Add(Feature(9, 0), 1.0)])
    assert torch.equal(metric(model), before)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_rows_are_the_places_of_the_items(topk_saes, batch_size):
    model = tiny_model()
    metric = LogProb.of(model, PROMPTS, TEXTS, batch_size=batch_size)
    others = [prompt[::-1] + text for prompt, text in zip(PROMPTS, TEXTS, strict=True)]
    [patched] = measure(model, None, metric, [Patch.of(model, 1, others)])
    for n, other in enumerate(others):
        alone = LogProb.of(model, PROMPTS[n : n + 1], TEXTS[n : n + 1])
        [one] = measure(model, None, alone, [Patch.of(model, 1, [other])])
        assert patched.edited[n].item() == pytest.approx(one.edited.item(), abs=1e-4)
    with steered(model, topk_saes, *per_row([], [], [Add(Feature(1, 3), 20.0)], [])):
        moved = (metric(model) - patched.clean).abs() > 1e-3
    assert moved.tolist() == [False, False, True, False]


def test_the_last_token_is_not_run_since_nothing_after_it_is_scored(model, topk_saes):
    metric = LogProb.of(model, PROMPTS, ["a", "b", "c", "d"])
    with pytest.raises(SilentEditError, match="never fired"):
        measure(model, topk_saes, metric, [Add(Feature(1, 3), 8.0, Generated())])
    [effect] = measure(model, topk_saes, LogProb.of(model, ["Hi"], ["abc"]), [Add(Feature(1, 3), 8.0, Generated())])
    assert effect.delta.abs() > 1e-3


def test_an_effect_is_told_item_by_item():
    clean, edited = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 1.0])
    assert Effect(ScaleBlock(3, 0.0), clean, edited).delta.tolist() == [0.5, -1.0]
