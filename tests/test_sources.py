"""From texts, records, arrays, datasets and the model's own writing to rows of token ids."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from saereason import Run
from saereason.training import Framing, Material, openings, own_rows, read_rows

TEXTS = ["one two three four five six", "seven eight", "nine ten eleven twelve thirteen fourteen fifteen"]


def ids(model, text):
    return model.tokenizer(text)["input_ids"]


def write(path, kind):
    records = [{"text": text} for text in TEXTS]
    if kind == "txt":
        path.write_text("\n\n".join(TEXTS))
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n\n")
    elif kind == "strings.jsonl":
        path.write_text("\n".join(map(json.dumps, TEXTS)))
    elif kind == "parquet":
        pd.DataFrame(records).to_parquet(path)
    elif kind == "folder":
        from datasets import Dataset

        Dataset.from_list(records).save_to_disk(str(path))
    return path


@pytest.mark.parametrize("kind", ["txt", "jsonl", "strings.jsonl", "parquet", "folder"])
def test_every_form_gives_the_same_rows(model, tmp_path, kind):
    assert read_rows(model, write(tmp_path / f"texts.{kind}", kind)) == [ids(model, text) for text in TEXTS]


@pytest.mark.parametrize("kind", ["npy", "safetensors", "jsonl", "parquet"])
def test_token_ids_are_taken_as_they_are(model, tmp_path, kind):
    tokens, path = np.arange(12).reshape(3, 4) + 3, tmp_path / f"tokens.{kind}"
    if kind == "npy":
        np.save(path, tokens)
    elif kind == "safetensors":
        save_file({"tokens": tokens}, path)
    elif kind == "parquet":
        pd.DataFrame({"input_ids": list(tokens)}).to_parquet(path)
    else:
        path.write_text("\n".join(json.dumps({"tokens": row}) for row in tokens.tolist()))
    assert read_rows(model, path) == tokens.tolist()


def test_chats_are_rendered_with_the_models_template(model, tmp_path):
    path, turns = tmp_path / "chats.jsonl", [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]
    lines = [{"messages": turns}, {"question": "a b", "answer": "c"}, {"prompt": "a b", "completion": "c"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    text = model.tokenizer.apply_chat_template(turns, tokenize=False)
    expected = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert read_rows(model, path, Framing(length=512)) == [expected] * 3


def test_rows_are_of_one_document_or_packed(model):
    documents, end = [list(range(10, 20)), [30, 31], list(range(40, 47))], model.tokenizer.eos_token_id
    assert Framing(length=4).rows(model, documents) == [
        [10, 11, 12, 13], [14, 15, 16, 17], [18, 19], [30, 31], [40, 41, 42, 43], [44, 45, 46]
    ]  # fmt: skip
    packed = Framing(length=4, packed=True).rows(model, documents)
    joined = [*documents[0], end, *documents[1], end, *documents[2], end]
    assert packed == [joined[n : n + 4] for n in range(0, 20, 4)]


def test_bos_before_every_row_or_none(model):
    bos = model.tokenizer.bos_token_id
    documents = [[bos, 10, 11, 12, 13], [14, 15]]
    assert Framing(length=3, bos=True).rows(model, documents) == [[bos, 10, 11], [bos, 12, 13], [bos, 14, 15]]
    assert Framing(length=3, bos=False).rows(model, documents) == [[10, 11, 12], [13], [14, 15]]
    assert Framing(length=3).rows(model, documents)[0] == [bos, 10, 11]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.txt", None, "nothing at"),
        ("empty.txt", " \n\n ", "holds no text"),
        ("latin.txt", "é".encode("latin1"), "cannot be read"),
        ("broken.jsonl", '{"text": "a"}\n{"te', "cannot be read"),
        ("list.jsonl", "[1, 2]", "has a record that is a list"),
        ("other.jsonl", '{"body": "a"}', r"has records with \['body'\]"),
        ("beyond.jsonl", '{"tokens": [1, 999999]}', "has token id 999999"),
        ("below.jsonl", '{"tokens": [1, -3]}', "has token id -3"),
        ("words.jsonl", '{"tokens": "abc"}', "tokens that are no whole numbers"),
        ("damaged.parquet", b"PAR1 and no more", "cannot be read"),
        ("damaged.npy", b"no array", "cannot be read"),
        ("pickle.npy", None, "cannot be read"),
        ("floats.npy", None, "not whole numbers"),
        ("damaged.safetensors", b"1234567890", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(model, tmp_path, name, content, says):
    path = tmp_path / name
    if name == "floats.npy":
        np.save(path, np.ones(3))
    elif name == "pickle.npy":
        np.save(path, np.array([{}, None], dtype=object), allow_pickle=True)
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=says) as caught:
        read_rows(model, path)
    assert len(str(caught.value).splitlines()) == 1


def test_framings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="give at least 2"):
        Framing(length=1)


def test_the_models_own_writing_follows_its_prompts(model):
    prompts = openings(model, [[10, 11, 12, 13], [14, 15, 16, 17], [18, 19]], 2)
    rows = own_rows(model, prompts, max_new_tokens=5, seed=3)
    assert len(prompts) == len(rows) == 2
    for prompt, row in zip(prompts, rows, strict=True):
        given = model.encode(prompt)
        assert row[: len(given)] == given and 0 < len(row) - len(given) <= 5
    assert own_rows(model, prompts, max_new_tokens=5, seed=3) == rows
    assert own_rows(model, prompts, max_new_tokens=5, seed=4) != rows


def test_material_mixes_all_kinds_and_writes_its_own_once(model, tmp_path, monkeypatch):
    path, run = write(tmp_path / "texts.txt", "txt"), Run.open(tmp_path / "run")
    material = Material((str(path),), problems=4, own=6)
    rows = material.rows(model, run, seed=1)
    assert len(rows) == 3 + 4 + 6 and all(ids(model, text) in rows for text in TEXTS)
    monkeypatch.setattr("saereason.training.material.own_rows", None)
    assert material.rows(model, run, seed=1) == rows
