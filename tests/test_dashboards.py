"""Dashboards go out and come back as they were, what Neuronpedia, SAEDashboard and Delphi write is read, and whatever
is wrong with a file is said with its line."""

import gzip
import json
import pickle
import string
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_sae
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import saereason as sr
from saereason.explorer.exchange.dashboard import Dashboard, Excerpt, Explanation, Origin
from saereason.explorer.exchange.firings import Firings
from saereason.features import Feature
from saereason.hooks import read
from saereason.model import Model, pad
from saereason.saes import Encoder

ODD = [
    "</script>",
    "\u200b",
    "\ud800",
    "\udfff\ud83d",
    "\u202eright to left\u202c",
    "שלום",
    "\x00",
    "\n",
    "\r",
    "\u2028",
]
ODD += ["", " ", "�", "👩‍👩‍👧", '"\\', "<|im_start|>", "Ġthe", "\x1e\x85"]


@pytest.fixture(scope="module")
def saes():
    return {layer: tiny_sae("topk", layer) for layer in (1, 3)}


@pytest.fixture(scope="module")
def rows(model):
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(0, model.d_vocab, (n,), generator=generator).tolist() for n in [3, 14, 9, 1, 22, 5, 17, 40]]


@pytest.fixture(scope="module")
def cards(model, saes, rows):
    contexts = sr.feature_contexts(model, saes, rows, n_top=4, n_sampled=8)
    dead = contexts.features[contexts.density.sum(1) == 0].tolist()[0]
    chosen = sorted([*((layer, index) for layer in (1, 3) for index in range(8)), tuple(dead)])
    return [sr.feature_card(model, saes, Feature(*each), contexts) for each in chosen]


@pytest.fixture(scope="module")
def dashboards(model, saes, rows, cards):
    return sr.feature_dashboards(model, saes, cards, rows, before=5, after=3, dataset="tiny")


@pytest.fixture(scope="module")
def firings(model, saes, rows):
    return sr.feature_firings(model, saes, rows)


def plain_acts(model, sae, layer, row):
    """The activations of all features on a row, `[pos, feature]`, its first token left out."""
    acts = np.zeros((len(row), len(sae.W_dec)))
    if len(row) > 1:
        with torch.no_grad():
            resid = read(model, pad([row], pad_token=0), [layer])[layer][0, 1:]
        active = Encoder.of(sae, model.dtype)(resid)
        acts[active.token + 1, active.index] = active.acts
    return acts


def same(one, other):
    """Whether two sets of firings are equal but for how many tokens were skipped."""
    names = ("layer", "d_sae", "n_tokens", "model", "hookpoint", "dataset")
    columns = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("index", "row", "pos", "act"))
    rows = len(one.rows) == len(other.rows) and all(map(np.array_equal, one.rows, other.rows))
    return columns and rows and all(getattr(one, name) == getattr(other, name) for name in names)


# dashboards and firings


def test_a_dashboard_shows_what_its_card_points_at(model, saes, rows, cards, dashboards):
    assert any(card.top for card in cards) and not all(card.top for card in cards)
    for card, found in zip(cards, dashboards, strict=True):
        assert (found.feature, found.firing_rate, found.max_act) == (card.feature, card.firing_rate, card.max_act)
        assert (found.raised, found.lowered) == (card.written.raised, card.written.lowered)
        assert sum(count for _, count in found.density) == pytest.approx(card.firing_rate * card.n_tokens)
        assert sum(count for _, count in found.logits) == model.d_vocab
        top = [each for each in found.excerpts if each.band is None]
        quantiles = {context for each in card.quantiles.values() for context in each}
        assert len(top) == len(card.top) and len(found.excerpts) - len(top) == len(quantiles)
        for context, each in zip(card.top, top, strict=True):
            row, start = rows[context.row], max(1, context.pos - 5)
            assert each.at == context.pos - start and each.acts[each.at] == context.act
            assert each.tokens == tuple(model.tokenizer.decode([t]) for t in row[start : context.pos + 4])
            acts = plain_acts(model, saes[card.feature.layer], card.feature.layer, row)[:, card.feature.index]
            assert each.acts == pytest.approx(acts[start : context.pos + 4], rel=1e-4, abs=1e-6)
        for each in found.excerpts[len(top) :]:
            low, high, share = each.band
            assert low <= each.acts[each.at] < high and 0 < share <= found.firing_rate
        assert found.origin.n_rows == len(rows) and found.origin.hook_name.endswith("hook_resid_post")


def test_firings_are_all_that_a_plain_loop_finds(model, saes, rows, firings):
    for layer, found in firings.items():
        expected = {
            (index, n, pos): act
            for n, row in enumerate(rows)
            for (pos, index), act in np.ndenumerate(plain_acts(model, saes[layer], layer, row))
            if act > 0
        }
        keys = list(zip(found.index.tolist(), found.row.tolist(), found.pos.tolist(), strict=True))
        assert keys == sorted(expected)
        assert found.act == pytest.approx([expected[key] for key in keys], rel=1e-4)
        assert found.hookpoint == f"layers.{layer}" and found.n_tokens == sum(len(row) - 1 for row in rows)
    some = sr.feature_firings(model, saes, rows, [Feature(3, 5), Feature(3, 2)], batch_size=3)
    assert list(some) == [3] and set(some[3].index.tolist()) == {2, 5}
    for mine, all_of in zip(some[3].of(5), firings[3].of(5), strict=True):
        assert mine == pytest.approx(all_of, rel=1e-4)


def test_dashboards_from_firings_agree_with_cards(model, firings, cards):
    found = {each.feature: each for each in sr.firing_dashboards(model, firings[3], range(96), n_top=4, n_each=2)}
    for card in (each for each in cards if each.feature.layer == 3):
        each = found[card.feature]
        assert each.firing_rate == pytest.approx(card.firing_rate) and each.max_act == pytest.approx(card.max_act)
        assert each.density == tuple(((low + high) / 2, count) for low, high, count in card.density)
        top = [shown.acts[shown.at] for shown in each.excerpts if shown.band is None]
        assert top == pytest.approx([context.act for context in card.top], rel=1e-4)
        for shown_ in each.excerpts[len(top) :]:
            assert shown_.band[0] <= shown_.acts[shown_.at] < shown_.band[1]
    assert found == {
        each.feature: each for each in sr.firing_dashboards(model, firings[3], range(96), n_top=4, n_each=2)
    }


def test_rows_models_and_features_that_do_not_fit_are_refused(model, saes, rows, cards, firings):
    with pytest.raises(ValueError, match="points at row 7 of 2; give the rows"):
        sr.feature_dashboards(model, saes, cards, rows[:2])
    with pytest.raises(ValueError, match="fires nowhere that its card says"):
        sr.feature_dashboards(model, saes, cards, [[5] * 50 for _ in rows])
    with pytest.raises(ValueError, match="1 rows, first tokens left out, and 2 layers"):
        sr.feature_firings(model, saes, [[4]])
    with pytest.raises(ValueError, match="features 3 to 96 are not all among the 96"):
        sr.firing_dashboards(model, firings[1], [3, 96])
    with pytest.raises(ValueError, match="without their tokens"):
        sr.firing_dashboards(model, replace(firings[1], rows=None))
    with pytest.raises(ValueError, match="3 tokens and 2 activations"):
        Excerpt(("a", "b", "c"), (1.0, 2.0))
    with pytest.raises(ValueError, match="has none at 2"):
        Excerpt(("a", "b"), (1.0, 2.0), at=2)


def test_special_tokens_and_the_spaces_of_sentencepiece_are_shown(model):
    assert model.token_text(1) == "<|im_start|>"
    pieces = {1: "▁the", 2: "cat", 3: "▁", 4: "▁▁x"}
    decoded = {1: "the", 2: "cat", 3: "", 4: "▁▁x"}
    tokenizer = SimpleNamespace(
        decode=lambda tokens, **_: decoded[tokens[0]], convert_ids_to_tokens=lambda token: pieces[token]
    )
    show = Model(None, tokenizer, "pieces").token_text
    assert [show(n) for n in (1, 2, 3, 4, 1)] == [" the", "cat", " ", "▁▁x", " the"]


# out and back


def test_neuronpedia_brings_back_what_went_out(dashboards, tmp_path):
    said = Explanation("</script> is \u200bwritten", "gpt-4o-mini", "np_max-act")
    given = [replace(each, explanations=(said,) * (each.feature.index == 2)) for each in dashboards]
    folder = sr.save_neuronpedia_features(tmp_path / "export", given, sae_set="tiny-res", creator_id="me")
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    kinds = ("activations/batch-0.jsonl.gz", "explanations/batch-0.jsonl.gz", "features/batch-0.jsonl.gz")
    assert files == [f"tiny-llama/{layer}-tiny-res/{name}" for layer in (1, 3) for name in (*kinds, "source.jsonl")]
    expected = [without_other_layers(each, sae_set="tiny-res", n_tokens=None) for each in given]
    assert sr.load_neuronpedia_features(folder) == tuple(expected)
    assert sr.load_neuronpedia_features(folder, [given[3].feature]) == (expected[3],)
    first = {path: path.read_bytes() for path in folder.rglob("*.gz")}
    sr.save_neuronpedia_features(folder, given, sae_set="tiny-res", creator_id="me")  # replaces what is there
    assert first == {path: path.read_bytes() for path in folder.rglob("*.gz")}


def without_other_layers(each, **origin):
    near = tuple(pair for pair in each.neighbours if pair[0].layer == each.feature.layer)
    return replace(each, neighbours=near, origin=replace(each.origin, **origin))


def test_every_line_has_the_same_fields(dashboards, tmp_path):
    folder = sr.save_neuronpedia_features(tmp_path, dashboards, sae_set="s")  # Neuronpedia takes the first for all
    for path in folder.rglob("*.gz"):
        lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        assert len({tuple(line) for line in lines}) == 1
        if path.parent.name == "activations":
            assert len({line["id"] for line in lines}) == len(lines)
            assert all(line["values"][line["maxValueTokenIndex"]] == line["maxValue"] for line in lines)


def test_sae_dashboard_brings_back_what_went_out(dashboards, tmp_path):
    given = [each for each in dashboards if each.feature.layer == 3]
    folder = sr.save_sae_dashboard(tmp_path / "batches", given, sae_set="tiny-res", batch_size=3)
    assert sorted(path.name for path in folder.iterdir()) == ["batch-0.json", "batch-1.json", "batch-2.json"]
    lost = {"neighbours": (), "explanations": ()}
    expected = [
        replace(
            each,
            **lost,
            max_act=each.max_act if each.excerpts else None,
            origin=replace(each.origin, sae_set="tiny-res", hook_name=None, n_tokens=None),
        )
        for each in given
    ]
    assert sr.load_sae_dashboard(folder) == tuple(expected)
    assert sr.load_sae_dashboard(folder / "batch-0.json") == tuple(expected[:3])
    sr.save_sae_dashboard(folder, given[:1], sae_set="tiny-res")
    assert [path.name for path in folder.iterdir()] == ["batch-0.json"]


def test_delphi_brings_back_what_went_out(firings, tmp_path):
    folder = sr.save_delphi(tmp_path / "latents", firings, pad_token=0, n_splits=4)
    found = sr.load_delphi(folder, pad_token=0)
    assert list(found) == [1, 3]
    assert all(same(found[layer], each) for layer, each in firings.items())
    assert {len(row) for row in sr.load_delphi(folder)[1].rows} == {40}
    some = sr.load_delphi(folder, ["layers.3"], [5, 50], pad_token=0)
    assert list(some) == [3] and set(some[3].index.tolist()) <= {5, 50}
    assert all(map(np.array_equal, some[3].of(5), firings[3].of(5)))
    alone = sr.load_delphi(folder / "layers.1", pad_token=0)
    assert list(alone) == [1] and same(alone[1], firings[1])
    with pytest.raises(ValueError, match="the rows have 1 to 40 tokens, and Delphi's are of one length"):
        sr.save_delphi(tmp_path / "other", firings)
    assert not (tmp_path / "other").exists()


def test_delphi_finds_everything_where_its_loader_looks(firings, rows, tmp_path):
    folder = sr.save_delphi(tmp_path, {1: firings[1]}, pad_token=0, model_name="org/tiny") / "layers.1"
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_name"], config["cache_ctx_len"], config["n_splits"]) == ("org/tiny", 40, 5)
    edges = sorted(tuple(map(int, path.stem.split("_"))) for path in folder.glob("*.safetensors"))
    assert edges[0][0] == 0 and edges[-1][1] == 95
    assert all(before[1] + 1 == after[0] for before, after in pairwise(edges))
    n = 0
    for start, end in edges:
        said = load_file(folder / f"{start}_{end}.safetensors")
        assert {name: str(column.dtype) for name, column in said.items()} == {
            "locations": "uint16",
            "activations": "float32",
            "tokens": "int64",
        }
        assert said["tokens"].shape == (len(rows), 40)
        row, pos, index = said["locations"].astype(int).T
        assert index.max(initial=0) <= end - start
        for one in set(index.tolist()):  # rows come together, in order
            here = index == one
            places = [(r, p) for r, p in zip(row[here], pos[here], strict=True)]
            assert places == sorted(places)
            assert np.array_equal(said["activations"][here], firings[1].of(start + one)[2])
        n += len(row)
    assert n == len(firings[1].act)


TOKENS = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=()), max_size=3)
NUMBERS = st.floats(-1e6, 1e6)
PAIRS = st.lists(st.tuples(TOKENS, NUMBERS), max_size=3).map(tuple)
BARS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3).map(tuple)
SHARES = st.floats(1e-6, 1)


ORIGINS = st.tuples(st.none() | TOKENS, st.integers(1, 99), st.integers(0, 99))


@st.composite
def excerpts(draw):
    """What an `Excerpt` is made of; making it, beartype draws numbers of its own, so that is left to the test."""
    n = draw(st.integers(0, 5))
    tokens, acts = (tuple(draw(st.lists(of, min_size=n, max_size=n))) for of in (TOKENS, NUMBERS))
    at = draw(st.none() | st.integers(0, n - 1)) if n else None
    return tokens, acts, at, draw(st.none() | st.tuples(NUMBERS, NUMBERS, SHARES))


DASHBOARDS = st.fixed_dictionaries(
    {
        "excerpts": st.lists(excerpts(), max_size=3),
        "max_act": NUMBERS,
        "raised": PAIRS,
        "lowered": PAIRS,
        "firing_rate": st.none() | SHARES,
        "density": BARS,
        "logits": BARS,
        "explanations": st.lists(st.tuples(TOKENS, st.none() | TOKENS, st.none() | TOKENS), max_size=2, unique=True),
    }
)


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.integers(0, 10**6), DASHBOARDS, min_size=1, max_size=3), ORIGINS)
def test_anything_comes_back(drawn, where):
    dataset, n_rows, length = where
    origin = Origin("some.model-1", "set_a", dataset=dataset, n_rows=n_rows, n_tokens=n_rows * length)
    made = []
    for index, each in sorted(drawn.items()):
        made_of = {name: value for name, value in each.items() if name not in ("excerpts", "explanations", "max_act")}
        found = tuple(Excerpt(*parts) for parts in each["excerpts"])
        said = tuple(Explanation(*parts) for parts in each["explanations"])
        largest = each["max_act"] if any(shown_.band is None for shown_ in found) else None
        made.append(
            Dashboard(Feature(7, index), found, max_act=largest, explanations=said, origin=origin, **made_of),
        )
    given_ = tuple(made)
    with TemporaryDirectory() as folder:
        sr.save_neuronpedia_features(f"{folder}/n", given_)
        assert sr.load_neuronpedia_features(f"{folder}/n") == given_
        sr.save_sae_dashboard(f"{folder}/s", given_)
        assert sr.load_sae_dashboard(f"{folder}/s") == tuple(replace(each, explanations=()) for each in given_)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.integers(1, 12))
def test_any_firings_come_back(data, d_sae, n_rows, length, n_splits):
    places = st.tuples(st.integers(0, d_sae - 1), st.integers(0, n_rows - 1), st.integers(0, length - 1))
    there = data.draw(st.dictionaries(places, st.floats(2**-9, 1e6, width=32), max_size=12))
    columns = [np.array([place[n] for place in there], dtype=np.int64) for n in range(3)]
    rows = data.draw(
        st.lists(st.lists(st.integers(1, 99), min_size=length, max_size=length), min_size=n_rows, max_size=n_rows)
    )
    said = {"d_sae": d_sae, "rows": tuple(map(np.array, rows)), "n_tokens": n_rows * length, "hookpoint": "h.2"}
    made = Firings.sort(2, [*columns, np.array(list(there.values()), dtype=np.float64)], **said)
    with TemporaryDirectory() as folder:
        sr.save_delphi(folder, {2: made}, n_splits=n_splits)
        assert same(sr.load_delphi(folder)[2], made)


# what others write


def write_gz(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    said = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in said).encode()))


IDS = {"modelId": "gemma-2-2b", "layer": "20-gemmascope-res-16k", "index": "7"}
FEATURE = {
    **IDS,
    **{"maxActApprox": 12.5, "creatorId": "clkht01d40000jv08hvalcvly", "frac_nonzero": 0.0002},
    **{"freq_hist_data_bar_heights": [47, 0, 3], "freq_hist_data_bar_values": [0.023, 0.067, 0.111]},
    **{"logits_hist_data_bar_heights": [5, 35], "logits_hist_data_bar_values": [-0.662, 0.573]},
    **{"neuron_alignment_indices": [217], "neuron_alignment_l1": [0.005], "neuron_alignment_values": [0.112]},
    **{"correlated_neurons_indices": [14], "correlated_neurons_l1": [0.01], "correlated_neurons_pearson": [0.009]},
    **{"decoder_weights_dist": [], "neg_str": ["sequence", " Lex"], "neg_values": [-0.707, -0.67]},
    **{"pos_str": [" Brigade"], "pos_values": [3.753], "sourceSetName": "gemmascope-res-16k"},
    **{"topkCosSimIndices": [7, 9061], "topkCosSimValues": [1.0, 0.4], "vector": [0.1, -0.2], "vectorLabel": None},
    **{"hookName": "blocks.20.hook_resid_post", "vectorDefaultSteerStrength": 40.0, "hasVector": True},
}
ACTIVATION = {
    **{"id": "cm3f7g0001", **IDS, "creatorId": "clkht01d40000jv08hvalcvly", "dataSource": None},
    **{"tokens": ["<bos>", "▁the", "▁brigade"], "maxValue": 12.5, "minValue": 0, "values": [0, 0, 12.5]},
    **{"maxValueTokenIndex": 2, "dfaValues": [], "dfaMaxValue": None, "dfaTargetIndex": None},
    **{"binContains": -1, "binMin": -1, "binMax": 12.5},
}
EXPLANATION = {
    **{"id": "cm3f7g0002", **IDS, "authorId": "clkht01d40000jv08hvalcvly", "description": " military units"},
    **{"embedding": "[0.1,0.2]", "typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o-mini"},
    **{"umap_x": 0, "umap_y": 0, "umap_cluster": 0, "umap_log_feature_sparsity": 0},
}
SOURCE = {"id": IDS["layer"], "modelId": "gemma-2-2b", "setName": "gemmascope-res-16k", "creatorId": "c", "notes": None}
SOURCE |= {"dataset": "monology/pile-uncopyrighted", "num_prompts": 24576, "num_tokens_in_prompt": 128}


def test_an_export_of_neuronpedia_is_read(tmp_path):
    source = tmp_path / "v1/gemma-2-2b/20-gemmascope-res-16k"
    write_gz(source / "features/batch-0.jsonl.gz", FEATURE, {**FEATURE, "index": 8, "maxActApprox": None})
    banded = {**ACTIVATION, "binMin": 2.5, "binMax": 3.75, "binContains": 0.001, "qualifyingTokenIndex": 1}
    untold = {**ACTIVATION, "index": 8, "binMin": None, "binMax": None, "binContains": None}
    write_gz(source / "activations/batch-0.jsonl.gz", ACTIVATION, "", banded, untold)
    write_gz(source / "explanations/batch-0.jsonl.gz", EXPLANATION)
    write_gz(source / "explanations-gpt-4o-mini/batch-0.jsonl.gz", EXPLANATION)  # some are there twice
    (source / "source.jsonl").write_text(json.dumps(SOURCE))
    for name in ("model", "release", "sourceset"):
        (source / f"{name}.jsonl").write_text('{"id": "gemma-2-2b"}\n')
    one, two = sr.load_neuronpedia_features(tmp_path)
    assert one.feature == Feature(20, 7) and two.feature == Feature(20, 8)
    top = Excerpt(("<bos>", "▁the", "▁brigade"), (0.0, 0.0, 12.5))
    assert one.excerpts == (top, replace(top, at=1, band=(2.5, 3.75, 0.001))) and two.excerpts == (top,)
    assert one.raised == ((" Brigade", 3.753),) and one.lowered == (("sequence", -0.707), (" Lex", -0.67))
    assert (one.firing_rate, one.max_act, two.max_act) == (0.0002, 12.5, None)
    assert one.density == ((0.023, 47), (0.067, 0), (0.111, 3)) and one.logits == ((-0.662, 5), (0.573, 35))
    assert one.neighbours == ((Feature(20, 7), 1.0), (Feature(20, 9061), 0.4))
    assert one.explanations == (Explanation(" military units", "gpt-4o-mini", "oai_token-act-pair"),)
    where = Origin("gemma-2-2b", "gemmascope-res-16k", "blocks.20.hook_resid_post", "monology/pile-uncopyrighted")
    assert one.origin == replace(where, n_rows=24576, n_tokens=24576 * 128)
    [alone] = sr.load_neuronpedia_features(source / "activations/batch-0.jsonl.gz", [Feature(20, 8)])
    assert alone == Dashboard(Feature(20, 8), (top,), origin=Origin("gemma-2-2b", "gemmascope-res-16k"))


def batch(**others):
    shown_ = {
        "bin_min": -1,
        "bin_max": 2.214,
        "bin_contains": -1,
        "tokens": ["\n", " brigade"],
        "values": [-0.5, 2.214],
    }
    dfa = {"qualifying_token_index": 1, "dfa_values": [], "dfa_maxValue": 0, "dfa_targetIndex": -1}
    names = (*FEATURE.keys() - {*IDS, "maxActApprox", "creatorId", "sourceSetName", "hookName", "hasVector"},)
    feature = {name: FEATURE[name] for name in names if not name.startswith(("topk", "vector"))}
    feature |= {f"correlated_features_{what}": [] for what in ("indices", "l1", "pearson")}
    feature |= {"n_prompts_total": 16384, "n_tokens_in_prompt": 128, "dataset": "monology/pile-uncopyrighted"}
    interval = {**shown_, "bin_min": 1.107, "bin_max": 1.661, "bin_contains": 3e-05}
    unparsed = {**shown_, "bin_min": 0, "bin_max": 0, "bin_contains": 0}
    feature |= {"feature_index": 3, "activations": [{**shown_, **dfa}, interval, unparsed]}
    return {"model_id": "gpt2-small", "layer": 0, "sae_set": "res-jb", "features": [feature], **others}


def test_batches_of_sae_dashboard_are_read(tmp_path):
    (tmp_path / "batch-0.json").write_text(json.dumps(batch()))
    (tmp_path / "run_settings.json").write_text("{}")
    (tmp_path / "skipped_indexes.json").write_text("[]")
    old = batch(sae_id_suffix="l0-47", layer=2)
    for name in ("n_prompts_total", "n_tokens_in_prompt", "dataset", "decoder_weights_dist"):
        del old["features"][0][name]  # batches of 2024 have num_tokens_for_dashboard
    (tmp_path / "batch-1.json").write_text(json.dumps(old))
    one, two = sr.load_sae_dashboard(tmp_path)
    shown_ = Excerpt(("\n", " brigade"), (-0.5, 2.214))
    assert one.excerpts == (replace(shown_, at=1), replace(shown_, band=(1.107, 1.661, 3e-05)), shown_)
    assert (one.feature, one.max_act, one.firing_rate) == (Feature(0, 3), 2.214, 0.0002)
    assert one.raised == ((" Brigade", 3.753),) and one.density[0] == (0.023, 47)
    where = Origin("gpt2-small", "res-jb", None, "monology/pile-uncopyrighted", 16384, 16384 * 128)
    assert one.origin == where
    assert two.origin == Origin("gpt2-small", "res-jb__l0-47") and two.feature == Feature(2, 3)


def delphi_cache(folder, *, locations=np.uint16, activations=np.float16, **others):
    """A cache of two files as Delphi's `save_splits` writes it: features from the first of the file, half precision."""
    folder.mkdir(parents=True)
    tokens = np.arange(8, dtype=np.int64).reshape(2, 4)
    first = {"locations": np.array([[0, 1, 2], [0, 3, 0], [1, 0, 2]], locations), "activations": [0.5, 2.0, 1.5]}
    second = {"locations": np.array([[1, 3, 0]], locations), "activations": [8.25]}
    for name, said in (("0_2", first), ("3_5", second)):
        said |= {"activations": np.array(said["activations"], activations), "tokens": tokens}
        save_file(
            {key: value for key, value in (said | others).items() if value is not None}, f"{folder}/{name}.safetensors"
        )
    config = {"dataset_repo": "EleutherAI/SmolLM2-135M-10B", "dataset_split": "train[:1%]", "dataset_name": ""}
    config |= {"dataset_column": "text", "batch_size": 32, "cache_ctx_len": 4, "n_tokens": 10_000_000, "n_splits": 2}
    (folder / "config.json").write_text(json.dumps(config | {"model_name": "HuggingFaceTB/SmolLM2-135M"}, indent=4))
    return folder


@pytest.mark.parametrize("hookpoint", ["layers.9", ".model.layers.9", "transformer.h.9", "gpt_neox.layers.9"])
def test_a_cache_of_delphi_is_read(model, tmp_path, hookpoint):
    delphi_cache(tmp_path / hookpoint)
    [(layer, found)] = sr.load_delphi(tmp_path).items()
    assert layer == 9 and found.hookpoint == hookpoint and found.d_sae == 6 and found.n_tokens == 8
    assert found.index.tolist() == [0, 2, 2, 3] and found.row.tolist() == [0, 0, 1, 1]
    assert found.pos.tolist() == [3, 1, 0, 3] and found.act.tolist() == [2.0, 0.5, 1.5, 8.25]
    assert (found.model, found.dataset) == ("HuggingFaceTB/SmolLM2-135M", "EleutherAI/SmolLM2-135M-10B")
    made = sr.firing_dashboards(model, found)
    assert [each.feature.index for each in made] == [0, 2, 3] and made[1].firing_rate == 2 / 8
    assert made[1].excerpts[0] == Excerpt(tuple(map(model.token_text, [4, 5, 6, 7])), (1.5, 0.0, 0.0, 0.0), 0)


def test_a_cache_without_tokens_or_in_other_types_is_read(tmp_path):
    found = sr.load_delphi(delphi_cache(tmp_path / "layers.0", locations=np.uint32, tokens=None))[0]
    assert found.rows is None and found.n_tokens is None and found.act.tolist() == [2.0, 0.5, 1.5, 8.25]
    with pytest.raises(ValueError, match="without their tokens"):
        sr.save_delphi(tmp_path / "again", {0: found})


# what is wrong


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "it is no JSON from character"),
        ("[1]", r"it is '\[1\]' and no object"),
        ("[" * 100_000, "recursion"),
        ('{"modelId": "m", "layer": "1-s", "index": 0, "tokens": ["a"], "values": [NaN]}', "which is no number"),
        ('{"modelId": "m", "layer": "1-s", "index": 0, "tokens": ["a"], "values": [1e999]}', "which is no number"),
        ({**ACTIVATION, "tokens": ["a"]}, "there are 1 tokens and 3 activations"),
        ({**ACTIVATION, "tokens": "abc"}, "its tokens is 'abc' and no list"),
        ({**ACTIVATION, "tokens": ["a", None, "c"]}, "one of its tokens is 'None' and no text"),
        ({**ACTIVATION, "values": [True, 0, 1]}, "its values has 'True', which is no number"),
        ({**ACTIVATION, "qualifyingTokenIndex": 9}, "has none at 9"),
        ({**ACTIVATION, "qualifyingTokenIndex": 0.5}, "which is no whole number"),
        ({**FEATURE, "index": 8, "pos_str": []}, "it has 0 pos_str and 1 values for them"),
        ({**FEATURE, "index": "7a"}, "its index is '7a', which is no number of a feature"),
        ({**FEATURE, "index": -1}, "its index is '-1', which is no number of a feature"),
        ({**FEATURE, "layer": "att"}, "its layer is 'att', which is no source such as 20-gemmascope-res-16k"),
        ({**FEATURE, "modelId": None}, "it has no modelId"),
        ({**EXPLANATION, "description": 3}, "its description is '3', which is no text"),
        (IDS, "it is no feature, activation or explanation"),
        (FEATURE, "L20/7 is in the files twice"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, what):
    path = tmp_path / "features/batch-0.jsonl.gz"
    write_gz(path, FEATURE, "", line)
    with pytest.raises(ValueError, match=rf"batch-0\.jsonl\.gz cannot be read \(line 3: .*{what}") as caught:
        sr.load_neuronpedia_features(tmp_path)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_damaged_and_missing_exports_are_refused(tmp_path):
    path = tmp_path / "batch-0.jsonl.gz"
    write_gz(path, *[FEATURE] * 50)
    whole = path.read_bytes()
    for damaged in (whole[:60], whole[:40] + bytes(30) + whole[70:], b"not gzip", b""[:0] + gzip.compress(b"\xff\xfe")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read"):
            sr.load_neuronpedia_features(path)
    with pytest.raises(ValueError, match=r"there is no .*nowhere; give"):
        sr.load_neuronpedia_features(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no features, activations or explanations"):
        sr.load_neuronpedia_features(tmp_path / "empty")


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("{", "cannot be read"),
        ("[]", "it has no list of features"),
        ({"features": 3}, "it has no list of features"),
        ({"features": [3]}, "one of its features is '3' and no object"),
        (batch(layer=None), "feature 0 of the batch: its layer is 'None'"),
        (
            batch(features=[{**batch()["features"][0], "activations": [{"tokens": ["a"]}]}]),
            "1 tokens and 0 activations",
        ),
        (batch(features=batch()["features"] * 2), "L0/3 is in the batches twice"),
    ],
)
def test_a_malformed_batch_is_named(tmp_path, said, what):
    (tmp_path / "batch-0.json").write_text(said if isinstance(said, str) else json.dumps(said))
    with pytest.raises(ValueError, match=rf"batch-0\.json cannot be read.*{what}|{what}"):
        sr.load_sae_dashboard(tmp_path)


def test_missing_batches_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no batch-\*\.json"):
        sr.load_sae_dashboard(tmp_path)


@pytest.mark.parametrize(
    ("others", "what"),
    [
        ({"locations": np.float32}, "the locations of 0_2.safetensors are no whole numbers in 2 dimensions"),
        ({"activations": np.int64}, "do not fit"),
        ({"tokens": np.zeros((1, 4), np.int64)}, "a firing outside its"),
        ({"tokens": np.zeros((2, 4), np.float32)}, "the tokens of 0_2.safetensors are no whole numbers"),
    ],
)
def test_a_malformed_cache_is_named(tmp_path, others, what):
    delphi_cache(tmp_path / "layers.0", **others)
    with pytest.raises(ValueError, match=rf"layers\.0 cannot be read .*{what}"):
        sr.load_delphi(tmp_path)


def test_other_files_in_a_cache_are_named(tmp_path):
    folder = delphi_cache(tmp_path / "layers.0")
    tokens = {"tokens": np.arange(8).reshape(2, 4)}

    def refused(name, content, what):
        path = folder / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(content) if isinstance(content, bytes) else save_file(content, path)
        with pytest.raises(ValueError, match=what):
            sr.load_delphi(tmp_path)
        path.unlink() if before is None else path.write_bytes(before)

    twice = np.array([[0, 1, 2], [0, 1, 2]], np.uint16)
    refused("0_2.safetensors", {"locations": twice, "activations": np.ones(2), **tokens}, "feature 2 fires twice at")
    refused("0_2.safetensors", {"locations": twice, **tokens}, "has no activations")
    refused("0_2.safetensors", {"locations": twice, "activations": np.array([1, np.nan]), **tokens}, "do not fit")
    refused("0_2.safetensors", pickle.dumps(print), "cannot be read")  # pickles are not tried
    refused("2_4.safetensors", tokens, "two of its files hold the same features")
    refused("all.safetensors", tokens, "is not called by a first and last feature")
    refused("config.json", b"[]", "config.json is no object")
    refused("config.json", b"{", "cannot be read")
    assert list(sr.load_delphi(tmp_path)) == [0]
    delphi_cache(tmp_path / "layers.0.mlp")
    with pytest.raises(ValueError, match=r"layers\.0\.mlp is not the output of a block"):
        sr.load_delphi(tmp_path)
    assert list(sr.load_delphi(tmp_path, ["layers.0"])) == [0]
    with pytest.raises(ValueError, match=r"and not all of \['layers.7'\]"):
        sr.load_delphi(tmp_path, ["layers.7"])
    delphi_cache(tmp_path / "model.layers.0")
    with pytest.raises(ValueError, match="both of layer 0"):
        sr.load_delphi(tmp_path, ["layers.0", "model.layers.0"])


# what is not written


def test_nothing_of_others_is_overwritten(dashboards, firings, tmp_path):
    given = dashboards[:2]
    for name, save in (
        ("n/tiny-llama/1-s/model.jsonl", lambda: sr.save_neuronpedia_features(tmp_path / "n", given, sae_set="s")),
        ("s/notes.txt", lambda: sr.save_sae_dashboard(tmp_path / "s", given, sae_set="s")),
        ("d/layers.1/notes.txt", lambda: sr.save_delphi(tmp_path / "d", {1: firings[1]}, pad_token=0)),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("mine")
        with pytest.raises(ValueError, match=r"holds .*, which would be lost; give another folder"):
            save()
        assert [path.name for path in (tmp_path / name).parent.iterdir()] == [Path(name).name]


def test_a_failure_leaves_what_was_there(dashboards, tmp_path):
    given = dashboards[0]
    wrong = replace(given, excerpts=(Excerpt(("a",), (float("nan"),)),))
    for save in (sr.save_neuronpedia_features, sr.save_sae_dashboard):
        folder = save(tmp_path / save.__name__, [given], sae_set="s")
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match="JSON compliant"):
            save(folder, [wrong], sae_set="s")
        assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_ids_and_sets_that_do_not_fit_are_refused(dashboards, firings, tmp_path):
    for save in (sr.save_neuronpedia_features, sr.save_sae_dashboard):
        with pytest.raises(ValueError, match="None cannot stand for the sae_set in other programs; give sae_set="):
            save(tmp_path, dashboards[:2])
        for name in ("org/model", "..", "a b", ""):
            with pytest.raises(ValueError, match="cannot stand for the model_id in other programs; give model_id="):
                save(tmp_path, dashboards[:2], sae_set="s", model_id=name)
        with pytest.raises(ValueError, match="is given twice"):
            save(tmp_path, [dashboards[0]] * 2, sae_set="s")
    with pytest.raises(ValueError, match=r"dashboards of layers \[1, 3\]"):
        sr.save_sae_dashboard(tmp_path, dashboards, sae_set="s")
    other = replace(dashboards[1], origin=replace(dashboards[1].origin, model="other"))
    with pytest.raises(ValueError, match=r"are of \['other', 'tiny-llama'\]"):
        sr.save_sae_dashboard(tmp_path, [dashboards[0], other], sae_set="s")
    with pytest.raises(ValueError, match=r"the firings at layers\.1 are given for layer 3"):
        sr.save_delphi(tmp_path, {3: firings[1]}, pad_token=0)
    with pytest.raises(ValueError, match="0 layers for 5 files each"):
        sr.save_delphi(tmp_path, {})
    with pytest.raises(ValueError, match="there are no dashboards to save"):
        sr.save_neuronpedia_features(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_all_of_the_odd_tokens_survive(tmp_path):
    tokens = (*ODD, *string.printable)
    given = Dashboard(
        Feature(3, 0),
        (Excerpt(tokens, tuple(float(n) for n in range(len(tokens)))),),
        raised=tuple((token, 1.0) for token in tokens),
        firing_rate=0.5,
        max_act=len(tokens) - 1.0,
        origin=Origin("m", "s"),
    )
    sr.save_neuronpedia_features(tmp_path / "n", [given])
    sr.save_sae_dashboard(tmp_path / "s", [given])
    assert sr.load_neuronpedia_features(tmp_path / "n") == sr.load_sae_dashboard(tmp_path / "s") == (given,)
