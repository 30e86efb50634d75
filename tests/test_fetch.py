"""SAEs from the hub: SAELens's converters on local files of the true layout, the same checks as on disk."""

import json
import warnings

import numpy as np
import pytest
import torch
from conftest import tiny_sae
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from saereason import fetch_saes, save_saes
from saereason.saes import check_saes, feature_acts

GEMMA = "gemma-scope-2b-pt-res"
GEMMA_IDS = ["layer_2/width_16k/average_l0_141", "layer_3/width_16k/average_l0_142"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder that stands for the hub: `<repo>/<file>`; what is not in it cannot be reached."""

    def download(repo_id, filename, subfolder=None, **_):
        file = tmp_path / repo_id / (subfolder or "") / filename
        if not file.is_file():
            raise LocalEntryNotFoundError(f"cannot find {filename} in the cache and outgoing traffic is disabled")
        return str(file)

    monkeypatch.setattr("sae_lens.loading.pretrained_sae_loaders.hf_hub_download", download)
    return tmp_path


@pytest.fixture
def directory():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    return get_pretrained_saes_directory()


def put_lens(hub, repo, path, sae, **settings):
    """A SAELens SAE as it stands on the hub."""
    folder = hub / repo / path
    sae.save_model(folder)
    save_file({"sparsity": torch.zeros(96)}, folder / "sparsity.safetensors")
    cfg = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(cfg | settings))
    return folder


def put_gemma(hub, directory, monkeypatch, **changes):
    """Gemma Scope's params.npz, of the size of the tiny models."""
    release = directory[GEMMA]
    monkeypatch.setattr(release, "config_overrides", {"d_in": 32, "d_sae": 96, **changes.pop("overrides", {})})
    sae = tiny_sae("jumprelu", 2)
    names = {"w_enc": "W_enc", "w_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec", "threshold": "threshold"}
    for sae_id in GEMMA_IDS:
        folder = hub / release.repo_id / release.saes_map[sae_id]
        folder.mkdir(parents=True)
        params = {theirs: sae.state_dict()[ours].numpy() for theirs, ours in names.items()} | changes
        np.savez(folder / "params.npz", **params)
    return sae


def test_gemma_scope_saes_are_fetched(hub, directory, monkeypatch, model, tmp_path):
    source = put_gemma(hub, directory, monkeypatch)
    saes = fetch_saes(GEMMA, GEMMA_IDS[::-1])
    assert list(saes) == [2, 3]
    check_saes(model, saes)
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    pre_acts = x @ source.W_enc + source.b_enc  # Gemma Scope does not subtract the decoder's bias
    acts = pre_acts * (pre_acts > source.threshold)
    assert torch.allclose(saes[2].encode(x), acts, atol=1e-5) and (acts > 0).any()
    assert torch.allclose(feature_acts(saes[2], x, 7), acts[:, 7], atol=1e-5)
    assert not saes[2].training and not saes[2].W_dec.requires_grad
    save_saes(saes, tmp_path / "saes")


def test_a_saelens_sae_is_fetched_from_a_release_and_from_a_repository(hub, directory):
    sae = tiny_sae("topk", 1)
    put_lens(hub, "someone/saes", "blocks.1", sae)
    fetched = fetch_saes("someone/saes", "blocks.1")
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    assert list(fetched) == [1] and torch.equal(fetched[1].encode(x), sae.encode(x))
    name, entry = next((name, entry) for name, entry in directory.items() if entry.conversion_func is None)
    sae_id = next(iter(entry.saes_map))
    put_lens(hub, entry.repo_id, entry.saes_map[sae_id], sae)
    assert torch.equal(fetch_saes(name, [sae_id])[1].W_dec, sae.W_dec)


def test_names_that_saelens_does_not_list_come_with_close_ones():
    with pytest.raises(
        ValueError, match="lists no release 'gemma-scope-2b-pt-ress'; close ones are gemma-scope-2b-pt-res"
    ):
        fetch_saes("gemma-scope-2b-pt-ress", GEMMA_IDS)
    with pytest.raises(ValueError, match=r"lists no release '§§§'; there are \d+, such as "):
        fetch_saes("§§§", GEMMA_IDS)
    with pytest.raises(
        ValueError, match="has no SAE 'layer_2/width_16k/average_l0_140'; close ones are layer_2/width_16k"
    ):
        fetch_saes(GEMMA, [GEMMA_IDS[0], "layer_2/width_16k/average_l0_140"])
    with pytest.raises(ValueError, match="is a repository that SAELens lists as gemma-scope-2b-pt-res"):
        fetch_saes("google/gemma-scope-2b-pt-res", GEMMA_IDS)
    with pytest.raises(ValueError, match="no SAE of gemma-scope-2b-pt-res is asked for"):
        fetch_saes(GEMMA, [])


@pytest.mark.usefixtures("hub")
def test_what_the_hub_does_not_give_is_named():
    with pytest.raises(
        ValueError, match=r"the hub did not give blocks.1 of someone/saes \(cannot find blocks.1/cfg.json"
    ):
        fetch_saes("someone/saes", ["blocks.1"])


def test_two_saes_of_one_layer_are_not_fetched(hub):
    for path in ("a", "b"):
        put_lens(hub, "someone/saes", path, tiny_sae("topk", 1))
    with pytest.raises(ValueError, match="b of someone/saes is a second SAE of layer 1"):
        fetch_saes("someone/saes", ["a", "b"])


def test_saes_that_cannot_serve_are_not_fetched(hub):
    sae = tiny_sae("topk", 1)
    put_lens(hub, "someone/saes", "normalised", sae, normalize_activations="covariance_whitening")
    with pytest.raises(ValueError, match=r"normalised normalises its input \(covariance_whitening\)"):
        fetch_saes("someone/saes", "normalised")
    sae.cfg.metadata.hook_name = "blocks.1.hook_mlp_out"
    put_lens(hub, "someone/saes", "elsewhere", sae)
    with pytest.raises(ValueError, match=r"elsewhere reads blocks\.1\.hook_mlp_out; only the residual stream"):
        fetch_saes("someone/saes", "elsewhere")
    sae.b_dec.data[3] = float("nan")
    put_lens(hub, "someone/saes", "broken", sae)
    with pytest.raises(ValueError, match=r"the SAE in someone/saes/broken is damaged \(weights that are not finite"):
        fetch_saes("someone/saes", "broken")


def test_an_sae_whose_scale_saelens_does_not_know_is_refused(hub):
    put_lens(hub, "someone/saes", "scaled", tiny_sae("topk", 1), normalize_activations="expected_average_only_in")
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match=r"normalises its input \(expected_average_only_in\)"),
    ):
        warnings.simplefilter("ignore")
        fetch_saes("someone/saes", "scaled")


@pytest.mark.parametrize("change", ["truncated", "shape", "json"])
def test_damaged_files_are_named(hub, change):
    folder = put_lens(hub, "someone/saes", "one", tiny_sae("topk", 1), **({"d_sae": 95} if change == "shape" else {}))
    if change == "truncated":
        file = folder / "sae_weights.safetensors"
        file.write_bytes(file.read_bytes()[:-50])
    if change == "json":
        (folder / "cfg.json").write_text("{")
    with pytest.raises(ValueError, match="one of someone/saes is damaged or of an unknown kind"):
        fetch_saes("someone/saes", "one")


def test_decoder_norms_are_folded_on_fetching(hub):
    sae = tiny_sae("topk", 1)
    sae.cfg.rescale_acts_by_decoder_norm = True
    sae.W_dec.data *= torch.linspace(0.2, 3.0, 96)[:, None]
    put_lens(hub, "someone/saes", "one", sae)
    fetched = fetch_saes("someone/saes", "one")[1]
    assert torch.allclose(fetched.W_dec.norm(dim=1), torch.ones(96), atol=1e-5)
