"""What probes read by layer, where intermediate results are lost, and candidate features taken out and put in."""

import copy
import itertools

import numpy as np
import pytest
import torch
from conftest import counting_behaviour

import saereason as sr
from saereason.layers import candidates, localise, steps
from saereason.layers.probes import FOLDS, Place, answer_place, folds, predicted, probed
from saereason.metrics import LogProb, Scored, log_probs
from saereason.plots import plot_probes, plot_similarity, plot_steps
from saereason.saes import decoder_row
from saereason.steering import Clamp, Divergence, steered
from saereason.tasks import confirmation_task


@pytest.fixture(scope="module")
def letters():
    """Texts whose label is a token far back, which states may carry, and texts alone."""
    rng = np.random.default_rng(0)
    texts = rng.integers(5, 60, size=(150, 6))
    texts[:, -1] = rng.choice([10, 20, 30], size=150)
    items = tuple(Scored(tuple(row.tolist()), (int(row[-1]),), (True,)) for row in texts)
    return sr.Family("letters", "neutral", LogProb(items))


# probes


def test_a_label_that_the_text_ends_in_is_read_and_a_shuffled_one_is_not(model, letters, tmp_path):
    found = probed(model, letters, answer_place(letters), run=sr.Run.open(tmp_path))
    assert found.right.shape == found.shuffled.shape == (150, 4) and found.n_labels == 3
    assert found.right[:, 0].mean() > 0.75 and 0.2 < found.usual.mean() < 0.5
    assert abs(found.shuffled.mean() - 1 / 3) < 0.15
    assert found.what == "first answer token, before it"
    above, nothing = plot_probes([found]).data
    np.testing.assert_allclose(above.y, found.right.mean(0) - found.usual.mean())
    np.testing.assert_allclose(nothing.y, found.shuffled.mean(0) - found.usual.mean())


def test_similarities_are_plotted_with_their_nulls_in_grey():
    made = [sr.Similarity("fast and slow", np.array([0.5, 0.7]), np.full(2, 0.1), 9, False)]
    made.append(sr.Similarity("two fast wordings", np.array([0.9, 0.8]), np.full(2, 0.1), 9, True))
    lines = plot_similarity(made).data
    assert [line.line.color == "#888888" for line in lines] == [False, True]
    assert list(lines[1].y) == [0.9, 0.8] and lines[0].name == "fast and slow (n = 9)"
    for plot in (plot_similarity, plot_probes):
        with pytest.raises(ValueError, match="nothing to plot"):
            plot([])


def test_probes_never_see_the_fold_they_answer():
    """By a loop of scikit-learn's own, and the same whatever the labels of the held-out fold are."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from saereason.layers.probes import PENALTIES

    rng = np.random.default_rng(1)
    values, labels = rng.normal(size=(40, 5)), rng.integers(3, size=40)
    fold = folds(labels, 0)
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=PENALTIES))
    theirs = cross_val_predict(probe, values, labels, cv=PredefinedSplit(fold))
    np.testing.assert_array_equal(predicted(values, labels, fold), theirs)
    other = np.where(fold == 2, (labels + 1) % 3, labels)
    same = fold == 2
    np.testing.assert_array_equal(predicted(values, other, fold)[same], predicted(values, labels, fold)[same])
    assert all(len(np.unique(fold[labels == label])) == FOLDS for label in range(3))


def test_rare_labels_are_left_out_and_one_label_is_refused(model, letters, tmp_path):
    texts = tuple(item.prompt for item in letters.metric.items)
    place = Place("made", texts, (1,) * 75 + (2,) * 72 + (3,) * 3)
    assert len(probed(model, letters, place, run=sr.Run.open(tmp_path)).right) == 147
    with pytest.raises(ValueError, match=r"1 labels of letters \(made\) have 5 prompts"):
        probed(model, letters, Place("made", texts, (1,) * 147 + (2,) * 3), run=sr.Run.open(tmp_path))


def test_probes_are_kept(model, letters, tmp_path):
    calls = []
    options = {"run": sr.Run.open(tmp_path), "progress": lambda *done: calls.append(done)}
    first = probed(model, letters, answer_place(letters), **options)
    again = probed(model, letters, answer_place(letters), **options)
    assert calls == [(n, 4) for n in range(1, 5)]
    np.testing.assert_array_equal(first.right, again.right)


# steps


def test_the_results_of_a_solution_are_its_scored_stretches():
    item = Scored((1, 2), (3, 4, 5, 6, 7, 8), (False, True, True, False, True, False))
    assert steps.results_of(item) == [range(1, 3), range(4, 5)]
    family = sr.Family("made", "reasoning", LogProb((item, item)))
    second = steps.step_family(family, 1).metric.items[0]
    assert second.continuation == (3, 4, 5, 6, 7) and second.scored == (False, False, False, False, True)
    with pytest.raises(ValueError, match="0 items of made have a result 3"):
        steps.step_family(family, 2)
    ends = [steps.places_of(family, 0, place).texts[0] for place in range(3)]
    assert ends == [(1, 2), (1, 2, 3), (1, 2, 3, 4, 5, 6)] and steps.places_of(family, 1, 0).labels == (7, 7)


def test_the_map_of_steps_holds_what_each_layer_costs_each_result(model, tmp_path):
    family = sr.family_of(model, confirmation_task(n=24))
    seen = []
    run = sr.Run.open(tmp_path)
    found = steps.step_map(model, family, run=run, n_steps=2, progress=lambda *done: seen.append(done))
    assert [curve.family for curve in found.lost] == [f"{family.name}, result {n}" for n in (1, 2)]
    both = [item for item in family.metric.items if len(steps.results_of(item)) >= 2]
    whole = log_probs(model, both)
    parts = [steps.step_family(sr.Family("f", "reasoning", LogProb(tuple(both))), n) for n in (0, 1)]
    n_tokens = np.array([[len(r) for r in steps.results_of(item)[:2]] for item in both])
    two = [item for item in both if len(steps.results_of(item)) == 2]
    assert two, "some problem has two results"
    rows = [both.index(item) for item in two]
    values = np.stack([part.metric(model).numpy() for part in parts], axis=1)
    mean = (values * n_tokens).sum(1) / n_tokens.sum(1)
    np.testing.assert_allclose(mean[rows], whole.numpy()[rows], atol=1e-4)
    assert set(found.names) <= set(itertools.product((0, 1), (0, 1, 2))) and seen == sorted(seen) and seen[-1] == (8, 8)
    figure = plot_steps(found)
    np.testing.assert_allclose(np.array(figure.data[0].z, dtype=float), [curve.drop.mean(0) for curve in found.lost])
    assert [trace.colorbar.title.text for trace in figure.data] == ["nats", "share"][: len(figure.data)]
    lone = sr.Family("lone", "reasoning", LogProb((Scored((1,), (2,), (True,)),) * 2))
    with pytest.raises(ValueError, match="the items of lone have 1 result"):
        steps.step_map(model, lone, run=run)


def test_probes_of_a_map_may_be_of_more_items(model, tmp_path):
    """The losses stay those of the family's own."""
    digits = np.random.default_rng(0).integers(5, 8, size=(60, 2)).tolist()
    items = [Scored((3, 4, a, b), (9, a, 9, b), (False, True, False, True)) for a, b in digits]
    family, more = (sr.Family("made", "reasoning", LogProb(tuple(items[:n]))) for n in (4, 60))
    run = sr.Run.open(tmp_path)
    alone, found = (steps.step_map(model, family, run=run, read_in=which) for which in (None, more))
    assert [len(curve.drop) for curve in found.lost] == [4, 4]
    for ours, theirs in zip(found.lost, alone.lost, strict=True):
        np.testing.assert_array_equal(ours.drop, theirs.drop)
    assert [len(probe.right) for probe in found.read] == [60] * 6 and not alone.read and not found.left_out


# candidate features


@pytest.fixture(scope="module")
def groups(model, topk_saes):
    behaviour = counting_behaviour(model)
    texts = [model.encode(text) for text in behaviour.plain]
    return candidates.candidate_features(model, topk_saes, behaviour.discovery.examples, texts, 3)


def test_candidates_and_their_matches_are_different_features_of_each_layer(model, topk_saes, groups):
    best, drawn = groups[candidates.CANDIDATES], groups[candidates.MATCHED]
    table = sr.search(model, topk_saes, counting_behaviour(model).discovery.examples)
    for layer in topk_saes:
        assert list(best[layer]) == list(table.where(table["layer"] == layer).top(3, "studentised"))
        assert len(set(best[layer]) | set(drawn[layer])) == 6
        assert {f.layer for f in (*best[layer], *drawn[layer])} == {layer}


def test_without_features_is_each_layer_with_them_clamped_to_zero(model, topk_saes, groups, tmp_path):
    metric = LogProb.of(model, ["Tom has 3", "2 + 2 =", "Hi"], [" apples", " 4", " there"])
    operator = candidates.WithoutFeatures(candidates.CANDIDATES, groups[candidates.CANDIDATES])
    family = sr.Family("letters", "neutral", metric)
    [curve] = localise(model, topk_saes, [family], [operator], run=sr.Run.open(tmp_path))
    assert curve.layers == tuple(sorted(topk_saes)) and curve.operator == "without candidate features"
    for n, layer in enumerate(curve.layers):
        clamps = [Clamp(feature, 0.0) for feature in operator.features[layer]]
        with steered(model, topk_saes, *clamps):
            np.testing.assert_allclose(curve.drop[:, n], curve.clean - metric(model).numpy(), atol=1e-4)


def test_with_features_adds_their_mean_row_at_one_kl_everywhere(model, topk_saes, groups, tmp_path):
    budget = Divergence.over(model, ["Tom has 3", "2 + 2 =", "Hi", "One, two"])
    features = groups[candidates.MATCHED]
    operator = candidates.WithFeatures.of(candidates.MATCHED, features, topk_saes, budget, nats=0.05)
    assert all(kl == pytest.approx(0.05, rel=0.1) for kl in operator.kl.values())
    layer = min(topk_saes)
    mean = torch.stack([decoder_row(topk_saes[layer], f.index) for f in features[layer]]).mean(0)
    added = operator.additions[layer]
    torch.testing.assert_close(added.vector, mean / mean.norm())
    metric = LogProb.of(model, ["Tom has 3", "Hi"], [" apples", " there"])
    family = sr.Family("letters", "neutral", metric)
    [curve] = localise(model, topk_saes, [family], [operator], run=sr.Run.open(tmp_path))
    hf = copy.deepcopy(model.hf)
    assert curve.layers[0] == layer and np.abs(curve.drop[:, 0]).max() > 1e-3
    block = dict(hf.named_modules())[next(n for n, m in model.hf.named_modules() if m is model.blocks[layer])]
    push = added.coefficient * added.vector

    def add(module, args, output):  # noqa: ARG001
        return (output[0] + push, *output[1:]) if isinstance(output, tuple) else output + push

    block.register_forward_hook(add)
    item = metric.items[0]
    logits = hf(torch.tensor([item.prompt + item.continuation])).logits[0].log_softmax(-1)
    by_hand = np.mean([float(logits[len(item.prompt) - 1 + n, t]) for n, t in enumerate(item.continuation)])
    assert curve.clean[0] - curve.drop[0, 0] == pytest.approx(by_hand, abs=1e-4)


def test_beyond_is_the_difference_item_by_item(model, topk_saes, groups, tmp_path):
    metric = LogProb.of(model, ["Tom has 3", "Hi"], [" apples", " there"])
    operators = [candidates.WithoutFeatures(name, features) for name, features in groups.items()]
    family = sr.Family("letters", "neutral", metric)
    mine, control = localise(model, topk_saes, [family], operators, run=sr.Run.open(tmp_path))
    found = candidates.beyond(mine, control)
    np.testing.assert_allclose(found.drop, mine.drop - control.drop)
    assert found.operator == "without candidate features, beyond matched"
