"""Law 11: a model behind a TransformerBridge is the same model."""

import pytest
import torch
from conftest import tiny_model, tiny_sae
from hypothesis import given
from hypothesis import strategies as st
from strategies import PAIRS, assert_close, doubled, edits, every_when, few, logits_of, texts

from saereason import hooks
from saereason.features import Feature
from saereason.generate import generate
from saereason.loading import load_model
from saereason.model import pad
from saereason.steering import Add, LastPromptToken, steered


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def bridged(request):
    """A model, a bridge over it, the model as loaded from the bridge, and SAEs."""
    family, architecture = request.param
    model = tiny_model(family)
    bridge = model.bridge()
    return model, bridge, load_model(bridge), {layer: tiny_sae(architecture, layer) for layer in range(4)}


def test_law_11_the_bridge_has_the_same_residual_streams(bridged, prompts):
    model, bridge, wrapped, _ = bridged
    for prompt in prompts:
        batch = pad([model.encode(prompt)], pad_token=0)
        with torch.no_grad():
            _, cache = bridge.run_with_cache(batch.tokens)
        resid = hooks.read(model, batch, range(4))
        assert_close(resid.values(), [cache[f"blocks.{layer}.hook_resid_post"] for layer in range(4)])
        assert_close(resid.values(), [cache[f"blocks.{layer}.hook_out"] for layer in range(4)])
        assert_close(resid.values(), hooks.read(wrapped, batch, range(4)).values())


@every_when
@given(data=st.data(), prompts=texts)
@few(2)
def test_law_11_the_bridge_steers_the_same(bridged, when, data, prompts):
    model, _, wrapped, saes = bridged
    changes = data.draw(edits(when))
    rows, lengths = doubled(model, prompts)
    found = []
    for each in (model, wrapped):
        with steered(each, saes, *changes):
            wrote = generate(each, prompts, max_new_tokens=8, temperature=1.0, forced=[[7]] * len(prompts))
            found.append((wrote, logits_of(each, rows, lengths)))
    (plain, clean), (other, logits) = found
    assert plain.tokens == other.tokens
    assert [e.positions for e in plain.receipt.edits] == [e.positions for e in other.receipt.edits]
    assert_close(clean, logits)


def test_law_11_edits_reach_a_call_of_the_bridge_itself(bridged):
    model, bridge, wrapped, saes = bridged
    row, change = model.encode("Tom has 3 apples."), Add(Feature(2, 7), 9.0, LastPromptToken())
    with steered(model, saes, change):
        plain = logits_of(model, [row])
    with steered(wrapped, saes, change) as steering, torch.no_grad():
        assert_close(bridge(torch.tensor([row])), plain)
    assert steering.receipt.edits[0].positions == (len(row) - 1,)


def test_a_bridge_leaves_the_model_and_its_tokenizer_as_they_were(model):
    side, kwargs, before = model.tokenizer.padding_side, dict(model.tokenizer.init_kwargs), model.hash
    wrapped = load_model(model.bridge())
    assert (model.tokenizer.padding_side, model.tokenizer.init_kwargs) == (side, kwargs)
    assert (model.hash, wrapped.hash) == (before, before)
    assert wrapped.encode("Hi") == model.encode("Hi")
    assert (wrapped.n_layers, wrapped.d_model, wrapped.name) == (4, 32, model.name)


def test_a_bridged_model_is_not_bridged_again(bridged):
    with pytest.raises(ValueError, match="came out of a TransformerBridge; use that bridge"):
        bridged[2].bridge()
