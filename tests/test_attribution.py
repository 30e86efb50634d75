"""Attribution against measured effects and a plain autograd loop; what features write."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_sae

import saereason as sr
from saereason import hooks
from saereason.metrics import LogProb, log_probs, padded
from saereason.model import pad
from saereason.search import logit_lens
from saereason.search.attribution import by_item

PROMPTS = ["Tom has 3 apples.", "2 + 2 =", "How many birds are left on the roof?", "Hi"]
SAID = [" He ate one", " 4", " seven", " you too"]


@pytest.fixture(scope="module")
def metric(model):
    return LogProb.of(model, PROMPTS, SAID)


def loop(model, sae, layer, item):
    """Each position's z · (d · ∂metric/∂h), with a hook of one's own and no padding."""
    ids, held = [*item.prompt, *item.continuation], []

    def keep(_module, _args, out):
        resid = (out[0] if isinstance(out, tuple) else out).detach().requires_grad_()
        held.append(resid)
        return (resid, *out[1:]) if isinstance(out, tuple) else resid

    handle = model.blocks[layer].register_forward_hook(keep)
    logits = model.hf(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    handle.remove()
    at = range(len(item.prompt) - 1, len(ids) - 1)
    torch.stack([logits[n, ids[n + 1]] for n in at]).mean().backward()
    acts = sae.encode(held[0].detach()[0])
    return (acts * (held[0].grad[0] @ sae.W_dec.T)).sum(0)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_it_is_a_plain_loop_over_items_whatever_the_batch(any_model, batch_size):
    saes = {layer: tiny_sae("topk", layer) for layer in (0, 2, 3)}
    metric = LogProb.of(any_model, PROMPTS, SAID)
    table = sr.attribute(any_model, saes, metric, batch_size=batch_size)
    for layer, sae in saes.items():
        mine = table.at(layer)
        by = torch.stack([loop(any_model, sae, layer, item) for item in metric.items]).detach().double()
        np.testing.assert_allclose(mine["attribution"], by.mean(0), atol=2e-5)
        t = by.mean(0) / (by.std(0) / len(by) ** 0.5)
        moving = by.std(0) > 1e-3
        np.testing.assert_allclose(mine["attribution_t"][moving], t[moving], rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("layer", [0, 2, 3])
def test_law_10_a_small_adds_effect_is_its_gradient(any_model, layer):
    metric = LogProb.of(any_model, PROMPTS, SAID)
    sae = {layer: tiny_sae("standard", layer)}
    with hooks.traced(any_model, [layer]) as found:
        log_probs(any_model, metric.items).sum().backward()
    mask = padded(any_model, metric.items).mask
    for index in (3, 40, 77):
        row = sae[layer].W_dec[index]
        expected = torch.stack([(g[m] @ row).sum() for g, m in zip(found[layer].grad, mask, strict=True)])
        [effect] = sr.measure(any_model, sae, metric, [sr.Add(sr.Feature(layer, index), 1e-2)])
        np.testing.assert_allclose(effect.delta / 1e-2, expected, atol=0.02 + 0.05 * expected.abs().max())


def test_it_foretells_what_ablation_costs_where_that_is_little(model):
    """At the last layer the way from the stream to the log-probability is short: estimates and effects go together."""
    saes = {3: tiny_sae("standard", 3)}
    saes[3].W_dec.data *= 0.02
    metric = LogProb.of(model, PROMPTS, SAID)
    table = sr.attribute(model, saes, metric)
    top = list(table.top(6, "attribution"))
    effects = sr.measure(model, saes, metric, [sr.Clamp(f, 0.0) for f in top])
    measured = [-effect.delta.mean().item() for effect in effects]
    estimated = [table.row(f)["attribution"] for f in top]
    np.testing.assert_allclose(measured, estimated, rtol=0.1)


@pytest.mark.parametrize("steps", [8, 32])
def test_integrated_gradients_sum_to_what_all_features_give(model, steps):
    """Completeness: over all features the estimates add up to the metric less the metric without any of them."""
    sae = tiny_sae("standard", 2)
    sae.W_dec.data *= 0.2
    metric = LogProb.of(model, PROMPTS, SAID)
    total = sr.attribute(model, {2: sae}, metric, steps=steps)["attribution"].sum()
    losses = []
    for item in metric.items:
        ids = [*item.prompt, *item.continuation]
        resid = hooks.read(model, pad([ids], pad_token=0), [2])[2]
        without = resid - (sae.decode(sae.encode(resid)) - sae.b_dec)
        with hooks.resumed(model, 2, without), torch.no_grad():
            logits = hooks.run(model, pad([ids], pad_token=0), use_cache=False).logits[0].float().log_softmax(-1)
        at = range(len(item.prompt) - 1, len(ids) - 1)
        losses.append(torch.stack([logits[n, ids[n + 1]] for n in at]).mean().item())
    gap = metric(model).mean().item() - np.mean(losses)
    assert total == pytest.approx(gap, rel={8: 0.2, 32: 0.005}[steps])


def test_padding_gives_nothing():
    sae = tiny_sae("standard", 1)
    resid, grad = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[0, :3] = False
    found = by_item(sae, resid, grad, mask)
    other = by_item(sae, resid[:1, 3:], grad[:1, 3:], mask[:1, 3:])
    torch.testing.assert_close(found[:1], other)


def test_no_hook_and_no_gradient_is_left(model, metric):
    before = metric(model)
    sr.attribute(model, {1: tiny_sae("topk", 1)}, metric)
    assert torch.equal(metric(model), before)
    assert all(parameter.grad is None for parameter in model.hf.parameters())
    with pytest.raises(ValueError, match="steps is 0"):
        sr.attribute(model, {1: tiny_sae("topk", 1)}, metric, steps=0)


# what is written


def test_a_token_that_a_direction_is_made_for_comes_first(any_model):
    """The gradient of a token's logit, at no stream at all, is the direction that raises it most."""
    head = any_model.hf.get_output_embeddings().weight.detach().float()
    norm = any_model.final_norm
    weight = norm(torch.ones(1, any_model.d_model))[0]  # the weights, for the rms of ones is 1
    target = 30
    direction = (head[target] - head.mean(0)) / weight
    logits = logit_lens(any_model, direction[None])[0]
    assert logits.mean().abs() < 1e-4
    sae = tiny_sae("standard", 1)
    sae.W_dec.data[5] = direction
    told = sr.written_tokens(any_model, {1: sae}, sr.Feature(1, 5), k=4)
    assert told.raised[0][1] >= told.raised[-1][1] > 0 > told.lowered[-1][1] >= told.lowered[0][1]
    ours = ((direction * weight) @ head.T) / direction.square().mean().sqrt()
    torch.testing.assert_close(logits, ours - ours.mean(), rtol=1e-3, atol=1e-3)


def test_output_scores_find_who_writes_a_word():
    model = tiny_model()
    head = model.hf.get_output_embeddings().weight.detach().float()
    [q] = model.tokenizer("q", add_special_tokens=False)["input_ids"]
    [space] = model.tokenizer(" ", add_special_tokens=False)["input_ids"]
    sae = tiny_sae("standard", 2)
    sae.W_dec.data[9] = head[q] + head[space]
    table = sr.output_scores(model, {2: sae}, ["q"])
    assert len(table) == 96
    assert list(table.top(1, "output")) == [sr.Feature(2, 9)]
    lens = logit_lens(model, sae.W_dec[:3])
    np.testing.assert_allclose(table["output"][:3], lens[:, [q, space]].mean(-1) / lens.std(-1), rtol=1e-4)
    with pytest.raises(ValueError, match="no words"):
        sr.output_scores(model, {2: sae}, [])


# what features do to the next token


def nats(model, prompt, tokens, layer=None, vector=None):
    """The tokens' joint log-probability after a prompt, a vector added at its end, with a hook of one's own."""

    def push(_module, _args, out):
        resid = (out[0] if isinstance(out, tuple) else out).clone()
        resid[0, -1] += vector
        return (resid, *out[1:]) if isinstance(out, tuple) else resid

    handle = model.blocks[layer].register_forward_hook(push) if vector is not None else None
    with torch.no_grad():
        logits = model.hf(torch.tensor([model.encode(prompt)])).logits[0, -1].float()
    if handle is not None:
        handle.remove()
    return float(logits.log_softmax(-1)[tokens].logsumexp(-1))


def norm_at_the_end(model, layer, prompts=PROMPTS):
    ids = [model.encode(prompt) for prompt in prompts]
    batches = [pad([row], pad_token=model.pad_token) for row in ids]
    return float(torch.stack([hooks.read(model, one, [layer])[layer][0, -1].norm() for one in batches]).mean())


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_output_effects_are_a_plain_loop_whatever_the_batch(any_model, batch_size):
    saes = {layer: tiny_sae("standard", layer) for layer in (1, 3)}
    tokens = sorted({any_model.tokenizer(w, add_special_tokens=False)["input_ids"][0] for w in ("s", " ")})
    wanted = [sr.Feature(3, 5), sr.Feature(1, 7), sr.Feature(1, 7)]
    table = sr.output_effects(any_model, saes, wanted, PROMPTS, ["s"], size=0.5, batch_size=batch_size)
    assert list(table) == [sr.Feature(1, 7), sr.Feature(3, 5)]
    for feature in table:
        row = saes[feature.layer].W_dec.detach()[feature.index]
        vector = row / row.norm() * 0.5 * norm_at_the_end(any_model, feature.layer)
        likelier = np.array(
            [nats(any_model, p, tokens, feature.layer, vector) - nats(any_model, p, tokens) for p in PROMPTS]
        )
        found = table.row(feature)
        assert found["output_effect"] == pytest.approx(likelier.mean(), abs=2e-5)
        assert found["output_effect_t"] == pytest.approx(likelier.mean() / (likelier.std(ddof=1) / 2), rel=5e-3)


def test_law_10_output_slopes_are_the_effects_of_little(any_model):
    saes = {layer: tiny_sae("topk", layer) for layer in (0, 3)}
    features = [sr.Feature(layer, n) for layer in saes for n in range(8)]
    slopes = sr.output_slopes(any_model, saes, PROMPTS, ["s", "Hi"], size=0.01)
    assert len(slopes) == 192
    effects = sr.output_effects(any_model, saes, features, PROMPTS, ["s", "Hi"], size=0.01)
    for feature in features:
        estimate, measured = slopes.row(feature), effects.row(feature)
        assert measured["output_effect"] == pytest.approx(estimate["output_slope"], rel=0.1, abs=5e-4)


def test_what_output_effects_cannot_do_is_said(model):
    saes = {1: tiny_sae("standard", 1)}
    with pytest.raises(ValueError, match="no features"):
        sr.output_effects(model, saes, [], PROMPTS, ["s"])
    with pytest.raises(ValueError, match="1 prompts"):
        sr.output_slopes(model, saes, PROMPTS[:1], ["s"])
    with pytest.raises(ValueError, match="size is -1"):
        sr.output_slopes(model, saes, PROMPTS, ["s"], size=-1.0)
    with pytest.raises(ValueError, match="no words"):
        sr.output_slopes(model, saes, PROMPTS, [])
    with pytest.raises(ValueError, match="no SAE at layer 2"):
        sr.output_effects(model, saes, [sr.Feature(2, 0)], PROMPTS, ["s"])


def test_rows_that_are_added_at_norm_1_are_attributed_so():
    """The sum of attributions is Σ z · d · g with the rows that the SAE really adds."""
    import copy

    from saereason.saes import decoder_row

    sae = copy.deepcopy(tiny_sae("topk", 2))
    sae.W_dec.data *= torch.linspace(0.5, 3, len(sae.W_dec))[:, None]
    resid, grad = torch.randn(2, 1, 5, 32, generator=torch.Generator().manual_seed(0))
    for flag in (False, True):
        sae.cfg.rescale_acts_by_decoder_norm = flag
        found = by_item(sae, resid, grad, torch.ones(1, 5, dtype=torch.bool))[0]
        acts = sae.encode(resid[0])
        for index in (3, 40, 95):
            by_hand = (acts[:, index] * (grad[0] @ decoder_row(sae, index))).sum()
            assert float(found[index]) == pytest.approx(float(by_hand), abs=1e-4)
