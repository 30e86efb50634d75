"""What the property tests draw, and how they look at a model."""

import random
import string
from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from saereason import hooks
from saereason.features import Feature
from saereason.model import pad
from saereason.steering import (
    Add,
    AddVector,
    After,
    Boost,
    Clamp,
    Decay,
    Everywhere,
    Generated,
    LastPromptToken,
    MeanBlock,
    Prompt,
    Scale,
    ScaleBlock,
    ScaleProjection,
    SetProjection,
    Steps,
    While,
)

PAIRS = [("llama", "standard"), ("qwen2", "jumprelu"), ("gemma3", "topk")]
"""Every family and every architecture once; the tests that need all nine pairs ask for them."""

WHENS = [
    Everywhere(),
    Prompt(),
    LastPromptToken(),
    Generated(),
    Steps(0, 3),
    Steps(-2, 1),
    After("e"),
    Decay(0.7),
    While(Feature(0, 3), 0.1),
]
every_when = pytest.mark.parametrize("when", WHENS, ids=lambda when: type(when).__name__)

layers = st.integers(0, 3)
features = st.builds(Feature, layers, st.integers(0, 95))
amounts = st.floats(-20, 20, width=32)
sides = st.sampled_from(["left", "right"])
temperatures = st.sampled_from([0.0, 1.0])
texts = st.lists(st.text(string.ascii_letters + " .?", min_size=1, max_size=40), min_size=2, max_size=4)


def few(examples):
    """The same few examples every time, and no shrinking: it would cost minutes and find no shorter tensor."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def edits(draw, when):
    """One to three interventions of different kinds."""
    layer, vector, keep = draw(layers), torch.linspace(-1, 1, 32), draw(st.booleans())
    on_one, amount, share = draw(st.sampled_from([Add, Clamp, SetProjection])), draw(amounts), draw(st.floats(0, 1.5))
    one, another = Feature(layer, draw(st.integers(0, 39))), Feature(draw(layers), draw(st.integers(40, 79)))
    state = random.getstate()  # beartype draws the entry of a tuple that it looks at
    boost = Boost((Feature(layer, 80), Feature(layer, 81)), amount, when)
    random.setstate(state)
    found = [
        on_one(one, amount, when, keep_norm=keep),
        Scale(another, 3 * share - 2, when, keep_norm=keep and another.layer != layer),
        boost,
        MeanBlock(layer, vector, when) if draw(st.booleans()) else ScaleBlock(layer, share, when),
        AddVector(another.layer, vector, amount, when),
        ScaleProjection(another.layer, vector, share - 1, when, keep_norm=not keep),
    ]
    return [found[n] for n in draw(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))]


def doubled(model, prompts):
    """Rows of token ids and the lengths of their prompts: each text twice, the second time as the answer."""
    rows = [model.encode(prompt) for prompt in prompts]
    return [row * 2 for row in rows], [len(row) for row in rows]


def logits_of(model, rows, lengths=None, *, side="left"):
    """Logits of every token that is not padding, one tensor a row; the first `lengths[row]` tokens are its prompt."""
    batch = pad(rows, pad_token=0, side=side)
    with hooks.prompts(torch.tensor(lengths)) if lengths else nullcontext(), torch.no_grad():
        logits = hooks.run(model, batch, use_cache=False).logits
    return [each[mask] for each, mask in zip(logits, batch.mask, strict=True)]


def same_bits(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def assert_close(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def n_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.hf.modules())
