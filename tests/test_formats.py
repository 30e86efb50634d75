"""SAEs of sparsify and of dictionary_learning: what is read computes what its own class does, the rest is refused."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from saereason import load_saes, save_saes

D_IN, D_SAE, K = 32, 96, 8


def draw(*shape):
    return torch.randn(*shape)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def edited(file, **changes):
    """A JSON file with some of its values, or of its `trainer`'s, changed."""
    content = json.loads(file.read_text())
    content.get("trainer", content).update(changes)
    file.write_text(json.dumps(content))


def top_k(acts, k=K):
    values, indices = acts.topk(k, dim=-1)
    return torch.zeros_like(acts).scatter(-1, indices, values)


# sparsify

SPARSIFY = {
    "activation": "topk",
    "expansion_factor": 3,
    "normalize_decoder": True,
    "num_latents": 0,
    "k": K,
    "multi_topk": False,
    "skip_connection": False,
    "transcode": False,
    "d_in": D_IN,
}


@pytest.fixture
def sparsify(tmp_path):
    """The root of a run: config.json, and a folder a hookpoint."""
    root = tmp_path / "sae-llama"
    for layer in (2, 10):
        folder = root / f"layers.{layer}"
        folder.mkdir(parents=True)
        weights = {"encoder.weight": draw(D_SAE, D_IN), "encoder.bias": draw(D_SAE)}
        weights |= {"W_dec": draw(D_SAE, D_IN), "b_dec": draw(D_IN)}
        save_file(weights, folder / "sae.safetensors")
        (folder / "cfg.json").write_text(json.dumps(SPARSIFY))
    (root / "config.json").write_text(json.dumps({"model": "meta-llama/Meta-Llama-3-8B", "sae": SPARSIFY}))
    return root


@pytest.mark.parametrize("normalised", [True, False])
def test_a_sparsify_sae_computes_what_sparse_coder_does(sparsify, normalised):
    edited(sparsify / "layers.10" / "cfg.json", normalize_decoder=normalised)
    saes = load_saes(sparsify)
    assert list(saes) == [2, 10]
    weights = load_file(sparsify / "layers.10" / "sae.safetensors")
    x = draw(50, D_IN)
    pre_acts = nn.functional.linear(x - weights["b_dec"], weights["encoder.weight"], weights["encoder.bias"]).relu()
    acts = top_k(pre_acts)
    assert torch.allclose(saes[10].encode(x), acts, atol=1e-5)
    assert torch.allclose(saes[10](x), acts @ weights["W_dec"] + weights["b_dec"], atol=1e-4)
    metadata = saes[10].cfg.metadata
    assert (metadata.hook_name, metadata.model_name) == ("blocks.10.hook_resid_post", "meta-llama/Meta-Llama-3-8B")


def test_sparsify_saes_in_half_precision_are_read_in_float32_and_saved_as_saelens_does(sparsify, tmp_path):
    file = sparsify / "layers.2" / "sae.safetensors"
    save_file({name: weight.bfloat16() for name, weight in load_file(file).items()}, file)
    edited(sparsify / "layers.2" / "cfg.json", num_latents=D_SAE)
    saes = load_saes(sparsify / "layers.2")
    again = load_saes(save_saes(saes, tmp_path / "again"))
    x = draw(20, D_IN)
    assert saes[2].W_enc.dtype == torch.float32 and torch.equal(again[2](x), saes[2](x))


def test_a_seed_of_a_sparsify_run_is_read_from_its_own_folder(sparsify):
    shutil.move(sparsify / "layers.2", sparsify / "seed1")
    (sparsify / "layers.2").mkdir()
    shutil.move(sparsify / "seed1", sparsify / "layers.2" / "seed1")
    assert list(load_saes(sparsify / "layers.2" / "seed1")) == [2]


@pytest.mark.parametrize("name", ["layers.3.mlp", "layers.3.attention", "embed_tokens", "layers", "layers.3.0"])
def test_a_sparsify_sae_of_another_place_is_refused(sparsify, name):
    (sparsify / "layers.2").rename(sparsify / name)
    with pytest.raises(ValueError, match=f"of the hookpoint {name}; only the residual stream after a block is served"):
        load_saes(sparsify)


@pytest.mark.parametrize(
    "kind",
    [{"transcode": True}, {"skip_connection": True}, {"activation": "groupmax"}, {"signed": True}],
    ids=lambda kind: next(iter(kind)),
)
def test_a_sparsify_coder_of_another_kind_is_refused(sparsify, kind):
    edited(sparsify / "layers.2" / "cfg.json", **kind)
    with pytest.raises(ValueError, match="only its plain Top-K autoencoders are read"):
        load_saes(sparsify / "layers.2")


@pytest.mark.parametrize("change", ["missing", "more", "another shape", "not finite", "truncated"])
def test_damaged_sparsify_weights_are_refused(sparsify, change):
    file = sparsify / "layers.2" / "sae.safetensors"
    weights = load_file(file)
    if change == "missing":
        del weights["b_dec"]
    weights |= {
        "more": {"W_skip": draw(D_IN, D_IN)},
        "another shape": {"W_dec": draw(D_IN, D_SAE)},
        "not finite": {"W_dec": weights["W_dec"] / 0},
    }.get(change, {})
    save_file(weights, file)
    if change == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"layers\.2 is damaged"):
        load_saes(sparsify)


@pytest.mark.parametrize("setting", [{"k": 0}, {"k": 97}, {"k": "8"}, {"k": None}, {"d_in": 31}, {"num_latents": 95}])
def test_sparsify_settings_that_cannot_be_are_refused(sparsify, setting):
    edited(sparsify / "layers.2" / "cfg.json", **setting)
    with pytest.raises(ValueError, match="is damaged or incomplete"):
        load_saes(sparsify / "layers.2")


# dictionary_learning


def linear_state(**others):
    state = {"encoder.weight": draw(D_SAE, D_IN), "encoder.bias": draw(D_SAE), "decoder.weight": draw(D_IN, D_SAE)}
    return state | others


def plain_state(**others):
    state = {"W_enc": draw(D_IN, D_SAE), "b_enc": draw(D_SAE), "W_dec": draw(D_SAE, D_IN), "b_dec": draw(D_IN)}
    return state | others


def state_of(dict_class):
    """What `ae.pt` holds, with the names and shapes of the class; its decoder's rows are not of norm 1."""
    k = {"k": torch.tensor(K, dtype=torch.int)}
    return {
        "AutoEncoder": lambda: linear_state(bias=draw(D_IN)),
        "AutoEncoderNew": lambda: linear_state(**{"decoder.bias": draw(D_IN)}),
        "AutoEncoderTopK": lambda: linear_state(b_dec=draw(D_IN), threshold=torch.tensor(3.0), **k),
        "BatchTopKSAE": lambda: linear_state(b_dec=draw(D_IN), threshold=torch.tensor(3.0), **k),
        "MatryoshkaBatchTopKSAE": lambda: plain_state(
            threshold=torch.tensor(3.0), group_sizes=torch.tensor([32, 64]), **k
        ),
        "JumpReluAutoEncoder": lambda: plain_state(threshold=6 * torch.rand(D_SAE)),
    }[dict_class]()


def naive(dict_class, state, x):
    """Activations and reconstruction as the class's own encode and decode give them (its `use_threshold` default)."""
    if dict_class in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        centred = x - state["b_dec"] if dict_class.startswith("Matryoshka") else x
        pre = centred @ state["W_enc"] + state["b_enc"]
        acts = (pre * (pre > state["threshold"])).relu()
        return acts, acts @ state["W_dec"] + state["b_dec"]
    bias = next(state[name] for name in ("bias", "decoder.bias", "b_dec") if name in state)
    centred = x if dict_class == "AutoEncoderNew" else x - bias
    acts = nn.functional.linear(centred, state["encoder.weight"], state["encoder.bias"]).relu()
    if dict_class == "AutoEncoderTopK":
        acts = top_k(acts)
    if dict_class == "BatchTopKSAE":
        acts = acts * (acts > state["threshold"])
    return acts, nn.functional.linear(acts, state["decoder.weight"]) + bias


CLASSES = [
    "AutoEncoder",
    "AutoEncoderNew",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
    "JumpReluAutoEncoder",
]


def write(folder, dict_class="AutoEncoderTopK", layer=8):
    folder.mkdir(parents=True)
    state = state_of(dict_class)
    trainer = {"dict_class": dict_class, "activation_dim": D_IN, "dict_size": D_SAE, "layer": layer}
    trainer |= {"lm_name": "EleutherAI/pythia-70m", "submodule_name": f"resid_post_layer_{layer}"}
    trainer |= {"k": K} if "k" in state else {}
    config = {"trainer": trainer, "buffer": {"d_submodule": D_IN, "io": "out", "ctx_len": 128}}
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "ae.pt")
    return state


@pytest.fixture
def dictionary(tmp_path):
    write(tmp_path / "run" / "trainer_0")
    return tmp_path / "run" / "trainer_0"


@pytest.mark.parametrize("dict_class", CLASSES)
def test_a_dictionary_computes_what_its_class_does(tmp_path, dict_class):
    state = write(tmp_path / "run" / "trainer_0", dict_class)
    sae = load_saes(tmp_path / "run")[8]
    x = draw(50, D_IN)
    acts, output = naive(dict_class, state, x)
    assert 0 < (acts > 0).float().mean() < 0.6
    assert torch.allclose(sae(x), output, atol=1e-3)
    norms = state["W_dec"].norm(dim=1) if "W_dec" in state else state["decoder.weight"].norm(dim=0)
    if dict_class == "AutoEncoderTopK":  # counting the norms in would change what is selected
        assert torch.allclose(sae.encode(x), acts, atol=1e-4)
    else:
        assert torch.allclose(sae.encode(x), acts * norms, atol=1e-3)
        assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(D_SAE))
    metadata = sae.cfg.metadata
    assert (metadata.hook_name, metadata.context_size) == ("blocks.8.hook_resid_post", 128)
    assert metadata.model_name == "EleutherAI/pythia-70m"


def test_dictionaries_of_several_layers_are_read_from_the_root(tmp_path):
    for layer in (3, 4):
        write(tmp_path / "run" / f"resid_post_layer_{layer}" / "trainer_0", "BatchTopKSAE", layer)
    saes = load_saes(tmp_path / "run")
    assert list(saes) == [3, 4]
    assert list(load_saes(save_saes(saes, tmp_path / "again"))) == [3, 4]
    write(tmp_path / "run" / "resid_post_layer_4" / "trainer_1", "AutoEncoder", 4)
    with pytest.raises(ValueError, match="holds two SAEs of layer 4"):
        load_saes(tmp_path / "run")


def test_code_in_a_dictionary_does_not_run(dictionary):
    class Trap:
        def __reduce__(self):
            return Path.touch, (dictionary / "ran",)

    (dictionary / "ae.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(ValueError, match="damaged or holds more than tensors, which can run code when read"):
        load_saes(dictionary)
    torch.save({"encoder.weight": Trap()}, dictionary / "ae.pt")
    with pytest.raises(ValueError, match="damaged or holds more than tensors"):
        load_saes(dictionary)
    assert not (dictionary / "ran").exists()


@pytest.mark.parametrize("dict_class", ["GatedAutoEncoder", "CrossCoder", None])
def test_a_dictionary_of_another_class_is_refused(dictionary, dict_class):
    edited(dictionary / "config.json", dict_class=dict_class)
    with pytest.raises(ValueError, match=f"of class {dict_class}; these classes are read: AutoEncoder, "):
        load_saes(dictionary)


@pytest.mark.parametrize("name", ["mlp_out_layer_8", "resid_post_layer_7", "resid_pre_layer_8", None])
def test_a_dictionary_of_another_place_is_refused(dictionary, name):
    edited(dictionary / "config.json", submodule_name=name)
    with pytest.raises(ValueError, match=rf"reads {name} \(out\) by its config.json; only the residual stream"):
        load_saes(dictionary)


def test_a_dictionary_of_a_blocks_input_is_refused(dictionary):
    config = json.loads((dictionary / "config.json").read_text())
    config["buffer"]["io"] = "in"
    (dictionary / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"reads resid_post_layer_8 \(in\)"):
        load_saes(dictionary)


def test_a_batch_topk_dictionary_without_a_threshold_is_refused(tmp_path):
    state = write(tmp_path / "run", "BatchTopKSAE")
    torch.save(state | {"threshold": torch.tensor(-1.0)}, tmp_path / "run" / "ae.pt")
    with pytest.raises(ValueError, match=r"was never given a threshold \(-1\)"):
        load_saes(tmp_path / "run")


@pytest.mark.parametrize(
    "change", ["missing", "more", "another shape", "not finite", "truncated", "empty", "a list", "no config", "other k"]
)
def test_damaged_dictionaries_are_refused(dictionary, change):
    file = dictionary / "ae.pt"
    state = torch.load(file, weights_only=True)
    if change == "missing":
        del state["encoder.bias"]
    state |= {
        "more": {"r_mag": draw(D_SAE)},
        "another shape": {"decoder.weight": draw(D_SAE, D_IN)},
        "not finite": {"b_dec": draw(D_IN) / 0},
        "other k": {"k": torch.tensor(K + 1)},
    }.get(change, {})
    torch.save(list(state.values()) if change == "a list" else state, file)
    if change in ("truncated", "empty"):
        file.write_bytes(file.read_bytes()[: -1000 if change == "truncated" else 0])
    if change == "no config":
        (dictionary / "config.json").unlink()
    with pytest.raises(ValueError, match=r"trainer_0(/ae\.pt)? is damaged"):
        load_saes(dictionary)
