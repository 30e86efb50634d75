"""Activation patching between texts that are alike but for what is asked of."""

import copy

import numpy as np
import pytest
import torch

import saereason as sr
from saereason.layers.contrasts import POSITIONS, Contrast, contrasts
from saereason.layers.patching import ARRIVAL, patching
from saereason.metrics import LogProb, Scored
from saereason.plots import plot_patching
from saereason.tasks import confirmation_task


def contrast(rng, n_prompt, n_steps, *, differ=(2, 3)):
    clean = rng.integers(5, 60, size=n_prompt + n_steps)
    corrupted = clean.copy()
    for place in differ:
        corrupted[place] = (corrupted[place] + 7 - 5) % 55 + 5
    answers = tuple(int(n) for n in rng.choice(np.arange(5, 60), 2, replace=False))
    return Contrast(tuple(clean.tolist()), tuple(corrupted.tolist()), n_prompt, answers)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    made = [contrast(rng, 8, 4), contrast(rng, 6, 5, differ=(1, 8)), contrast(rng, 9, 0), contrast(rng, 7, 2)]
    return [*made, *(contrast(rng, 10 + n % 3, n % 4) for n in range(16))]


def by_hand(model, pair, base, source, layer, places):
    """One text at a time, without a cache, by a hook of our own: the logit difference of the patched run."""
    hf, found = copy.deepcopy(model.hf), {}
    ids = {name: torch.tensor([getattr(pair, name)]) for name in (base, source)}

    def keep(module, args, output):  # noqa: ARG001
        found["resid"] = (output[0] if isinstance(output, tuple) else output).clone()

    def put(module, args, output):  # noqa: ARG001
        resid = output[0] if isinstance(output, tuple) else output
        resid[:, places] = found["resid"][:, places]

    def block():
        return dict(hf.named_modules())[next(n for n, m in model.hf.named_modules() if m is model.blocks[layer])]

    handle = block().register_forward_hook(keep)
    hf(ids[source])
    handle.remove()
    block().register_forward_hook(put)
    logits = hf(ids[base]).logits[0, -1]
    return float(logits[pair.answers[0]] - logits[pair.answers[1]])


@torch.no_grad()
def test_patching_is_what_hooks_by_hand_give(any_model, pairs, tmp_path):
    found = patching(any_model, pairs, family="letters", kind="neutral", run=sr.Run.open(tmp_path), layers=[0, 2, 3])
    assert found.restored.shape == found.broken.shape == (20, 5, 3) and found.layers == (0, 2, 3)
    for n in (0, 1, 2, 3, 11):
        pair, classes = pairs[n], pairs[n].classes()
        assert sum(mask.sum() for mask in classes.values()) == len(pair.clean) + (len(pair.clean) == pair.n_prompt)
        for p, position in enumerate(POSITIONS):
            places = classes[position]
            if not places.any():
                assert np.isnan(found.restored[n, p]).all() and np.isnan(found.broken[n, p]).all()
                continue
            for k, layer in enumerate(found.layers):
                into = by_hand(any_model, pair, "corrupted", "clean", layer, places)
                out = by_hand(any_model, pair, "clean", "corrupted", layer, places)
                assert into - found.corrupted[n] == pytest.approx(found.restored[n, p, k], abs=1e-4)
                assert found.clean[n] - out == pytest.approx(found.broken[n, p, k], abs=1e-4)
    assert np.nanmax(np.abs(found.restored)) > 0.1


def test_what_is_the_same_in_both_runs_carries_nothing_and_the_last_layers_answer_all(model, pairs, tmp_path):
    found = patching(model, pairs, family="letters", kind="neutral", run=sr.Run.open(tmp_path))
    np.testing.assert_allclose(found.restored[:, POSITIONS.index("answer"), -1], found.total, atol=1e-4)
    np.testing.assert_allclose(found.broken[:, POSITIONS.index("answer"), -1], found.total, atol=1e-4)
    others = [POSITIONS.index(name) for name in ("question", "numbers or subject", "steps")]
    np.testing.assert_allclose(np.nan_to_num(found.restored[:, others, -1]), 0, atol=1e-4)
    same = [Contrast(pair.clean, pair.clean, pair.n_prompt, pair.answers) for pair in pairs]
    nothing = patching(model, same, family="same", kind="neutral", run=sr.Run.open(tmp_path))
    np.testing.assert_allclose(np.nan_to_num(nothing.restored), 0, atol=1e-5)
    curve = found.arrival()
    assert (curve.operator, curve.family, curve.layers) == (ARRIVAL, "letters", (0, 1, 2, 3))
    np.testing.assert_allclose(curve.drop.sum(1), found.total, atol=1e-4)


def test_patching_goes_on_where_it_was_stopped(model, pairs, tmp_path):
    seen = []
    options = {"family": "letters", "kind": "neutral", "layers": [1], "run": sr.Run.open(tmp_path)}
    first = patching(model, pairs[:16], **options)
    [file] = (tmp_path / "results").iterdir()
    written = file.stat().st_mtime_ns
    again = patching(model, pairs[:16], progress=lambda *done: seen.append(done), **options)
    assert file.stat().st_mtime_ns == written and seen == [(16, 16)]
    np.testing.assert_array_equal(first.restored, again.restored)
    with pytest.raises(ValueError, match="0 contrasts of letters at 1 layers were given"):
        patching(model, [], **options)
    with pytest.raises(ValueError, match="no layer 4"):
        patching(model, pairs, **(options | {"layers": [4]}))


def test_patching_agrees_with_transformer_lens(model, tmp_path):
    """Its `patching` on the bridge patches the residual stream before a block, one position at a time."""
    from transformer_lens.patching import get_act_patch_resid_pre

    rng = np.random.default_rng(3)
    pair = contrast(rng, 7, 0, differ=(3,))
    found = patching(model, [pair], family="letters", kind="neutral", run=sr.Run.open(tmp_path))
    bridge = model.bridge()
    clean, corrupted = (torch.tensor([getattr(pair, name)]) for name in ("clean", "corrupted"))
    _, cache = bridge.run_with_cache(clean)

    def difference(logits):
        return (logits[0, -1, pair.answers[0]] - logits[0, -1, pair.answers[1]]).detach()

    theirs = get_act_patch_resid_pre(bridge, corrupted, cache, difference).numpy()
    for layer in (0, 1, 2):  # after block l is before block l + 1
        for position, column in (("numbers or subject", 3), ("last prompt token", 6)):
            ours = found.corrupted[0] + found.restored[0, POSITIONS.index(position), layer]
            assert theirs[layer + 1, column] == pytest.approx(ours, abs=1e-3)


def test_the_heat_map_holds_the_share_that_comes_along(model, pairs, tmp_path):
    found = patching(model, pairs, family="letters", kind="neutral", run=sr.Run.open(tmp_path))
    figure = plot_patching(found)
    into, out = (np.array(trace.z, dtype=float) for trace in figure.data)
    answer = POSITIONS.index("answer")
    np.testing.assert_allclose([into[answer, -1], out[answer, -1]], 1, atol=1e-3)
    steps = POSITIONS.index("steps")
    there = np.isfinite(found.restored[:, steps, 0])
    expected = found.restored[there, steps].sum(0) / found.total[there].sum()
    np.testing.assert_allclose(into[steps], expected, atol=1e-9)
    low, high = np.moveaxis(np.array(figure.data[0].customdata, dtype=float), -1, 0)
    assert (low <= into + 1e-9).all() and (into <= high + 1e-9).all()
    same = [Contrast(pair.clean, pair.clean, pair.n_prompt, pair.answers) for pair in pairs[:4]]
    nothing = patching(model, same, family="same", kind="neutral", run=sr.Run.open(tmp_path))
    with pytest.raises(ValueError, match="the two runs of same do not differ"):
        plot_patching(nothing)


# contrasts


def test_word_problems_are_paired_with_others_of_their_template(model):
    family = sr.family_of(model, confirmation_task(n=80))
    found = contrasts(family, 20)
    texts = {item.prompt + item.continuation for item in family.metric.items}
    assert 2 <= len(found) <= 20
    for pair in found:
        assert len(pair.clean) == len(pair.corrupted) and pair.answers[0] != pair.answers[1]
        for text, answer in zip((pair.clean, pair.corrupted), pair.answers, strict=True):
            assert any(whole[: len(text) + 1] == (*text, answer) for whole in texts)
        differ = sum(a != b for a, b in zip(pair.clean[: pair.n_prompt], pair.corrupted, strict=False))
        assert 0 < differ <= pair.n_prompt / 4
    assert contrasts(family, 20) == found != contrasts(family, 20, seed=1)


def test_the_answers_part_at_the_last_scored_token_that_differs():
    items = (
        Scored((5, 6, 7, 8), (10, 11, 12, 13), (False, True, False, True)),
        Scored((5, 6, 9, 8), (10, 14, 12, 13), (False, True, False, True)),
        Scored((5, 6, 9, 8), (10, 14, 12, 15), (False, True, False, True)),
        Scored((1, 2, 3, 4), (10, 14, 12, 16), (False, True, False, True)),
    )
    family = sr.Family("made", "reasoning", LogProb(items))
    found = {pair.clean: pair for seed in range(20) for pair in contrasts(family, seed=seed)}
    assert found[5, 6, 7, 8, 10].corrupted == (5, 6, 9, 8, 10) and found[5, 6, 7, 8, 10].answers == (11, 14)
    assert found[5, 6, 9, 8, 10].corrupted == (5, 6, 7, 8, 10) and found[5, 6, 9, 8, 10].answers == (14, 11)
    assert found[5, 6, 9, 8, 10, 14, 12].corrupted == (5, 6, 7, 8, 10, 11, 12)
    assert found[5, 6, 9, 8, 10, 14, 12].answers == (15, 13)


def test_the_answers_part_where_the_last_result_begins_to_differ():
    scored = (False, True, True, False, True, True, True)
    items = (
        Scored((5, 6, 7, 8), (10, 11, 12, 13, 20, 21, 22), scored),
        Scored((5, 6, 9, 8), (10, 14, 12, 13, 20, 23, 24), scored),
        Scored((5, 6, 3, 8), (10, 11, 12, 13, 20, 25, 22), scored),
    )
    family = sr.Family("made", "reasoning", LogProb(items))
    found = {pair for seed in range(20) for pair in contrasts(family, seed=seed)}
    of_first = {pair.corrupted: pair for pair in found if pair.clean == (5, 6, 7, 8, 10, 11, 12, 13, 20)}
    assert of_first[5, 6, 9, 8, 10, 14, 12, 13, 20].answers == (21, 23)
    assert of_first[5, 6, 3, 8, 10, 11, 12, 13, 20].answers == (21, 25)


def test_no_partner_serves_twice_and_no_pair_is_another_turned_round():
    items = tuple(Scored((5, 6, 7, place), (20 + place,), (True,)) for place in range(8))
    family = sr.Family("made", "knowledge", LogProb(items))
    for seed in range(10):
        pairs = contrasts(family, seed=seed)
        assert len(pairs) >= 7 and len({pair.corrupted for pair in pairs}) == len(pairs)
        assert not {(pair.corrupted, pair.clean) for pair in pairs} & {(pair.clean, pair.corrupted) for pair in pairs}
    drawn = [{pair.clean: pair.corrupted for pair in contrasts(family, seed=seed)} for seed in range(9)]
    twice = contrasts(family, among=sr.Family("twice", "knowledge", LogProb(items * 2)))
    assert len({pair.corrupted for pair in twice}) == len(twice), "whoever is there twice serves once"
    assert len({found.get(items[0].prompt) for found in drawn}) > 2, "of partners that are as near any may be drawn"


def test_partners_may_be_found_among_more_items(model):
    whole = sr.family_of(model, confirmation_task(n=200))
    family = sr.family_of(model, confirmation_task(n=40))
    assert family.metric.items == whole.metric.items[:40]
    found = contrasts(family, among=whole)
    own = {item.prompt for item in family.metric.items}
    with pytest.raises(ValueError, match="of 40 items of word problems have a partner among 40"):
        contrasts(family)
    assert len(found) > 8
    assert all(pair.clean[: pair.n_prompt] in own for pair in found)
    assert any(pair.corrupted[: pair.n_prompt] not in own for pair in found)


def test_a_family_without_partners_is_refused():
    items = (Scored((1, 2), (3,), (True,)), Scored((1, 2, 4), (3,), (True,)))
    with pytest.raises(ValueError, match="0 of 2 items of lone have a partner"):
        contrasts(sr.Family("lone", "knowledge", LogProb(items)))
