"""Published releases: miniatures of their files as they stand on the hub, fetched, checked by hand, and searched.

The layouts are those that SAELens 6.54's converters read: Gemma Scope's `params.npz`, the pickle of tensors of
qresearch's SAE of DeepSeek-R1-Distill-Llama-8B, and the config and safetensors of Llama Scope R1 Distill. The names and
the release table (repository, path, scale of the input) are SAELens's own; the sizes are those of tiny models.
"""

import json
import os

import numpy as np
import pytest
import torch
from conftest import tiny_model
from huggingface_hub.errors import LocalEntryNotFoundError
from pandas import read_parquet
from safetensors.torch import save_file
from typer.testing import CliRunner

from saereason import Examples, Feature, add_max_t, fetch_saes, hooks, load_saes, save_saes, search
from saereason.cli import app
from saereason.model import pad
from saereason.saes import check_saes, feature_acts, saes_of

D_MODEL, D_SAE = 32, 64
ON, OFF = [f"{n} and {n + 1}? Think." for n in range(8)], [f"{n} and {n + 1}? Say it." for n in range(8)]

GEMMA = "gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"
CANONICAL = "gemma-scope-2b-pt-res-canonical", "layer_20/width_16k/canonical"
QRESEARCH = "deepseek-r1-distill-llama-8b-qresearch", "blocks.19.hook_resid_post"
LLAMA_SCOPE = "llama_scope_r1_distill", "l15r_800m_slimpajama"
LAYERS = {GEMMA: 20, CANONICAL: 20, QRESEARCH: 19, LLAMA_SCOPE: 15}
RELEASES = pytest.mark.parametrize("release", LAYERS, ids=lambda release: release[0])


def release_of(name):
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    return get_pretrained_saes_directory()[name]


def weights(seed=0):
    """Encoder and decoder as `[in, out]`, biases and thresholds; decoder rows are not of norm 1."""
    rng = np.random.default_rng(seed)
    drawn = {"enc": rng.standard_normal((D_MODEL, D_SAE)), "dec": rng.standard_normal((D_SAE, D_MODEL))}
    biases = {"b_enc": rng.standard_normal(D_SAE), "b_dec": rng.standard_normal(D_MODEL)}
    threshold = {"threshold": rng.uniform(0.1, 4, D_SAE)}
    return {name: value.astype(np.float32) for name, value in {**drawn, **biases, **threshold}.items()}


def put(hub, release, seed=0):
    """The files of a release's SAE under the folder that stands for the hub; gives its weights."""
    listed, made = release_of(release[0]), weights(seed)
    place = hub / listed.repo_id / listed.saes_map[release[1]]
    tensors = {name: torch.from_numpy(value) for name, value in made.items()}
    linear = {
        "encoder.weight": tensors["enc"].T.contiguous(),
        "encoder.bias": tensors["b_enc"],
        "decoder.weight": tensors["dec"].T.contiguous(),
        "decoder.bias": tensors["b_dec"],
    }
    place.parent.mkdir(parents=True, exist_ok=True)
    if release in (GEMMA, CANONICAL):
        place.mkdir()
        named = {"W_enc": "enc", "W_dec": "dec", "b_enc": "b_enc", "b_dec": "b_dec", "threshold": "threshold"}
        np.savez(place / "params.npz", **{theirs: made[ours] for theirs, ours in named.items()})
    elif release == QRESEARCH:
        torch.save({name: value.bfloat16() for name, value in linear.items()}, place)
        made = {name: tensors[name].bfloat16().float().numpy() for name in made}
    else:
        place.mkdir()
        cfg = {"d_model": D_MODEL, "expansion_factor": 2, "hook_point_in": "blocks.15.hook_resid_post"}
        (place / "config.json").write_text(json.dumps(cfg))
        save_file(linear | {"log_jumprelu_threshold": tensors["threshold"].log()}, place / "sae_weights.safetensors")
    return made


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder in place of the hub; SAELens's sizes, which some of its converters take for granted, made tiny."""

    def download(repo_id, filename, subfolder=None, **_):
        file = tmp_path / repo_id / (subfolder or "") / filename
        if not file.is_file():
            raise LocalEntryNotFoundError(f"cannot find {filename} in the cache and outgoing traffic is disabled")
        return str(file)

    monkeypatch.setattr("sae_lens.loading.pretrained_sae_loaders.hf_hub_download", download)
    for name, _ in (GEMMA, CANONICAL, QRESEARCH):
        monkeypatch.setattr(release_of(name), "config_overrides", {"d_in": D_MODEL, "d_sae": D_SAE})
    return tmp_path


def by_hand(release, made, x):
    """What the release's authors compute: activations, and the reconstruction."""
    scale = release_of(LLAMA_SCOPE[0]).norm_scaling_factor[LLAMA_SCOPE[1]] if release == LLAMA_SCOPE else 1.0
    pre_acts = scale * x @ made["enc"] + made["b_enc"]
    fires = pre_acts > (0 if release == QRESEARCH else made["threshold"])
    acts = np.where(fires, pre_acts, 0)
    return acts, (acts @ made["dec"] + made["b_dec"]) / scale


def model_of(release):
    """A tiny model of the release's family that is deep enough."""
    return tiny_model("gemma3" if release in (GEMMA, CANONICAL) else "llama", n_layers=LAYERS[release] + 1)


@RELEASES
def test_a_release_is_read_as_its_authors_wrote_it(hub, release):
    made = put(hub, release)
    saes = fetch_saes(*release)
    assert list(saes) == [LAYERS[release]]
    sae = saes[LAYERS[release]]
    x = 0.1 * np.random.default_rng(1).standard_normal((50, D_MODEL)).astype(np.float32)
    acts, decoded = by_hand(release, made, x)
    assert 0.05 < (acts > 0).mean() < 0.95
    found = sae.encode(torch.from_numpy(x))
    np.testing.assert_allclose(found, acts, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(sae.decode(found), decoded, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(feature_acts(sae, torch.from_numpy(x), 5), found[:, 5], rtol=1e-3, atol=1e-3)
    assert sae.W_dec.dtype == torch.float32 and not sae.W_dec.requires_grad


@RELEASES
def test_a_release_is_searched(hub, tmp_path, release):
    made, model, layer = put(hub, release), model_of(release), LAYERS[release]
    saes = fetch_saes(*release)
    check_saes(model, saes)
    table = search(model, saes, Examples.pair(model, ON, OFF), block=tmp_path / "block")
    assert list(table) == [Feature(layer, index) for index in range(D_SAE)]
    mean = []
    for prompts in (ON, OFF):
        rows = [hooks.read(model, pad([model.encode(p)], pad_token=0), [layer])[layer][0, -1].numpy() for p in prompts]
        mean.append(by_hand(release, made, np.stack(rows))[0].mean(0))
    np.testing.assert_allclose(table["difference"], mean[0] - mean[1], rtol=1e-3, atol=1e-3)
    assert (np.abs(table["difference"]) > 0.01).sum() > 5
    adjusted = add_max_t(table, tmp_path / "block", n_permutations=99)["p_max_t"]
    assert ((adjusted >= 0.01) & (adjusted <= 1)).all() and adjusted.min() < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("release", [GEMMA, LLAMA_SCOPE], ids=lambda release: release[0])
def test_one_command_searches_a_release_and_challenges_what_it_finds(hub, tmp_path, release):
    put(hub, release)
    model = model_of(release)
    model.hf.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    named, out = f"hub:{release[0]}:{release[1]}", tmp_path / "out"
    options = ["--model", str(tmp_path / "model"), "--saes", named, "--top", "1", "--out", str(out)]
    result = CliRunner().invoke(app, ["challenge", "step-words", *options])
    assert result.exit_code == 0, result.output
    verdicts = read_parquet(out / "verdicts.parquet")
    assert (verdicts.groupby("feature").size() == 8).all() and set(verdicts["feature"]) <= {
        str(Feature(LAYERS[release], index)) for index in range(D_SAE)
    }
    assert len(read_parquet(out / "proposals.parquet")) == D_SAE
    assert "who stands on the ladder?" in (out / "report.html").read_text(encoding="utf8")


@pytest.mark.parametrize("name", ["hub:", "hub:gemma-scope-2b-pt-res", "hub::layer_20", "hub:gemma-scope-2b-pt-res: ,"])
def test_a_hub_name_without_a_release_or_an_id_is_refused(name):
    with pytest.raises(ValueError, match="name a release and its SAEs, such as hub:gemma-scope"):
        saes_of(name)


def test_a_release_is_kept_and_loaded_again(hub, tmp_path):
    put(hub, LLAMA_SCOPE)
    saes = fetch_saes(*LLAMA_SCOPE)
    again = load_saes(save_saes(saes, tmp_path / "saes"))
    x = torch.randn(20, D_MODEL, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again[15].encode(x), saes[15].encode(x))


def test_gemma_scopes_canonical_saes_are_those_they_name(hub):
    put(hub, GEMMA)
    named, canonical = fetch_saes(*GEMMA)[20], fetch_saes(*CANONICAL)[20]
    assert torch.equal(named.W_enc, canonical.W_enc) and torch.equal(named.threshold, canonical.threshold)


def test_a_pickle_with_code_in_place_of_tensors_is_not_run(hub):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(hub / "sprung"),)

    listed = release_of(QRESEARCH[0])
    file = hub / listed.repo_id / listed.saes_map[QRESEARCH[1]]
    file.parent.mkdir(parents=True)
    torch.save({"encoder.weight": Trap()}, file)
    with pytest.raises(ValueError, match="is damaged or of an unknown kind"):
        fetch_saes(*QRESEARCH)
    assert not (hub / "sprung").exists()
