"""DiffMean and the probe: against a plain loop and scikit-learn's own, and what they say of a feature."""

import numpy as np
import pytest
import torch
from conftest import counting_behaviour, tiny_model, tiny_sae
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

import saereason as sr
from saereason.controls import Rivals, Templates
from saereason.controls.ladder.bench import Bench, Candidate
from saereason.controls.ladder.correlates import replicates
from saereason.controls.ladder.rung import added
from saereason.search.baselines import COSTS, Residuals, diff_mean_scores, probe_scores, residuals
from saereason.stats import Estimate, above


def drawn(n, d=12, *, shift=1.0, seed=0, paired=True):
    rng = np.random.default_rng(seed)
    label = np.tile([True, False], n)
    values = rng.normal(size=(2 * n, d)) * np.linspace(0.1, 10, d)
    values[:, 0] += shift * label * 0.1
    return Residuals(values.astype(np.float32), label, np.repeat(np.arange(n), 2) if paired else np.arange(2 * n))


def test_residuals_are_the_means_that_a_plain_loop_gives(model):
    texts = ["one two three", "some more words than that, in a row", "Hi there", "A piece of cake"]
    examples = sr.Examples.marked(model, texts, r"[aeiou]")
    found, expected = residuals(model, examples, [0, 2], batch_size=3), {0: [], 2: []}
    for n, text in enumerate(texts):
        ids = model.encode(text)
        with torch.no_grad():
            states = model.hf(torch.tensor([ids]), output_hidden_states=True).hidden_states
        valid, label = (getattr(examples, name)[n][-len(ids) :] for name in ("valid", "label"))
        for layer, means in expected.items():
            means += [states[layer + 1][0][valid & (label == which)].mean(0).numpy() for which in (True, False)]
    for layer, means in expected.items():
        np.testing.assert_allclose(found[layer].values, np.stack(means), rtol=1e-3, atol=1e-4)
        assert found[layer].label.tolist() == [True, False] * len(texts)
        assert found[layer].group.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_probe_finds_what_diff_mean_does_not_see_for_the_noise():
    """Where other directions vary a hundred times as much, the probe's standardising tells, and folds do not leak."""
    train, test = drawn(200), drawn(200, seed=1)
    probe, mean = probe_scores(train, test), diff_mean_scores(train, test)
    aurocs = [above(scores[test.label], scores[~test.label]) for scores in (probe, mean)]
    assert aurocs[0] > 0.7 > aurocs[1]
    np.testing.assert_array_equal(probe, probe_scores(train, test))


def test_on_noise_a_probe_says_nothing():
    found = [
        above(scores[test.label], scores[~test.label])
        for seed in range(8)
        for train, test in [(drawn(40, shift=0, seed=seed), drawn(200, shift=0, seed=100 + seed))]
        for scores in [probe_scores(train, test)]
    ]
    assert abs(np.mean(found) - 0.5) < 0.05


def test_the_probe_is_one_of_the_penalties_fitted_to_all_of_train():
    train = drawn(60, seed=4)
    scores = probe_scores(train, train)
    rows = (train.values - train.values.mean(0)) / train.values.std(0)
    fits = [LogisticRegression(C=cost, max_iter=2000).fit(rows, train.label).decision_function(rows) for cost in COSTS]
    assert min(np.abs(scores - fit).max() for fit in fits) < 1e-2


def test_no_fold_parts_the_observations_of_a_prompt(monkeypatch):
    train, seen = drawn(60, seed=4), []
    split = StratifiedGroupKFold.split

    def watched(self, *arguments, **named):
        for rows, held_out in split(self, *arguments, **named):
            seen.append((set(train.group[rows]), set(train.group[held_out])))
            yield rows, held_out

    monkeypatch.setattr(StratifiedGroupKFold, "split", watched)
    probe_scores(train, train)
    assert len(seen) == 5 and not any(a & b for a, b in seen)
    assert set().union(*(held_out for _, held_out in seen)) == set(range(60))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.3, ""), (-0.1, 0.3, ": that the SAE has added anything is not shown"), (-0.3, 0.0, "added nothing")],
)
def test_an_undecided_lead_is_not_called_none(low, high, said):
    found = added(Estimate((low + high) / 2, low, high))
    assert found == said or (said and found.endswith(said))


def test_too_few_prompts_train_no_probe():
    with pytest.raises(ValueError, match="too few to train a probe"):
        probe_scores(drawn(1), drawn(5))
    assert len(probe_scores(drawn(2), drawn(5))) == 10


def test_the_second_rung_says_what_needs_no_sae(tmp_path):
    model = tiny_model()
    behaviour, saes = counting_behaviour(model), {2: tiny_sae("topk", 2)}
    [feature] = sr.search(model, saes, behaviour.discovery.examples).top(1, "studentised")
    bench = Bench(model, saes, behaviour, (feature,), Rivals(), Templates(), 10, (1.0,), None, 0, tmp_path)
    rung = replicates(bench, Candidate(feature, 1, 1.0, 1))
    train, test = (
        residuals(model, sample.examples, [2])[2] for sample in (behaviour.discovery, behaviour.confirmation)
    )
    scores = diff_mean_scores(train, test)
    assert rung.details["auroc of DiffMean"] == above(scores[test.label], scores[~test.label])
    assert rung.details["auroc of a logistic probe"] > 0.9, "the last letter differs"
    best = max(value for name, value in rung.details.items() if name.startswith("auroc of"))
    assert rung.details["lead"] == pytest.approx(rung.figure.value - best)
    assert "the SAE has added" in rung.said and "a logistic probe" in rung.against
