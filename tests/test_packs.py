"""SAEs in 8 bits: little is lost, everything else survives, and a pack is expanded once."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import sleep

import pytest
import sae_lens
import torch
from conftest import tiny_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from saereason import load_saes
from saereason.saes import check_saes, feature_acts, pack, save_pack


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAEREASON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "saes"


@pytest.fixture
def file(tmp_path):
    return save_pack({layer: tiny_sae("topk", layer) for layer in (1, 3)}, tmp_path / "some.safetensors")


@given(
    st.integers(0, 10**6),
    st.sampled_from([0, 1]),
    st.floats(-30, 30),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_weight_comes_back_within_half_a_step(seed, axis, exponent, heavy):
    generator = torch.Generator().manual_seed(seed)
    weight = 10.0**exponent * torch.randn(7, 11, generator=generator) ** (5 if heavy else 1)
    weight.select(axis, 2)[:] = 0
    whole, step = pack.quantised(weight, axis)
    assert whole.dtype == torch.int8 and step.numel() == weight.shape[axis] and whole.abs().max() == 127
    error = (whole.float() * step - weight).abs()
    assert (error <= 0.501 * step).all() and (error.select(axis, 2) == 0).all()


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "topk"])
def test_a_packed_sae_encodes_and_decodes_as_before_but_for_rounding(tmp_path, architecture):
    sae = tiny_sae(architecture, 2)
    packed = load_saes(save_pack({2: sae}, tmp_path / "one.safetensors"))[2]
    for name, weight in sae.state_dict().items():
        if name in ("W_enc", "W_dec"):
            step = weight.abs().amax(0 if name == "W_enc" else 1, keepdim=True) / 127
            assert ((packed.state_dict()[name] - weight).abs() <= 0.501 * step).all()
        else:
            assert torch.equal(packed.state_dict()[name], weight)
    assert packed.cfg.to_dict() == sae.cfg.to_dict()
    x = torch.randn(200, 32, generator=torch.Generator().manual_seed(1))
    assert (packed.encode(x) > 0).eq(sae.encode(x) > 0).float().mean() > 0.99
    assert torch.allclose(feature_acts(packed, x, 5), packed.encode(x)[:, 5], atol=1e-5)


def test_little_explained_variance_is_lost(tmp_path):
    generator = torch.Generator().manual_seed(0)
    sae = tiny_sae("topk", 2, d_in=256, d_sae=512)
    directions = torch.nn.functional.normalize(torch.randn(512, 256, generator=generator), dim=1)
    sae.W_dec.data, sae.W_enc.data, sae.b_enc.data = directions, directions.T.contiguous(), torch.zeros(512)
    chosen = torch.rand(1000, 512, generator=generator).topk(8).indices
    acts = torch.zeros(1000, 512).scatter(1, chosen, 1 + torch.rand(1000, 8, generator=generator))
    x = sae.b_dec + acts @ directions
    packed = load_saes(save_pack({2: sae}, tmp_path / "one.safetensors"))[2]

    def explained(sae):
        return (1 - (x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()).item()

    assert explained(sae) > 0.5
    assert abs(explained(sae) - explained(packed)) < 1e-3
    assert torch.allclose(packed.W_dec.norm(dim=1), torch.ones(512), atol=2e-3)


def test_metadata_survives_whole(tmp_path):
    sae = tiny_sae("topk", 2)
    sae.cfg.metadata["model_hash"] = "0123456789abcdef"
    sae.cfg.metadata["design"] = {"d_sae": 96, "k": 8, "penalty": None, "steps": [1, {"warm": True}], "name": "é\n"}
    packed = load_saes(save_pack({2: sae}, tmp_path / "one.safetensors"))[2]
    assert packed.cfg.metadata.to_dict() == sae.cfg.metadata.to_dict()


def test_six_saes_of_4608_features_take_less_than_40_megabytes(tmp_path):
    size = save_pack({2: tiny_sae("topk", 2, d_in=576, d_sae=4608)}, tmp_path / "one.safetensors").stat().st_size
    assert 6 * size < 40e6


def test_saelens_opens_what_a_pack_is_expanded_to(file, cache, model):
    saes = load_saes(file)
    assert list(saes) == [1, 3] and not saes[1].training and not saes[1].W_dec.requires_grad
    check_saes(model, saes)
    (folder,) = (entry for entry in cache.iterdir() if entry.is_dir())
    assert folder.name.startswith("some-")
    assert torch.equal(sae_lens.SAE.load_from_disk(folder / "layer_03").W_dec, saes[3].W_dec)


def test_a_pack_is_expanded_once(file, cache, monkeypatch):
    first = load_saes(file)
    monkeypatch.setattr("saereason.saes.disk.unpack", lambda file: pytest.fail("expanded again"))
    again = load_saes(file)
    assert all(torch.equal(again[layer].W_enc, first[layer].W_enc) for layer in (1, 3))
    monkeypatch.undo()
    monkeypatch.setenv("SAEREASON_CACHE", str(cache.parent))
    save_pack({1: tiny_sae("topk", 1, seed=1)}, file)
    assert list(load_saes(file)) == [1]
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 2


def test_two_at_once_expand_a_pack_once_and_both_succeed(file, cache, monkeypatch):
    calls, barrier = [], Barrier(2)

    def slow(file):
        calls.append(file)
        sleep(0.3)
        return pack.unpack(file)

    def load(_):
        barrier.wait()
        return float(load_saes(file)[3].W_dec.sum())

    monkeypatch.setattr("saereason.saes.disk.unpack", slow)
    with ThreadPoolExecutor(2) as pool:  # each opens the lock file anew, so they exclude each other as processes do
        first, second = pool.map(load, range(2))
    assert first == second and calls == [file]
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 1


def test_a_failed_expansion_leaves_nothing_behind(file, cache, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("sae_lens.SAE.save_model", fail)
    with pytest.raises(OSError, match="disk full"):
        load_saes(file)
    assert [entry for entry in cache.iterdir() if entry.is_dir()] == []


def test_a_pack_has_a_name(file, monkeypatch):
    monkeypatch.setitem(pack.PACKS, "smollm2-135m", file)
    assert list(load_saes("smollm2-135m")) == [1, 3]
    monkeypatch.setitem(pack.PACKS, "smollm2-135m", file.with_name("gone.safetensors"))
    with pytest.raises(ValueError, match=r"the pack smollm2-135m is missing from this installation \(.*gone"):
        load_saes("smollm2-135m")


def test_what_is_no_pack_is_refused(tmp_path):
    other = tmp_path / "sae_weights.safetensors"
    save_file(tiny_sae("topk", 2).state_dict(), other)
    with pytest.raises(ValueError, match=r"sae_weights.safetensors is no pack of SAEs"):
        load_saes(other)
    with pytest.raises(ValueError, match=r"no folder at .*none.safetensors; give the folder .* or a pack"):
        load_saes(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"let it end in .safetensors"):
        save_pack({2: tiny_sae("topk", 2)}, tmp_path / "pack.bin")


@pytest.mark.parametrize("change", ["truncated", "missing", "another shape", "settings", "not finite"])
def test_a_damaged_pack_is_refused(file, change):
    saes = {1: tiny_sae("topk", 1)}
    settings = {1: saes[1].cfg.to_dict()}
    if change == "not finite":
        saes[1].W_enc.data[0, 0] = float("inf")
        save_pack(saes, file)
    else:
        tensors = load_file(save_pack(saes, file))
        if change == "missing":
            del tensors["1.W_dec.scale"]
        if change == "another shape":
            tensors["1.b_enc"] = torch.zeros(3)
        text = "{" if change == "settings" else json.dumps(settings)
        save_file(tensors, file, metadata={"format": pack.FORMAT, "settings": text})
    if change == "truncated":
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is damaged"):
        load_saes(file)
