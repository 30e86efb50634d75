"""SAEs on disk and in use: what is read, what is refused."""

import json
import pickle
import shutil
import warnings
from pathlib import Path

import pytest
import sae_lens
import torch
from conftest import tiny_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from saereason import Feature, load_saes, save_saes
from saereason.saes import SAE, check_saes, decoder_row, feature_acts, hashes, layer_of, sae_at, sae_hash
from saereason.saes.active import AT_ONCE, Encoder

ARCHITECTURES = ["standard", "jumprelu", "topk"]


@pytest.fixture(params=ARCHITECTURES)
def sae(request):
    return tiny_sae(request.param, 2)


@pytest.fixture
def saved(tmp_path):
    """The folder of one saved Top-K SAE, to be damaged."""
    return save_saes({2: tiny_sae("topk", 2)}, tmp_path / "saes") / "layer_02"


@pytest.fixture
def acts_in():
    return torch.randn(50, 32, generator=torch.Generator().manual_seed(0))


def rewrite(folder, metadata=None, **settings):
    cfg = json.loads((folder / "cfg.json").read_text())
    cfg["metadata"] |= metadata or {}
    (folder / "cfg.json").write_text(json.dumps(cfg | settings))


def rescaled(layer=2):
    """A Top-K SAE that counts its decoder's norms into its activations, as SAELens trains them."""
    sae = tiny_sae("topk", layer)
    sae.cfg.rescale_acts_by_decoder_norm = True
    sae.W_dec.data *= torch.linspace(0.2, 3.0, 96)[:, None]
    return sae


# on disk


def test_saving_and_loading_gives_the_same_bits(tmp_path, saes):
    loaded = load_saes(save_saes(saes, tmp_path / "saes"))
    assert list(loaded) == [0, 1, 2, 3]
    for layer, sae in saes.items():
        assert isinstance(loaded[layer], SAE)
        there = loaded[layer].state_dict()
        assert all(torch.equal(there[name], weight) for name, weight in sae.state_dict().items())
        assert len(there) == len(sae.state_dict()) and layer_of(loaded[layer]) == layer
        assert not loaded[layer].training and not loaded[layer].W_dec.requires_grad
    assert hashes(loaded) == hashes(saes)


def test_saelens_opens_what_was_saved(tmp_path, sae, acts_in):
    folder = save_saes({2: sae}, tmp_path / "saes")
    theirs = sae_lens.SAE.load_from_disk(folder / "layer_02")
    assert torch.equal(theirs.encode(acts_in), sae.encode(acts_in))
    assert torch.equal(theirs(acts_in), sae(acts_in))
    assert theirs.cfg.metadata.hook_name == "blocks.2.hook_resid_post"


def test_one_saes_own_folder_is_read_too(tmp_path, sae):
    assert list(load_saes(save_saes({2: sae}, tmp_path / "saes") / "layer_02")) == [2]
    assert list(load_saes(str(tmp_path / "saes"))) == [2]


def test_saving_replaces_saes_and_nothing_else(tmp_path):
    path = save_saes({1: tiny_sae("topk", 1), 2: tiny_sae("topk", 2)}, tmp_path / "saes")
    assert list(load_saes(save_saes({3: tiny_sae("topk", 3)}, path))) == [3]
    (tmp_path / "saes" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis.tex, which is no SAE and would be lost"):
        save_saes({1: tiny_sae("topk", 1)}, path)
    with pytest.raises(ValueError, match=r"holds thesis.tex"):
        save_saes({1: tiny_sae("topk", 1)}, path / "thesis.tex")
    assert (path / "thesis.tex").read_text() == "years of work" and list(path.glob("layer_*")) == [path / "layer_03"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["saes"]


def test_a_low_precision_sae_is_read_in_float32(saved):
    weights = load_file(saved / "sae_weights.safetensors")
    save_file({k: w.bfloat16() for k, w in weights.items()}, saved / "sae_weights.safetensors")
    rewrite(saved, dtype="bfloat16")
    (sae,) = load_saes(saved).values()
    assert sae.W_dec.dtype == torch.float32 == sae.encode(torch.ones(1, 32)).dtype
    assert torch.equal(sae.W_enc, weights["W_enc"].bfloat16().float())


def test_decoder_norms_are_folded_on_loading(tmp_path, acts_in):
    sae = rescaled()
    loaded = load_saes(save_saes({2: sae}, tmp_path / "saes"))[2]
    assert not loaded.cfg.rescale_acts_by_decoder_norm
    assert torch.allclose(loaded.W_dec.norm(dim=-1), torch.ones(96))
    assert torch.allclose(loaded.encode(acts_in), sae.encode(acts_in), atol=1e-5)
    assert torch.allclose(loaded(acts_in), sae(acts_in), atol=1e-5)


# what is refused on disk


@pytest.mark.parametrize("name", ["sae.pt", "sae.pth", "sae.pkl", "pytorch_model.bin"])
def test_pickles_are_not_read(tmp_path, name):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="is a pickle, which can run code"):
        load_saes(tmp_path / name)
    with pytest.raises(ValueError, match=rf"holds only pickles \({name}\), which are not read"):
        load_saes(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_saes_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no folder at .*nowhere"):
        load_saes(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no SAE; it should hold folders with"):
        load_saes(tmp_path)


@pytest.mark.parametrize("hook_name", [None, ""])
def test_an_sae_that_does_not_say_what_it_reads_is_refused(saved, hook_name):
    rewrite(saved, {"hook_name": hook_name})
    with pytest.raises(ValueError, match="does not say which hook point it reads"):
        load_saes(saved)


@pytest.mark.parametrize(
    "hook_name",
    [
        "blocks.2.hook_resid_pre",
        "blocks.2.hook_mlp_out",
        "blocks.2.attn.hook_z",
        "blocks.x.hook_resid_post",
        "blocks.².hook_resid_post",
        "blocks.-1.hook_resid_post",
        "hook_resid_post",
        "model.layers.2",
    ],
)
def test_an_sae_of_another_place_is_refused(saved, hook_name):
    rewrite(saved, {"hook_name": hook_name})
    with pytest.raises(ValueError, match="only the residual stream after a block is served"):
        load_saes(saved)


def test_the_other_name_of_the_same_place_will_do(saved):
    rewrite(saved, {"hook_name": "blocks.17.hook_out"})
    assert list(load_saes(saved)) == [17]


@pytest.mark.parametrize("kind", ["covariance_whitening", "expected_average_only_in"])
def test_an_sae_that_normalises_its_input_by_more_than_the_token_is_refused(saved, kind):
    rewrite(saved, normalize_activations=kind)
    with pytest.raises(ValueError, match=rf"normalises its input \({kind}\)"):
        load_saes(saved)


def test_an_sae_that_reads_earlier_tokens_is_refused(tmp_path):
    from sae_lens.saes.temporal_sae import TemporalSAE, TemporalSAEConfig

    cfg = TemporalSAEConfig(d_in=32, d_sae=96, bottleneck_factor=2, kval_topk=8, tied_weights=False)
    cfg.metadata["hook_name"] = "blocks.2.hook_resid_post"
    TemporalSAE(cfg).save_model(tmp_path / "saes")
    with pytest.raises(ValueError, match="is a temporal SAE, whose features read earlier tokens too"):
        load_saes(tmp_path / "saes")


def test_two_saes_of_one_layer_are_refused(saved):
    shutil.copytree(saved, saved.parent / "copy")
    with pytest.raises(ValueError, match="holds two SAEs of layer 2"):
        load_saes(saved.parent)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.9])
def test_truncated_weights_are_refused(saved, share):
    weights = saved / "sae_weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="is damaged or incomplete"):
        load_saes(saved)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"architecture": "gated"}', "\udcff"])
def test_damaged_settings_are_refused(saved, content):
    (saved / "cfg.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match="is damaged or incomplete"):
        load_saes(saved)


@pytest.mark.parametrize("change", ["missing", "another shape", "more", "not finite", "no file", "unknown kind"])
def test_weights_that_do_not_fit_are_refused(saved, change):
    path = saved / "sae_weights.safetensors"
    weights = load_file(path)
    changes = {"another shape": {"W_enc": torch.zeros(3, 3)}, "more": {"W_more": torch.zeros(3)}}
    changes["not finite"] = {"b_dec": torch.full((32,), float("nan"))}
    weights |= changes.get(change, {})
    if change == "missing":
        del weights["b_enc"]
    path.unlink()
    if change != "no file":
        save_file(weights, path)
    if change == "unknown kind":
        rewrite(saved, architecture="mystery")
    with pytest.raises(ValueError, match="is damaged"):
        load_saes(saved)


# in use


def test_saes_are_checked_against_the_model(model):
    check_saes(model, {layer: tiny_sae("topk", layer) for layer in range(4)})
    with pytest.raises(ValueError, match="is for d_model 48 and tiny-llama has 32; it belongs to another model"):
        check_saes(model, {2: tiny_sae("topk", 2, d_in=48)})
    with pytest.raises(ValueError, match="the SAE given for layer 1 reads layer 2"):
        check_saes(model, {1: tiny_sae("topk", 2)})
    with pytest.raises(ValueError, match="tiny-llama has no layer 4; its layers are 0 to 3"):
        check_saes(model, {4: tiny_sae("topk", 4)})


def test_an_sae_of_other_weights_is_warned_of(model):
    sae = tiny_sae("topk", 2)
    sae.cfg.metadata["model_hash"] = model.hash
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_saes(model, {2: sae})
    sae.cfg.metadata["model_hash"] = "0123456789abcdef"
    with pytest.warns(UserWarning, match="the SAE at layer 2 was trained on weights 0123456789abcdef") as told:
        check_saes(model, {2: sae})
        check_saes(model, {2: sae})
    assert len(told) == 1
    assert told[0].filename == __file__, "it points at the line of whoever uses saereason"


def test_a_feature_that_is_not_there_is_named(saes):
    assert sae_at(saes, Feature(2, 95)) is saes[2]
    with pytest.raises(ValueError, match=r"no SAE at layer 9; there are SAEs at layers \[0, 1, 2, 3\]"):
        sae_at(saes, Feature(9, 0))
    for index in (96, -1):
        with pytest.raises(ValueError, match=rf"L2/{index} is out of range; the SAE has features 0 to 95"):
            sae_at(saes, Feature(2, index))


@given(st.integers(0, 95), st.floats(0.01, 30))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_features_activation_is_its_column_of_the_full_encoding(architecture, index, scale):
    sae = tiny_sae(architecture, 1)
    x = scale * torch.randn(20, 32, generator=torch.Generator().manual_seed(index))
    theirs = sae.encode(x)[:, index]
    assert torch.allclose(feature_acts(sae, x, index), theirs, atol=1e-5 * scale, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("subtracts", [True, False])
def test_activations_agree_whether_or_not_the_decoder_bias_is_subtracted_first(architecture, subtracts, acts_in):
    sae = tiny_sae(architecture, 1)
    sae.cfg.apply_b_dec_to_input = subtracts
    every = torch.stack([feature_acts(sae, acts_in, n) for n in range(96)], dim=-1)
    assert torch.allclose(every, sae.encode(acts_in), atol=1e-5)
    assert (every > 0).any(0).sum() > 20 and (every == 0).any()


def test_activations_come_in_the_streams_precision(sae, acts_in):
    assert feature_acts(sae, acts_in.bfloat16(), 3).dtype == torch.bfloat16


@pytest.mark.parametrize("make", [rescaled, lambda: tiny_sae("topk", 2), lambda: tiny_sae("standard", 2)])
def test_a_decoder_row_is_what_one_unit_of_the_feature_adds(make):
    sae = make()
    for index in (0, 40, 95):
        one = torch.zeros(1, 96)
        one[0, index] = 1
        added = sae.decode(one)[0] - sae.decode(torch.zeros(1, 96))[0]
        assert torch.allclose(decoder_row(sae, index), added, atol=1e-6)


def test_the_hash_tells_saes_apart_by_weights_and_settings():
    sae = tiny_sae("topk", 2)
    assert sae_hash(sae) == sae_hash(tiny_sae("topk", 2))
    others = [tiny_sae("topk", 2, seed=1), tiny_sae("standard", 2), tiny_sae("topk", 2), tiny_sae("topk", 2)]
    others[2].b_dec.data[0] += 1e-3
    others[3].cfg.k = 4  # SAELens builds its activation from it
    assert len({sae_hash(other) for other in (sae, *others)}) == 5


@pytest.mark.parametrize("n", [0, 1, AT_ONCE, 2 * AT_ONCE + 3])
def test_tokens_are_encoded_in_pieces_and_come_out_as_the_sae_gives_them(topk_saes, n):
    sae = next(iter(topk_saes.values()))
    resid = torch.randn(n, sae.cfg.d_in, generator=torch.Generator().manual_seed(n))
    active = Encoder.of(sae, torch.float32)(resid)
    acts = torch.zeros(n, len(sae.W_dec))
    acts[active.token, active.index] = active.acts
    torch.testing.assert_close(acts, sae.encode(resid) if n else acts)
    assert (active.token.diff() >= 0).all(), "tokens ascend"
