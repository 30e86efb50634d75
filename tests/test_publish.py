"""A published folder opens everywhere, its card says what is known, and only what belongs there is uploaded."""

import math
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
import sae_lens
import torch
from conftest import tiny_sae
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from saereason import Quality, load_saes, publishable, push
from saereason.publish.card import plain
from saereason.saes import hashes

SAID = {"data": "generated word problems", "licence": "apache-2.0"}
HOSTILE = "x | y\n---\nlicense: mit\n<script>alert(1)</script> [a](javascript:b) `c` **d** \u202e \ud800 | # e\\"


def quality(layer, **values):
    figures = {"explained_variance": 0.91, "l0": 32.0, "dead": 0.125, "loss_clean": 3.25, "loss_spliced": 3.5}
    figures |= {"loss_mean_ablated": 7.75, "loss_recovered": 0.944, "mean_norm": 12.5}
    return Quality(layer=layer, n_tokens=51_200, firing_rate=np.zeros(96), **(figures | values))


def saes(**card):
    found = {layer: tiny_sae("topk", layer) for layer in (9, 14)}
    for sae in found.values():
        facts = {"model_name": "tiny", "model_hash": "0123456789abcdef", "seed": 7, "n_tokens": 184_320} | card
        for key, value in facts.items():
            sae.cfg.metadata[key] = value
    return found


def cells(card, layer):
    [row] = re.findall(rf"^\| {layer} \|.*$", card, re.MULTILINE)
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.fixture
def folder(tmp_path):
    return publishable(saes(), tmp_path / "hub", qualities=[quality(9), quality(14)], **SAID)


def test_a_published_folder_opens_in_saelens_and_here(folder):
    assert hashes(load_saes(folder)) == hashes(saes())
    x = torch.randn(5, 32)
    assert torch.equal(sae_lens.SAE.load_from_disk(folder / "layer_14")(x), saes()[14](x))
    assert sorted(entry.name for entry in folder.iterdir()) == ["README.md", "layer_09", "layer_14"]


def test_the_card_is_one_to_the_hub(tmp_path):
    path = publishable(saes(), tmp_path / "hub", qualities=[quality(9), quality(14)], base_model="a/b", **SAID)
    card = ModelCard.load(path / "README.md")
    assert card.data.library_name == "saelens" and card.data.license == "apache-2.0" and card.data.base_model == "a/b"
    assert {"sparse-autoencoder", "saereason"} <= set(card.data.tags)


def test_the_card_says_what_is_known(tmp_path):
    design = {"architecture": "topk", "k": 8, "lr": 1.5e-3, "penalty": None}
    card = (
        publishable(
            saes(design=design, prepend_bos=False),
            tmp_path / "hub",
            qualities=[quality(9), quality(14, explained_variance=0.5, loss_recovered=math.nan)],
            base_licence="Gemma terms",
            repo_id="me/mine",
            **SAID,
        )
        / "README.md"
    ).read_text()
    assert cells(card, 9) == ["9", "0.910", "32.000", "0.125", "3.250", "3.500", "7.750", "0.944", "12.500", "51,200"]
    assert cells(card, 14)[1] == "0.500" and cells(card, 14)[7] == "–"
    for said in ("generated word problems", "Licence of the base model: Gemma terms", "| seed | 7 |", "184320"):
        assert said in card
    for name, value in [
        ("hash of the model's weights", "0123456789abcdef"),
        ("design: lr", "0.0015"),
        ("d\\_sae", "96"),
    ]:
        assert f"| {name} | {value} |" in card
    assert "| precision of the weights | float32 |" in card and "| texts begin with BOS | False |" in card
    for layer, digest in hashes(saes()):
        assert f"layer {layer}: {digest}" in card
    assert "penalty" not in card
    assert 'SAE.from_pretrained("me/mine", "layer_09")' in card and 'sr.load_saes(snapshot_download("me/mine"))' in card
    assert "## Limits" in card


def test_what_others_wrote_stays_text(tmp_path):
    design = {"k": HOSTILE, HOSTILE: 1}
    path = publishable(
        saes(model_name=HOSTILE, model_hash=HOSTILE, design=design, seed=HOSTILE),
        tmp_path / "hub",
        qualities=[quality(9), quality(14)],
        data=HOSTILE,
        licence="mit",
        base_licence=HOSTILE,
    )
    card = ModelCard.load(path / "README.md")
    assert card.data.to_dict().keys() == {"library_name", "license", "tags"} and card.data.license == "mit"
    tables = [line for line in card.text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {3, 11}
    assert "<script" not in card.text and "\u202e" not in card.text and not re.search(r"(?<!\\)\[a", card.text)
    assert not re.search(r"^(---|license)", card.text, re.MULTILINE)
    assert plain("a  b\n# c") == "a b \\# c"


def test_figures_may_be_those_on_the_saes_own_cards(tmp_path):
    figures = {
        "explained_variance": 0.75,
        "l0": 8.0,
        "dead": 0.5,
        "loss_recovered": 0.25,
        "mean_norm": 3,
        "n_tokens": 99,
    }
    card = publishable(saes(quality=figures), tmp_path / "hub", qualities=[quality(14)], **SAID) / "README.md"
    assert cells(card.read_text(), 9) == ["9", "0.750", "8.000", "0.500", "–", "–", "–", "0.250", "3", "99"]
    assert cells(card.read_text(), 14)[1] == "0.910"
    with pytest.raises(ValueError, match="there are no figures for layer 9; measure with `evaluate_saes`"):
        publishable(saes(), tmp_path / "other", qualities=[quality(14)], **SAID)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"licence": "Apache 2"}, "licence is 'Apache 2'; give the hub's short name"),
        ({"licence": "mit\nx: y"}, "give the hub's short name"),
        ({"data": " "}, "say what data"),
        ({"base_model": "two words/x"}, "'two words/x' is no name on the hub"),
        ({"base_model": "smollm2-135m"}, "'smollm2-135m' is no name on the hub"),
        ({"repo_id": 'a/b"'}, "is no name on the hub"),
    ],
)
def test_a_card_that_could_not_be_right_is_refused(tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        publishable(saes(), tmp_path / "hub", qualities=[quality(9), quality(14)], **(SAID | change))
    assert not (tmp_path / "hub").exists()


def test_nothing_is_overwritten(tmp_path, folder):
    before = (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="hub is there already; give a new folder"):
        publishable(saes(), folder, qualities=[quality(9), quality(14)], **SAID)
    with pytest.raises(ValueError, match="there are 0 SAEs"):
        publishable({}, tmp_path / "none", **SAID)
    assert (folder / "README.md").read_text() == before
    with pytest.raises(ValueError, match="given for layer 3 reads layer 9"):
        publishable({3: saes()[9]}, tmp_path / "none", qualities=[quality(3)], **SAID)


# push


class Hub:
    """What is asked of the hub, without one."""

    def __init__(self, private=True):
        self.private, self.asked = private, []

    def create_repo(self, repo_id, **options):
        self.asked.append(("create", repo_id, options["private"]))

    def repo_info(self, repo_id, **options):  # noqa: ARG002
        return SimpleNamespace(private=self.private)

    def upload_folder(self, *, repo_id, folder_path, **options):  # noqa: ARG002
        self.asked.append(("upload", repo_id, folder_path))


def test_a_push_uploads_the_folder_and_is_private_unless_said_otherwise(folder):
    hub = Hub()
    assert push(folder, "me/mine", api=hub) == "https://huggingface.co/me/mine"
    assert hub.asked == [("create", "me/mine", True), ("upload", "me/mine", str(folder))]
    open_hub = Hub(private=False)
    push(folder, "me/mine", private=False, api=open_hub)
    assert open_hub.asked[0] == ("create", "me/mine", False)


def test_nothing_private_is_pushed_to_a_public_repository(folder):
    hub = Hub(private=False)
    with pytest.raises(ValueError, match="me/mine is public; use private=False if that is meant"):
        push(folder, "me/mine", api=hub)
    assert [asked[0] for asked in hub.asked] == ["create"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("layer_09/optimizer.pt", b"anything"),
        ("model.bin", b"anything"),
        ("notes.txt", b"anything"),
        ("sae.json", pickle.dumps({"a": 1})),
        ("layer_09/more.safetensors", pickle.dumps({"a": 1})),
        ("zip.md", b"PK\x03\x04\0\0"),
        (".git-credentials", b"token"),
    ],
)
def test_what_is_no_part_of_it_is_not_pushed(folder, name, content):
    (folder / name).write_bytes(content)
    hub = Hub()
    with pytest.raises(ValueError, match=rf"{re.escape(name)} would be uploaded, and is neither card, settings nor"):
        push(folder, "me/mine", api=hub)
    assert not hub.asked


def test_a_folder_that_is_not_ready_is_not_pushed(tmp_path, folder):
    hub = Hub()
    for repo_id in ("mine", "me/my own", "a/b/c"):
        with pytest.raises(ValueError, match="is no name on the hub; give one such as owner/name"):
            push(folder, repo_id, api=hub)
    (tmp_path / "secret.json").write_text("{}")
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ValueError, match=r"link\.json would be uploaded"):
        push(folder, "me/mine", api=hub)
    (folder / "link.json").unlink()
    save_file({"W_dec": torch.zeros(2, 2)}, folder / "layer_14" / "sae_weights.safetensors")
    with pytest.raises(ValueError, match="is damaged"):
        push(folder, "me/mine", api=hub)
    (folder / "README.md").write_text("# no front matter")
    with pytest.raises(ValueError, match="has no model card"):
        push(folder, "me/mine", api=hub)
    assert not hub.asked
