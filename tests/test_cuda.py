"""The same code on a GPU; skipped where there is none."""

import pytest
import torch
from conftest import tiny_model, tiny_sae

import saereason as sr

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


def test_steered_generation_is_the_cpus(prompts):
    saes = {1: tiny_sae("topk", 1)}
    edit = sr.Clamp(sr.Feature(1, 3), 5.0, sr.Generated())
    texts = []
    for device in ("cpu", "cuda"):
        model = tiny_model()
        model.hf.to(device)
        here = {layer: sae.to(device) for layer, sae in saes.items()}
        with sr.steered(model, here, edit):
            texts.append(sr.generate(model, prompts, max_new_tokens=8).texts)
    assert texts[0] == texts[1]


def test_log_probabilities_are_the_cpus(prompts):
    values = []
    for device in ("cpu", "cuda"):
        model = tiny_model()
        model.hf.to(device)
        values.append(sr.LogProb.of(model, prompts, ["12 = 45"] * len(prompts))(model))
    torch.testing.assert_close(values[0], values[1], atol=1e-3, rtol=0)
