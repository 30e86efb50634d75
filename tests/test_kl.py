"""KL between edited and clean: against a plain loop, padded or not; sizes that reach a KL."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_sae

import saereason as sr
from saereason import hooks
from saereason.model import pad
from saereason.steering import Divergence, asc_size, at_kl, fisher_size, largest_acts, mean_norms

PROMPTS = ["Tom has 3 apples.", "2 + 2 =", "How many birds are left on the roof?", "Hi"]
WRITTEN = [[20, 30, 40], [25], [], [33, 44]]


def vector(seed=0):
    return torch.randn(32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "when", [sr.LastPromptToken(), sr.Everywhere(), sr.Generated()], ids=lambda w: type(w).__name__
)
def test_it_is_the_plain_loops(any_model, when):
    edit = sr.AddVector(1, vector(), 2.0, when)
    written = [[20, 30], [25], [31], [33, 44]]
    found = Divergence.over(any_model, PROMPTS, written, batch_size=3)(None, edit)
    for n, (prompt, said) in enumerate(zip(PROMPTS, written, strict=True)):
        ids = any_model.encode(prompt)
        row = torch.tensor([ids + said])

        def log_probs(row=row):
            return any_model.hf(row).logits[0].float().log_softmax(-1)

        clean = log_probs()
        at = {"LastPromptToken": [len(ids) - 1], "Everywhere": range(len(ids) + len(said))}.get(
            type(when).__name__, range(len(ids), len(ids) + len(said))
        )

        def hook(_module, _args, out, at=at):
            resid = out[0] if isinstance(out, tuple) else out
            resid[0, list(at)] += 2.0 * vector().to(resid)

        handle = any_model.blocks[1].register_forward_hook(hook)
        edited = log_probs()
        handle.remove()
        kl = (edited.exp() * (edited - clean)).sum(-1)[len(ids) - 1 :].mean()
        assert found[n] == pytest.approx(kl.item(), abs=1e-4, rel=1e-3)


def test_no_change_has_none():
    model = tiny_model()
    found = Divergence.over(model, PROMPTS, WRITTEN)(None, sr.AddVector(2, vector(), 0.0, sr.LastPromptToken()))
    assert np.abs(found).max() < 1e-6


@pytest.mark.parametrize("target", [1e-4, 0.01, 0.3])
@pytest.mark.parametrize("start", [1e-3, 1.0, 100.0, None])
def test_a_size_is_found_that_reaches_the_target(target, start):
    divergence = Divergence.over(tiny_model(), PROMPTS)
    edit, kl = at_kl(
        divergence, None, lambda c: sr.AddVector(2, vector(1), c, sr.LastPromptToken()), target, start=start
    )
    assert kl == pytest.approx(target, rel=0.1)
    assert kl == divergence(None, edit).mean()


@pytest.mark.parametrize("when", [sr.LastPromptToken(), sr.Everywhere(), sr.Decay(0.5)], ids=lambda w: type(w).__name__)
def test_the_derivative_is_that_of_a_small_difference(any_model, when):
    any_model.hf.double()
    divergence = Divergence.over(any_model, PROMPTS, WRITTEN, batch_size=3)
    for edit in (sr.AddVector(1, vector(), 0.5, when), sr.Add(sr.Feature(1, 3), 2.0, when)):
        saes, step = {1: tiny_sae("topk", 1)}, 1e-3
        variance = []
        for n in range(4):
            one = Divergence.over(any_model, PROMPTS[n : n + 1], WRITTEN[n : n + 1])
            ids = any_model.encode(PROMPTS[n])
            found = []
            for sign in (1, -1):
                bigger = replace(edit, coefficient=sign * step * edit.coefficient)
                with sr.steered(any_model, saes, bigger):
                    found.append(one._logits(range(1)).double())
            speed, p = (found[0] - found[1]) / (2 * step), one.clean[0].double().exp()
            each = (p * speed.square()).sum(-1) - (p * speed).sum(-1).square()
            assert each.shape[1] == len(WRITTEN[n]) + 1 and len(ids) > 1
            variance.append(float(each.mean()))
        assert divergence.fisher(saes, edit) == pytest.approx(variance, rel=5e-3)
    any_model.hf.float()


@pytest.mark.parametrize("layer", [0, 3])
def test_the_first_guess_is_near_and_the_bound_of_asc_far_below(any_model, layer):
    texts = [
        f"Some {word} stand here and {other}" for word in ("words", "birds", "men") for other in ("sing", "wait", "go")
    ]
    known, other = Divergence.over(any_model, texts[:5]), Divergence.over(any_model, texts[5:])
    for target in (1e-3, 1e-2):
        unit = sr.AddVector(layer, vector(2), 1.0, sr.LastPromptToken())
        size = fisher_size(known, None, unit, target)
        kl = other(None, sr.AddVector(layer, vector(2), size, sr.LastPromptToken())).mean()
        assert target / 2 < kl < target * 2
        assert 0 < asc_size(known, None, unit, target) < size


def test_only_what_adds_has_a_first_guess(model, saes):
    divergence = Divergence.over(model, PROMPTS)
    for edit in (sr.Clamp(sr.Feature(1, 3), 2.0), sr.AddVector(1, vector(), keep_norm=True)):
        with pytest.raises(ValueError, match="does not add; give an Add or an AddVector"):
            fisher_size(divergence, saes, edit, 0.01)
    with pytest.raises(ValueError, match="there is no size for it"):
        fisher_size(divergence, None, sr.AddVector(1, torch.zeros(32)), 0.01)
    with pytest.raises(ValueError, match="moves no logit"):
        fisher_size(divergence, None, sr.AddVector(1, vector(), 1.0, sr.Generated()), 0.01)


def test_units_leave_out_first_tokens_and_padding(any_model, saes):
    resid = [hooks.read(any_model, pad([any_model.encode(p)], pad_token=0), [1])[1][0, 1:] for p in PROMPTS]
    rows = torch.cat(resid)
    assert mean_norms(any_model, [1], PROMPTS, batch_size=3)[1] == pytest.approx(
        float(rows.norm(dim=-1).mean()), rel=1e-5
    )
    features = [sr.Feature(1, n) for n in range(5)]
    found = largest_acts(any_model, saes, features, PROMPTS, batch_size=3)
    expected = saes[1].encode(rows)[:, :5].max(0).values.tolist()
    assert [found[f] for f in features] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    with pytest.raises(ValueError, match="there are no layers"):
        mean_norms(any_model, [], PROMPTS)
    with pytest.raises(ValueError, match="no token but their first"):
        mean_norms(any_model, [1], ["a"])


def test_bad_input_is_refused():
    model = tiny_model()
    with pytest.raises(ValueError, match="one for each"):
        Divergence.over(model, PROMPTS, WRITTEN[1:])
    with pytest.raises(ValueError, match="positive"):
        at_kl(Divergence.over(model, PROMPTS), None, lambda c: sr.AddVector(2, vector(), c), 0.0)
    with pytest.raises(ValueError, match=r"the target is inf nats .* positive and finite"):
        at_kl(Divergence.over(model, PROMPTS), None, lambda c: sr.AddVector(2, vector(), c), float("inf"))
    with pytest.raises(ValueError, match="most is 0; at least 1 size"):
        at_kl(Divergence.over(model, PROMPTS), None, lambda c: sr.AddVector(2, vector(), c), 0.1, most=0)
    with pytest.raises(ValueError, match="have 602 tokens and the context of tiny-llama is 512"):
        Divergence.over(model, ["Hi"], [[5] * 600])
    for token in (5000, -1):
        with pytest.raises(ValueError, match=f"there is no token {token}; the tokens of tiny-llama are 0 to 103"):
            Divergence.over(model, ["Hi"], [[5, token]])


@pytest.mark.parametrize("size_of", [fisher_size, asc_size])
@pytest.mark.parametrize(
    ("edit", "target", "sentence"),
    [
        (sr.AddVector(-1, vector()), 0.01, "has no layer -1"),
        (sr.AddVector(1, torch.ones(1)), 0.01, r"shape \(1,\)"),
        (sr.Add(sr.Feature(2, 3), 1.0), 0.01, "no SAE at layer 2"),
        (sr.Add(sr.Feature(1, 96), 1.0), 0.01, "L1/96 is out of range"),
        (sr.Add(sr.Feature(3, 0), 1.0), 0.01, "SAE given for layer 3 reads layer 0"),
        (sr.Add(sr.Feature(1, 3), 0.0), 0.01, "there is no size for it"),
        (sr.Add(sr.Feature(1, 3), 1.0), 0.0, "the target is 0.0 nats"),
        (sr.Add(sr.Feature(1, 3), 1.0), -1.0, "the target is -1.0 nats"),
    ],
    ids=str,
)
def test_what_does_not_fit_has_no_size(size_of, edit, target, sentence):
    divergence = Divergence.over(tiny_model(), PROMPTS)
    with pytest.raises(ValueError, match=sentence):
        size_of(divergence, {1: tiny_sae("topk", 1), 3: tiny_sae("topk", 0)}, edit, target)


@pytest.mark.parametrize("start", [None, 1e-3, 1.0])
@pytest.mark.parametrize("layer", [0, 3])
def test_rounding_is_never_taken_for_an_effect(layer, start):
    coarse = tiny_model()
    coarse.hf.bfloat16()
    rough, fine = Divergence.over(coarse, PROMPTS), Divergence.over(tiny_model(), PROMPTS)

    def sized(size):
        return sr.AddVector(layer, vector(1), size, sr.LastPromptToken())

    least = rough.least(None, sized(1.0))
    assert fine.least(None, sized(1.0)) < 1e-5 < 1e-4 < least
    for target in (1e-6, 1e-4, 0.9 * least):
        with pytest.raises(
            ValueError, match=r"rounding in bfloat16 hides .*load the model in float32, or ask for more"
        ):
            at_kl(rough, None, sized, target, start=start)
    with pytest.raises(ValueError, match=r"rounding in float32 hides what is below .* there; ask for more"):
        at_kl(fine, None, sized, 1e-9, start=start)
    edit, kl = at_kl(rough, None, sized, 1.2 * least, start=start)
    assert kl == rough(None, edit).mean() == pytest.approx(1.2 * least, rel=0.1)
    assert fine(None, edit).mean() == pytest.approx(1.2 * least, rel=0.5)


def test_a_size_far_from_what_the_derivative_says_is_refused():
    divergence = Divergence.over(tiny_model(), PROMPTS)
    fisher = fisher_size(divergence, None, sr.AddVector(2, vector(1), 1.0, sr.LastPromptToken()), 0.005)

    def elsewhere(size):  # as if rounding were the effect
        return sr.AddVector(2, vector(1), size if size == 1.0 else size / 20, sr.LastPromptToken())

    with pytest.raises(ValueError, match=r"the derivative says that takes a size .* load the model in float32"):
        at_kl(divergence, None, elsewhere, 0.005, start=fisher)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_rows_are_the_places_of_the_prompts(batch_size):
    model = tiny_model()
    divergence = Divergence.over(model, PROMPTS, WRITTEN, batch_size=batch_size)
    edit = sr.AddVector(1, vector(), 2.0, sr.OnRows((1, 3), when=sr.LastPromptToken()))
    everywhere, found = divergence(None, replace(edit, when=edit.when.when)), divergence(None, edit)
    assert found == pytest.approx([0.0, everywhere[1], 0.0, everywhere[3]], abs=1e-6)
