"""Sets of interventions on disk: they come back as they were, other programs do with them what they do here, and no
file can run code or pass for another."""

import ctypes
import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_sae
from strategies import assert_close, logits_of, n_hooks, same_bits

import saereason as sr
from saereason.features import Feature
from saereason.loading import _wheel_gguf
from saereason.saes import decoder_row
from saereason.steering import (
    Add,
    AddVector,
    After,
    Boost,
    Clamp,
    Decay,
    Everywhere,
    Generated,
    Intervention,
    LastPromptToken,
    MeanBlock,
    OnRows,
    Patch,
    Prompt,
    Scale,
    ScaleBlock,
    ScaleProjection,
    SetProjection,
    Splice,
    Steps,
    When,
    While,
    WhileAlong,
    steered,
)
from saereason.steering.exchange.values import KINDS, encoded

F, G, V = Feature(1, 3), Feature(2, 4), torch.linspace(-1, 2, 32)
ROWS = [[20, 21, 22, 23, 24], [30, 31, 32]]
WHENS = [
    *(Everywhere(), Prompt(), LastPromptToken(), Generated(), Steps(-2, 1), After("Wait"), After((3, 4))),
    Decay(0.7, when=OnRows((0, 2), when=While(Feature(0, 5), 0.1, when=Generated()))),
    WhileAlong(0, V.double() / 3, -0.5, when=Decay(0.5)),
]
ALL = [
    *(Add(F, 1 / 3), Add(G, -2.0, keep_norm=True), Clamp(Feature(1, 4), 1e-30), Scale(Feature(1, 5), -0.5)),
    *(SetProjection(Feature(1, 6), 4.0), Boost((Feature(1, 7), Feature(1, 8)), 15.0)),
    *(AddVector(2, V.bfloat16(), 0.1, name="é"), ScaleProjection(2, V, -1.0), ScaleBlock(0, 0.5), MeanBlock(3, V)),
    *(Patch(1, (torch.randn(6, 32), torch.randn(2, 32))), Splice(2, keep_error=True)),
]
ADDITIONS = [Add(F, 3.0), Add(Feature(1, 9), -1.5), AddVector(1, V, 0.5), AddVector(3, V.flip(0), 2.0)]


def same(one, other):
    """Whether two values are equal in all that they are made of, tensors in their bits and type."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in names)
    return type(one) is type(other) and one == other


def leaves(kind):
    """The classes that inherit from one and have no heirs, of saereason's own."""
    heirs = [heir for heir in kind.__subclasses__() if heir.__module__.startswith("saereason.")]
    return {leaf for heir in heirs for leaf in leaves(heir)} if heirs else {kind}


def test_every_intervention_and_when_is_known_and_tried_here():
    assert set(KINDS.values()) == {*leaves(Intervention), *leaves(When), Feature}
    tried = {type(each) for each in (*ALL, *WHENS)} | {While, OnRows, Feature}
    assert tried == set(KINDS.values())


@pytest.mark.parametrize("when", WHENS, ids=lambda when: type(when).__name__)
def test_everything_comes_back_to_the_bit(model, saes, tmp_path, when):
    given = [dataclasses.replace(each, when=when, keep_norm=n % 2 == 0) for n, each in enumerate(ALL)]
    folder = sr.save_steering(tmp_path / "steering", model, saes, given)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["steering", "steering.json", "steering.safetensors"]
    assert same(list(sr.load_steering(folder, model, saes)), given)
    sr.save_steering(folder, model, saes, given[:1])  # replaces what is there
    assert same(list(sr.load_steering(folder, model, saes)), given[:1])


def test_numbers_of_other_libraries_are_saved_as_numbers():
    for given, expected in ((np.int64(3), 3), (np.float32(0.1), float(np.float32(0.1))), (torch.tensor(0.5), 0.5)):
        found = encoded(given, {})
        assert type(found) is type(expected) and found == expected


def test_additions_do_without_the_sae(model, saes, tmp_path):
    given = [Add(F, 3.0, Generated(), keep_norm=True), Add(G, -2.0)]
    found = sr.load_steering(sr.save_steering(tmp_path / "s", model, saes, given), model)
    assert [type(each) for each in found] == [AddVector, AddVector]
    assert torch.equal(found[1].vector, decoder_row(saes[2], 4)) and found[1].name == "L2/4"
    with steered(model, saes, *given):
        expected = logits_of(model, ROWS, [2, 2])
    with steered(model, None, *found):
        assert same_bits(logits_of(model, ROWS, [2, 2]), expected)


def test_other_weights_are_told(model, topk_saes, tmp_path):
    folder = sr.save_steering(tmp_path / "s", model, topk_saes, [Add(F, 3.0)])
    with pytest.warns(UserWarning, match=r"saved for tiny-llama \([0-9a-f]{16}\), of other weights"):
        assert sr.load_steering(folder, tiny_model(seed=1), topk_saes) == (Add(F, 3.0),)
    with pytest.warns(UserWarning, match=r"saved for the SAE [0-9a-f]{16}, of other weights"):
        assert sr.load_steering(folder, model, {1: tiny_sae("topk", 1, seed=5)}) == (Add(F, 3.0),)


def test_what_cannot_be_saved_is_refused(model, saes, tmp_path):
    class Mine(When):
        def __call__(self, at):
            return at.valid

    for given, sentence in (
        ([], "nothing to save"),
        ([Add(Feature(1, 96), 1.0)], "L1/96 is out of range"),
        ([Add(F, 1.0, While(Feature(1, 96)))], "L1/96 is out of range"),
        ([AddVector(7, V)], "has no layer 7"),
        ([Add(F, 1.0, Mine())], "a Mine cannot be saved"),
    ):
        with pytest.raises(ValueError, match=sentence):
            sr.save_steering(tmp_path / "s", model, saes, given)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds notes\.txt, which would be lost"):
        sr.save_steering(tmp_path, model, saes, ALL[:1])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


ADD = {"type": "Add", "feature": {"type": "Feature", "layer": 1, "index": 3}, "coefficient": 1.0}
ADD |= {"when": {"type": "Everywhere"}, "keep_norm": False}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ({"interventions": []}, "cannot be read .'schema'"),
        ({"schema": 1, "model": {}, "saes": {}, "interventions": ""}, "there is no list of interventions in it"),
        ({"schema": 1, "model": {}, "saes": {}, "interventions": {}}, "there is no list of interventions in it"),
        ([], "there is no list of interventions in it"),
        ({"schema": 2}, "is of schema 2 and this saereason reads schema 1"),
        ([ADD | {"coefficient": float("nan")}], "NaN is no number"),
        ([ADD | {"coefficient": 10**400}], "the coefficient of a Add"),
        ([ADD | {"coefficient": "3"}], "the coefficient of a Add is '3'"),
        ([ADD | {"coefficient": True}], "the coefficient of a Add"),
        ([ADD | {"when": None}], "the when of a Add"),
        ([ADD | {"when": ADD}], "the when of a Add"),
        ([ADD | {"when": {"type": "Steps", "first": 2, "last": 1}}], "steps 2 to 1 are none"),
        ([ADD | {"when": {"type": "OnRows", "rows": [0, "1"], "when": {"type": "Prompt"}}}], "the rows of a OnRows"),
        ([ADD | {"more": 1}], "should have"),
        ([{"type": "Add"}], "should have"),
        ([ADD | {"type": "exec"}], "there is no intervention or when 'exec'"),
        ([ADD | {"type": "steered"}], "there is no intervention or when 'steered'"),
        ([{"type": "Everywhere"}], "is no intervention"),
        (["Add"], "is no intervention"),
        ([{"type": "Patch", "layer": 1, "source": [{"tensor": "x"}], "when": 1, "keep_norm": 1}], "no tensor 'x'"),
    ],
)  # fmt: skip
def test_a_file_that_was_not_saved_so_is_refused(model, saes, tmp_path, said, sentence):
    folder = sr.save_steering(tmp_path / "s", model, saes, [Add(F, 1.0)])
    path = folder / "steering.json"
    if isinstance(said, list):
        said = json.loads(path.read_text()) | {"interventions": said}
    path.write_text(said if isinstance(said, str) else json.dumps(said))
    with pytest.raises(ValueError, match=sentence) as raised:
        sr.load_steering(folder, model, saes)
    assert str(path) in str(raised.value)


def test_a_missing_or_damaged_half_is_refused(model, saes, tmp_path):
    with pytest.raises(ValueError, match=r"steering\.json cannot be read .*give a folder that save_steering wrote"):
        sr.load_steering(tmp_path, model)
    folder = sr.save_steering(tmp_path / "s", model, saes, [MeanBlock(1, V)])
    for damage in (lambda path: path.write_bytes(b"\x80\x04."), lambda path: path.unlink()):
        damage(folder / "steering.safetensors")
        with pytest.raises(ValueError, match=r"steering\.json cannot be read"):
            sr.load_steering(folder, model)


def writers(model, saes, folder):
    """Each export but saereason's own, as a function of the interventions alone."""
    return {
        "lm-eval": lambda given: sr.save_lm_eval(folder / "a.pt", model, saes, given),
        "llama.cpp": lambda given: sr.save_control_vector(folder / "a.gguf", model, saes, given),
        "Neuronpedia": lambda given: sr.save_neuronpedia(folder / "a.json", model, saes, given),
        "interp-engine": lambda given: sr.save_interp_engine(folder / "b.json", model, saes, given),
    }


@pytest.mark.parametrize("program", ["lm-eval", "llama.cpp", "Neuronpedia", "interp-engine"])
def test_what_a_format_cannot_say_is_refused(model, saes, tmp_path, program):
    write = writers(model, {layer: known(sae, layer) for layer, sae in saes.items()}, tmp_path)[program]
    not_additions = [each for each in ALL if not isinstance(each, Add | AddVector)]
    for refused, sentence in (
        *((each, "depends on the residual stream") for each in not_additions),
        *((Add(F, 1.0, when), f"{program} at every token") for when in WHENS[1:]),
        (Add(F, 1.0, keep_norm=True), f"{program} does not; give `keep_norm=False`"),
        (AddVector(1, torch.ones(5)), r"has shape \(5,\)"),
    ):
        with pytest.raises(ValueError, match=sentence):
            write([Add(G, 1.0), refused])
    saes[1].cfg.normalize_activations = "layer_norm"
    try:
        with pytest.raises(ValueError, match=r"normalises its input \(layer_norm\), and .* adds one"):
            write([Add(F, 1.0)])
    finally:
        saes[1].cfg.normalize_activations = "none"
    assert list(tmp_path.iterdir()) == []


def known(sae, layer):
    sae.cfg.metadata.neuronpedia_id = f"tiny/{layer}-res"
    return sae


def steered_by_lm_eval(model, path, rows):
    """Logits as lm-eval's `steered` would have them: its entries read, and its hooks put, as its source does."""
    said, handles = torch.load(path, weights_only=True), []
    for name, module in model.hf.base_model.named_modules():
        if name in said:
            assert said[name]["action"] == "add" and said[name]["bias"] is said[name]["head_index"] is None
            vector = said[name]["steering_vector"].to(model.dtype) * float(said[name]["steering_coefficient"])

            def hook(_module, _args, output, vector=vector):
                return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

            handles.append(module.register_forward_hook(hook))
    assert len(handles) == len(said)
    found = logits_of(model, rows)
    for handle in handles:
        handle.remove()
    assert n_hooks(model) == 0
    return found


def test_lm_eval_adds_the_same(any_model, saes, tmp_path):
    path = sr.save_lm_eval(tmp_path / "a.pt", any_model, saes, ADDITIONS)
    with steered(any_model, saes, *ADDITIONS):
        expected = logits_of(any_model, ROWS)
    assert_close(steered_by_lm_eval(any_model, path, ROWS), expected)
    found = sr.load_lm_eval(path, any_model)
    assert [(each.layer, each.name) for each in found] == [(1, "layers.1"), (3, "layers.3")]
    with steered(any_model, None, *found):
        assert_close(logits_of(any_model, ROWS), expected)
    with pytest.raises(ValueError, match=r"let it end in \.pt"):
        sr.save_lm_eval(tmp_path / "a.csv", any_model, saes, ADDITIONS)


def test_lm_eval_itself_adds_the_same(model, saes, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is no dependency")
    from lm_eval.models.hf_steered import SteeredModel

    model.hf.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    path = sr.save_lm_eval(tmp_path / "a.pt", model, saes, ADDITIONS)
    theirs = SteeredModel(pretrained=str(tmp_path / "model"), steer_path=str(path), device="cpu", dtype="float32")
    with steered(model, saes, *ADDITIONS):
        assert_close(theirs._model_call(torch.tensor(ROWS[:1])), logits_of(model, ROWS[:1]))


class Hostile:
    def __init__(self, touched):
        self.touched = touched

    def __reduce__(self):
        return os.mkdir, (str(self.touched),)


def test_a_hostile_pickle_is_not_run(model, tmp_path):
    entry = {"steering_vector": V, "steering_coefficient": Hostile(tmp_path / "touched"), "action": "add"}
    torch.save({"layers.1": entry}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt is no pickle of tensors and numbers alone, and others can run code"):
        sr.load_lm_eval(tmp_path / "a.pt", model)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"action": "clamp"}, "only additions are read"),
        ({"bias": V}, "only additions are read"),
        ({"head_index": 0}, "only additions are read"),
        ({"steering_vector": V[:5]}, "is no tensor of 32 floats"),
        ({"steering_vector": [1.0] * 32}, "is no tensor of 32 floats"),
        ({"steering_vector": V * float("inf")}, "not finite numbers"),
        ({"steering_coefficient": "much"}, "could not convert"),
    ],
)
def test_other_entries_of_lm_eval_are_refused(model, tmp_path, changed, sentence):
    path, entry = tmp_path / "a.pt", {"steering_vector": V, "action": "add"}
    torch.save({"layers.1": entry}, path)
    assert sr.load_lm_eval(path, model)[0].coefficient == 1.0  # what need not be said
    for said, told in (({"layers.1": entry | changed}, sentence), ({"layers.9": entry}, "no block"), ([1], "read")):
        torch.save(said, path)
        with pytest.raises(ValueError, match=told):
            sr.load_lm_eval(path, model)
    path.write_bytes(b"no zip and no pickle")
    with pytest.raises(ValueError, match=r"a\.pt is no pickle"):
        sr.load_lm_eval(path, model)


def llama_cpp_buffer(path):
    """The directions one after the other from layer 1 on, as llama.cpp's loader lays a control vector out."""
    from gguf import GGUFReader

    directions = {int(each.name.removeprefix("direction.")): each.data for each in GGUFReader(path).tensors}
    width = len(next(iter(directions.values())))
    data = np.zeros(width * max(directions), np.float32)
    for n, direction in directions.items():
        data[width * (n - 1) : width * n] += direction
    return data, width


def test_llama_cpp_adds_the_same(any_model, saes, tmp_path):
    from gguf import GGMLQuantizationType, GGUFReader

    path = sr.save_control_vector(tmp_path / "a.gguf", any_model, saes, ADDITIONS)
    reader = GGUFReader(path)
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["general.architecture"] == "controlvector" and said["controlvector.layer_count"] == 2
    assert said["controlvector.model_hint"] == any_model.hf.config.model_type
    assert [(each.name, each.tensor_type) for each in reader.tensors] == [
        (f"direction.{n}", GGMLQuantizationType.F32) for n in (1, 3)
    ]
    data, width = llama_cpp_buffer(path)
    blocks = range(1, any_model.n_layers)
    theirs = [(il, data[width * (il - 1) : width * il]) for il in blocks if width * il <= len(data)]  # `apply`
    with steered(any_model, saes, *ADDITIONS):
        expected = logits_of(any_model, ROWS)
    with steered(any_model, None, *(AddVector(il, torch.from_numpy(each)) for il, each in theirs)):
        assert_close(logits_of(any_model, ROWS), expected)
    with steered(any_model, None, *sr.load_control_vector(path)):
        assert_close(logits_of(any_model, ROWS), expected)
    with pytest.raises(ValueError, match=r"llama\.cpp steers from layer 1 on"):
        sr.save_control_vector(path, any_model, saes, [AddVector(0, V)])


def test_other_gguf_files_are_refused(tmp_path):
    from gguf import GGUFWriter

    for architecture, name, data, sentence in (
        ("llama", "direction.1", V, "its architecture is llama"),
        ("controlvector", "direction.0", V, r"direction\.0 is no float32 vector by the name of"),
        ("controlvector", "direction.x", V, r"direction\.x is no float32 vector"),
        ("controlvector", "direction.1", V.half(), "is no float32 vector"),
        ("controlvector", "direction.1", V.view(4, 8), "is no float32 vector"),
        ("controlvector", "direction.1", V / 0, "not finite numbers"),
    ):
        writer = GGUFWriter(tmp_path / "a.gguf", architecture)
        writer.add_tensor(name, data.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(ValueError, match=sentence):
            sr.load_control_vector(tmp_path / "a.gguf")
    content = (tmp_path / "a.gguf").read_bytes()
    for damaged in (b"", b"GGUF", content[:40], content[:-40], b"\x00" * 64):
        (tmp_path / "a.gguf").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.gguf cannot be read .*give a GGUF control vector"):
            sr.load_control_vector(tmp_path / "a.gguf")


@pytest.mark.real
def test_llama_cpp_itself_adds_the_same(tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python has no wheel here and is not compiled")
    model = sr.load_model("smollm2-135m", dtype="float32")
    given = [AddVector(12, 40.0 * torch.nn.functional.normalize(torch.randn(model.d_model), dim=0))]
    data, width = llama_cpp_buffer(sr.save_control_vector(tmp_path / "a.gguf", model, None, given))
    theirs = llama_cpp.Llama(str(_wheel_gguf("smollm2-135m")), logits_all=True, verbose=False)
    tokens = model.encode("The capital of France is")
    found = []
    for pointer in (None, data.ctypes.data_as(ctypes.POINTER(ctypes.c_float))):
        llama_cpp.llama_set_adapter_cvec(theirs.ctx, pointer, len(data), width, 1, model.n_layers)
        theirs.reset()
        theirs.eval(tokens)
        found.append(torch.from_numpy(theirs.scores[len(tokens) - 1].copy()).float())
    clean = logits_of(model, [tokens])[0][-1]
    with steered(model, None, *given):
        moved = logits_of(model, [tokens])[0][-1] - clean
    assert torch.cosine_similarity(found[1] - found[0], moved, dim=0) > 0.99


def test_neuronpedia_comes_back(model, saes, tmp_path):
    saes = {layer: known(sae, layer) for layer, sae in saes.items()}
    given = (Add(F, 1 / 3), Add(G, -4.0))
    path = sr.save_neuronpedia(tmp_path / "a.json", model, saes, given)
    said = json.loads(path.read_text())
    assert said["features"][0] == {"modelId": "tiny", "layer": "1-res", "index": 3, "strength": 1 / 3}
    assert said["modelId"] == "tiny" and said["steer_method"] == "SIMPLE_ADDITIVE"
    assert sr.load_neuronpedia(path, saes) == given
    entry = said["features"][0]
    path.write_text(json.dumps({"features": [entry, entry], "strength_multiplier": 3, "prompt": "Hi"}))
    assert sr.load_neuronpedia(path, saes) == (Add(F, 2.0),)
    for said, sentence in (
        ({"features": [entry | {"layer": "9-res"}]}, "it steers with 'tiny/9-res', and the SAEs given are"),
        ({"features": [entry | {"index": 96}]}, "L1/96 is out of range"),
        ({"features": [entry | {"index": 1.5}]}, "cannot be read"),
        ({"features": [entry | {"strength": "inf"}]}, "coefficient is inf"),
        ({"features": [entry], "steer_method": "ORTHOGONAL_DECOMP"}, "its steer_method is 'ORTHOGONAL_DECOMP'"),
        ({"features": [entry], "steer_special_tokens": False}, "its steer_special_tokens is False"),
        ([entry], "give a request to Neuronpedia"),
    ):
        path.write_text(json.dumps(said))
        with pytest.raises(ValueError, match=sentence):
            sr.load_neuronpedia(path, saes)


def test_neuronpedia_has_its_own_features_alone(model, saes, tmp_path):
    saes = {layer: known(sae, layer) for layer, sae in saes.items()}
    with pytest.raises(ValueError, match="adds a vector of your own"):
        sr.save_neuronpedia(tmp_path / "a.json", model, saes, [AddVector(1, V)])
    saes[2].cfg.metadata.neuronpedia_id = "other/2-res"
    with pytest.raises(ValueError, match="of the models other, tiny"):
        sr.save_neuronpedia(tmp_path / "a.json", model, saes, [Add(F, 1.0), Add(G, 1.0)])
    saes[2].cfg.metadata.neuronpedia_id = None
    with pytest.raises(ValueError, match="does not say what it is on Neuronpedia"):
        sr.save_neuronpedia(tmp_path / "a.json", model, saes, [Add(G, 1.0)])


def test_interp_engine_adds_the_same(model, saes, tmp_path):
    path = sr.save_interp_engine(tmp_path / "a.json", model, saes, ADDITIONS)
    (said,) = json.loads(path.read_text())
    assert said.keys() == {"point", "layers"} and said["point"] == "resid_post"
    steps = [(int(layer), step) for layer, each in said["layers"].items() for step in each]
    assert all(step.keys() == {"method", "vector", "scale"} and step["method"] == "additive" for _, step in steps)
    theirs = [AddVector(layer, torch.tensor(step["vector"]), step["scale"]) for layer, step in steps]
    with steered(model, saes, *ADDITIONS):
        expected = logits_of(model, ROWS)
    with steered(model, None, *theirs):
        assert_close(logits_of(model, ROWS), expected)


def test_what_overflows_is_not_written(model, saes, tmp_path):
    huge = [Add(F, 1e300)]
    for save, name in (
        (sr.save_control_vector, "a.gguf"),
        (sr.save_lm_eval, "a.pt"),
        (sr.save_interp_engine, "a.json"),
    ):
        with pytest.raises(ValueError, match="what is added after layer 1 is too large for float32"):
            save(tmp_path / name, model, saes, huge)
    assert not list(tmp_path.iterdir())
