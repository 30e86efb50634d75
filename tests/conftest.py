"""Tiny models of three families with random weights, tiny SAEs of three architectures; nothing is downloaded."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # torch reads it at import, and so do the programs that tests start
    each = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, each)))


import shutil
import string

import pytest
import torch

from saereason.model import Model
from saereason.saes.sae import warn_of_weights

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|unk|>"]


def tiny_tokenizer():
    """A token a character."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.decoders import Fuse
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *string.printable]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|unk|>",
        chat_template=TEMPLATE,
    )


def tiny_model(family="llama", *, seed=0, n_layers=4, n_ctx=512):
    """A model of a family with random weights; the residual stream varies enough for greedy tokens to differ."""
    from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, Qwen2Config

    config_class = {"llama": LlamaConfig, "qwen2": Qwen2Config, "gemma3": Gemma3TextConfig}[family]
    tokenizer = tiny_tokenizer()
    extra = {"head_dim": 8, "sliding_window": 16} if family == "gemma3" else {}
    config = config_class(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=n_ctx,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **extra,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    return Model(hf, tokenizer, f"tiny-{family}")


def tiny_sae(architecture, layer, *, d_in=32, d_sae=96, seed=0):
    """An SAE with random weights, some of whose features fire on any input."""
    import sae_lens as lens
    from sae_lens.saes.sae import SAEMetadata

    classes = {
        "standard": (lens.StandardSAE, lens.StandardSAEConfig, {}),
        "jumprelu": (lens.JumpReLUSAE, lens.JumpReLUSAEConfig, {}),
        "topk": (lens.TopKSAE, lens.TopKSAEConfig, {"k": 8}),
    }
    sae_class, config_class, extra = classes[architecture]
    metadata = SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post")
    with torch.random.fork_rng():
        torch.manual_seed(100 * seed + layer)
        sae = sae_class(config_class(d_in=d_in, d_sae=d_sae, metadata=metadata, **extra))
        sae.b_dec.data = 0.1 * torch.randn(d_in)
        sae.b_enc.data = 0.1 * torch.randn(d_sae)
        if architecture == "jumprelu":
            sae.threshold.data = 0.2 * torch.rand(d_sae)
    return sae.eval().requires_grad_(False)


def counting_behaviour(model):
    """Prompts that end in "Q" against the same with a "Z"; the behaviour is to write a letter from a to m."""
    from saereason.controls import Behaviour, Sample
    from saereason.effects import Shows, Trial
    from saereason.examples import Examples

    words = ["some", "words", "stand", "here", "and", "more", "of", "them", "there", "too", "in", "a", "row"]
    stems = {
        name: tuple(f"{words[k % 13]} {words[(k * 5 + 1) % 13]} {k}" for k in range(start, start + 16))
        for name, start in (("discovery", 0), ("confirmation", 100))
    }

    def ending(name, letter):
        return tuple(f"{stem}{letter}" for stem in stems[name])

    def sample(name):
        return Sample(Examples.pair(model, ending(name, "Q"), ending(name, "Z")), stems[name])

    def trial(name, letter):
        return Trial(ending(name, letter), Shows("[a-m]"), stems[name], 3)

    return Behaviour(
        "counting",
        sample("discovery"),
        sample("confirmation"),
        showing=ending("discovery", "Q"),
        plain=tuple(f"{a} {b} {c} indeed" for a in words[:4] for b in words[4:8] for c in words[8:10]),
        matched=sample("confirmation"),
        rehearsal=trial("discovery", "Z"),
        practice=trial("discovery", "Q"),
        absent=trial("confirmation", "Z"),
        present=trial("confirmation", "Q"),
        instructed=trial("confirmation", "Q"),
    )


@pytest.fixture(autouse=True)
def warned_anew():
    """What is told once a process is told once a test."""
    warn_of_weights.cache_clear()


@pytest.fixture(scope="session")
def model():
    return tiny_model()


@pytest.fixture(scope="session", params=["llama", "qwen2", "gemma3"])
def any_model(request):
    return tiny_model(request.param)


@pytest.fixture(scope="session", params=["standard", "jumprelu", "topk"])
def saes(request):
    return {layer: tiny_sae(request.param, layer) for layer in range(4)}


@pytest.fixture(scope="session")
def topk_saes():
    return {layer: tiny_sae("topk", layer) for layer in range(4)}


@pytest.fixture
def prompts():
    """Prompts of different lengths, so that batches of them are padded."""
    return ["Tom has 3 apples.", "2 + 2 =", "How many birds are left on the roof?", "Hi"]


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield opened
        opened.close()
