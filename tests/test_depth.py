"""What the layer lab reads beside the battery: logit lens, matching, fast and slow, similarity."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

import saereason as sr
from saereason.effects import answer_log_probs
from saereason.layers import Curve, compare_adjusted, compare_depth, fast_slow, matched, take, unshared
from saereason.layers.lens import unembedded
from saereason.layers.matching import COVARIATES, covariates
from saereason.layers.similarity import similarities
from saereason.layers.states import last_states
from saereason.metrics import LogProb, Scored
from saereason.stats import cka_error, linear_cka

RIGHT, WRONG, UNPARSABLE, TRUNCATED, LOOPING = sr.Outcome
PROMPTS = ["Tom has 3 apples.", "2 + 2 =", "How many birds are left?", "Hi"]


# the logit lens


def test_the_depth_of_an_answer_is_where_it_can_be_read_and_stays(any_model, tmp_path):
    """Against plain passes, one text at a time: what each layer would say, and from where on that is right."""
    written = sr.generate(any_model, PROMPTS, max_new_tokens=3).texts  # so that the last layer is right
    metric = LogProb.of(any_model, PROMPTS, [text or "?" for text in written], batch_size=3)
    found = sr.answer_depths(any_model, sr.Family("own", "neutral", metric), run=sr.Run.open(tmp_path))
    plain = copy.deepcopy(any_model.hf)  # transformers leaves hooks on a model that it reads
    for n, item in enumerate(metric.items):
        tokens = torch.tensor([item.prompt + item.continuation])
        states = plain(tokens, output_hidden_states=True).hidden_states
        depths = []
        for k, token in enumerate(item.continuation):
            at = len(item.prompt) + k - 1
            says = [int(unembedded(any_model, h[0, at : at + 1]).argmax()) == token for h in states[1:-1]]
            says.append(int(any_model.hf(tokens).logits[0, at].argmax()) == token)
            if says[-1]:
                depths.append(max((i + 1 for i, right in enumerate(says) if not right), default=0))
        assert found.share_right[n] == pytest.approx(len(depths) / len(item.continuation))
        assert found.layer[n] == pytest.approx(np.mean(depths)) if depths else np.isnan(found.layer[n])
    assert np.nanmax(found.layer) > 0


def test_the_lens_is_that_of_transformer_lens(model):
    bridge = model.bridge()
    tokens = torch.tensor([model.encode("How many birds are left?")])
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens)
        resid = sr.hooks.read(model, model_batch(tokens), range(model.n_layers))
        for layer in range(model.n_layers):
            theirs = bridge.unembed(bridge.ln_final(cache[f"blocks.{layer}.hook_out"]))
            ours = unembedded(model, resid[layer][0])
            torch.testing.assert_close(ours.log_softmax(-1), theirs[0].log_softmax(-1), atol=1e-3, rtol=0)


def model_batch(tokens):
    from saereason.model import Batch

    return Batch(tokens, torch.ones_like(tokens).bool())


# matching


def family_with(lengths, clean, drop, name):
    """A family whose items have prompts of these lengths, and a curve with these values."""
    items = tuple(Scored((5,) * int(n), (6, 7), (False, True)) for n in lengths)
    family = sr.Family(name, "reasoning", LogProb(items))
    return family, Curve(name, "reasoning", "skip block", tuple(range(drop.shape[1])), drop.shape[1], drop, clean)


def drawn(mean, n, slope, profile, seed, name):
    """Items whose effect grows with their prompt's length."""
    rng = np.random.default_rng(seed)
    lengths = np.maximum(2, rng.normal(mean, 6, n).round())
    drop = (1 + slope * lengths)[:, None] * np.asarray(profile) + 0.05 * rng.standard_normal((n, len(profile)))
    return family_with(lengths, rng.normal(-1, 0.3, n), drop, name)


def test_matched_items_are_alike_and_the_share_kept_is_told():
    first, second = drawn(20, 80, 0, [1, 1, 1.0], 0, "a"), drawn(26, 90, 0, [1, 1, 1.0], 1, "b")
    found = matched(first, second)
    assert found.kept == len(found.first) / 80 == len(found.second) / 80 and 0.5 <= found.kept < 1
    assert len(set(found.first)) == len(found.first) and len(set(found.second)) == len(found.second)
    assert abs(found.before["prompt tokens"]) > 0.7 and abs(found.after["prompt tokens"]) < 0.35
    assert set(found.after) == set(COVARIATES) - {"answer is a number"}, "at which nobody looked"
    a, b = covariates(*first)[list(found.first)], covariates(*second)[list(found.second)]
    spread = np.sqrt((covariates(*first).var(0) + covariates(*second).var(0)) / 2)
    known = np.isfinite(spread)
    assert (np.abs(a - b) <= 0.5 * np.where(spread > 0, spread, 1) + 1e-9)[:, known].all()
    assert take(first[1], found.first).drop.shape == (len(found.first), 3)


def test_families_that_cannot_be_matched_are_refused():
    with pytest.raises(ValueError, match=r"of a and b are alike, 0% of the smaller family; under 50%"):
        matched(drawn(10, 40, 0, [1, 1.0], 0, "a"), drawn(90, 40, 0, [1, 1.0], 1, "b"))
    first, second = drawn(20, 40, 0, [1, 1.0], 0, "a"), drawn(20, 40, 0, [1, 1.0], 1, "b")
    with pytest.raises(ValueError, match="give the curve that `localise` made of it"):
        matched((first[0], second[1]), second)


LENGTHS = (10, 100), (90, 5)


def test_covariates_in_which_families_do_not_meet_are_named():
    first = drawn(20, 80, 0, [1, 1.0], 0, "a")
    assert unshared(first, drawn(26, 90, 0, [1, 1.0], 1, "b")) == ()
    assert unshared(first, drawn(90, 40, 0, [1, 1.0], 1, "b")) == ("prompt tokens",)
    wide = family_with([*range(2, 80)], first[1].clean[:78], np.ones((78, 2)), "wide")
    assert unshared(first, wide) == unshared(wide, first) == (), "one lies within the other"
    short, long = (family_with([one] * 39 + [out], first[1].clean[:40], np.ones((40, 2)), "c") for one, out in LENGTHS)
    assert unshared(short, long) == ("prompt tokens",), "whatever one outlier a side does"


def test_what_a_covariate_explains_is_taken_out():
    """Layer 2 matters more for long prompts, in both families alike; the families differ in length alone."""
    rng, curves = np.random.default_rng(0), []
    for n, mean in enumerate((15, 40)):
        lengths = np.maximum(2, rng.normal(mean, 5, 300).round())
        drop = np.stack([np.ones(300), np.ones(300), 0.1 * lengths], axis=1) + 0.05 * rng.standard_normal((300, 3))
        curves.append(family_with(lengths, rng.normal(-1, 0.3, 300), drop, "ab"[n]))
    raw, even = compare_depth(curves[0][1], curves[1][1]), compare_adjusted(*curves)
    assert raw.high < -0.05 and abs(even.centroid_difference) < 0.02


def test_the_interval_without_covariates_holds_the_slopes_too():
    """Families that differ in length alone and hardly meet in it: with slopes as if they were known, 75%."""
    held = []
    for seed in range(60):
        rng, sides = np.random.default_rng(seed), []
        for name, mean in (("a", 15), ("b", 30)):
            lengths = np.maximum(2, rng.normal(mean, 6, 24).round())
            drop = np.ones((24, 4)) + 0.5 * rng.standard_normal((24, 4))
            sides.append(family_with(lengths, rng.normal(-1, 0.3, 24), drop, name))
        found = compare_adjusted(*sides, n_resamples=300, seed=seed)
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) >= 0.87


def test_effects_that_are_not_finite_are_told_of():
    first, second = (drawn(20, 12, 0, [1, 1.0], n, "ab"[n]) for n in range(2))
    second[1].drop[0, 0] = np.nan
    assert "1 of 12 items of b have effects that are not finite" in compare_adjusted(first, second).statement


def test_numbers_and_words_are_not_alike():
    first, second = drawn(20, 40, 0, [1, 1.0], 0, "a"), drawn(20, 40, 0, [1, 1.0], 1, "b")
    numbers = dataclasses.replace(first[0], numeric=(True,) * 40)
    with pytest.raises(ValueError, match="0% of the smaller family"):
        matched((numbers, first[1]), (dataclasses.replace(second[0], numeric=(False,) * 40), second[1]))
    words = dataclasses.replace(second[0], numeric=(False,) * 40)
    assert unshared((numbers, first[1]), (words, second[1])) == ("answer is a number",)
    assert unshared((numbers, first[1]), second) == (), "nobody looked at the second"
    assert "answer is a number" not in matched((numbers, first[1]), second).before
    with pytest.raises(ValueError, match="numeric has 2 values for 40 items"):
        dataclasses.replace(first[0], numeric=(True, False))
    with pytest.raises(ValueError, match="compare curves over the same layers"):
        compare_adjusted(first, drawn(20, 40, 0, [1, 1, 1.0], 1, "b"))


# fast and slow


def test_thinking_is_taken_apart():
    fast = [RIGHT] * 4 + [WRONG] * 4 + [UNPARSABLE, TRUNCATED]
    slow = [RIGHT] * 3 + [WRONG] + [RIGHT] * 2 + [WRONG] * 2 + [RIGHT, LOOPING]
    found = fast_slow("sums", fast, slow)
    assert (found.n, found.fast.value, found.slow.value) == (10, 0.4, 0.6)
    assert (found.corrected.value, found.overthought.value) == (0.3, 0.1)
    assert found.delta.value == pytest.approx(found.corrected.value - found.overthought.value)
    assert (found.corrects.value, found.overthinks.value) == (0.5, 0.25)
    parsed = fast_slow("sums", fast, [each.value for each in slow], parsed_only=True)
    assert parsed.n == 8 and parsed.corrected.value == 2 / 8


@pytest.mark.parametrize("seed", range(20))
def test_delta_is_what_is_corrected_less_what_is_overthought(seed):
    rng = np.random.default_rng(seed)
    fast, slow = (list(rng.choice(list(sr.Outcome), 37)) for _ in range(2))
    found = fast_slow("any", fast, slow)
    assert found.delta.value == pytest.approx(found.corrected.value - found.overthought.value, abs=1e-12)
    assert found.delta.low <= found.delta.value <= found.delta.high


def test_outcomes_that_are_not_paired_are_refused():
    with pytest.raises(ValueError, match="2 fast and 1 slow outcomes of sums"):
        fast_slow("sums", [RIGHT, WRONG], [RIGHT])
    with pytest.raises(ValueError, match="sums has no items that are parsed in both"):
        fast_slow("sums", [UNPARSABLE], [RIGHT], parsed_only=True)
    assert fast_slow("sums", [RIGHT], [RIGHT]).corrects is None


# similarity


def test_cka_is_its_definition_and_knows_neither_rotation_nor_scale():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((12, 5)), rng.standard_normal((12, 7))
    centring = np.eye(12) - 1 / 12
    k, m = centring @ a @ a.T @ centring, centring @ b @ b.T @ centring
    expected = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())  # HSIC of the two kernels, Gretton et al. 2005
    assert linear_cka(a, b) == pytest.approx(expected, rel=1e-12) == linear_cka(b, a)
    turn = np.linalg.qr(rng.standard_normal((7, 7)))[0]
    assert linear_cka(a, 3 * b @ turn + 1) == pytest.approx(expected, rel=1e-10)
    assert linear_cka(b, b @ turn) == pytest.approx(1)
    assert np.isnan(linear_cka(a, np.ones((12, 2)))) and np.isnan(cka_error(a, np.ones((12, 2))))
    without = [linear_cka(np.delete(a, n, 0), np.delete(b, n, 0)) for n in range(12)]
    assert cka_error(a, b) == pytest.approx(np.sqrt(11 / 12 * np.sum((without - np.mean(without)) ** 2)), rel=1e-9)
    with pytest.raises(ValueError, match="one item has no alignment"):
        linear_cka(a[:1], b[:1])


def test_states_are_those_of_each_prompt_by_itself(any_model):
    found, plain = (
        last_states(any_model, [any_model.encode(p) for p in PROMPTS], batch_size=3),
        copy.deepcopy(any_model.hf),
    )
    for n, prompt in enumerate(PROMPTS):
        tokens = torch.tensor([any_model.encode(prompt)])
        hidden = plain(tokens, output_hidden_states=True).hidden_states
        for layer in range(any_model.n_layers - 1):
            np.testing.assert_allclose(found[layer, n], hidden[layer + 1][0, -1].detach().numpy(), atol=1e-4)


def test_similarity_comes_with_its_nulls(model):
    items = [f"{a} + {b}" for a in range(5) for b in range(4)]
    fast = ([f"{item} =" for item in items], [f"{item} is" for item in items])
    slow = ([f"{item}? Think." for item in items], [f"{item}? Go slowly." for item in items])
    found = similarities(model, fast, slow, random_model=dataclasses.replace(model, name="other"))
    assert [one.is_null for one in found] == [False, True, True, True, True]
    assert all(one.cka.shape == (4,) and (one.cka >= 0).all() and (one.cka <= 1 + 1e-9).all() for one in found)
    np.testing.assert_allclose(found[0].cka, found[4].cka)
    assert (found[3].cka < found[1].cka).all() and all((one.error >= 0).all() for one in found)
    with pytest.raises(ValueError, match="give two wordings of each, for the same items"):
        similarities(model, (fast[0], fast[1][:3]), slow)


def test_answers_are_scored_after_a_thought_as_after_the_same_text(model):
    task = sr.Task("made", "reasoning", tuple(sr.Item(str(n), f"{n} + 1 =", str(n + 1)) for n in range(3)))
    thoughts = ["so 1", "", "that is 3"]
    prompts = [p.text for p in task.prompts(model, "Go on.")]
    ends = [f"{p}{t}\nThe answer is" if t else f"{p}The answer is" for p, t in zip(prompts, thoughts, strict=True)]
    expected = LogProb.of(model, ends, [f" {item.answer}" for item in task.items])(model).numpy()
    found = answer_log_probs(model, task, "Go on.", thoughts)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    long = answer_log_probs(model, task, "Go on.", ["x" * 600, "", ""])
    assert np.isnan(long[0]) and np.isfinite(long[1:]).all()
    with pytest.raises(ValueError, match="there are 1 thoughts for 3 items"):
        answer_log_probs(model, task, None, ["so"])
