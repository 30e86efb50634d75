"""KL between edited and clean: against a plain loop, padded or not; sizes that reach a KL."""

import numpy as np
import pytest
import torch
from conftest import tiny_model

import saereason as sr
from saereason.steering import Divergence, at_kl

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
@pytest.mark.parametrize("start", [1e-3, 1.0, 100.0])
def test_a_size_is_found_that_reaches_the_target(target, start):
    divergence = Divergence.over(tiny_model(), PROMPTS)
    edit, kl = at_kl(
        divergence, None, lambda c: sr.AddVector(2, vector(1), c, sr.LastPromptToken()), target, start=start
    )
    assert kl == pytest.approx(target, rel=0.1)
    assert kl == pytest.approx(divergence(None, edit).mean(), rel=1e-6)


def test_bad_input_is_refused():
    model = tiny_model()
    with pytest.raises(ValueError, match="one for each"):
        Divergence.over(model, PROMPTS, WRITTEN[1:])
    with pytest.raises(ValueError, match="positive"):
        at_kl(Divergence.over(model, PROMPTS), None, lambda c: sr.AddVector(2, vector(), c), 0.0)
