"""The command line: bad input ends in one sentence and a non-zero exit code."""

import re
import warnings

import pytest
from conftest import tiny_model, tiny_sae
from typer.testing import CliRunner

from saereason.cli import app
from saereason.saes import save_saes
from saereason.training.texts import plain_texts


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny model and its SAEs on disk."""
    path = tmp_path_factory.mktemp("cli")
    model = tiny_model()
    model.hf.save_pretrained(path / "model")
    model.tokenizer.save_pretrained(path / "model")
    save_saes({layer: tiny_sae("topk", layer) for layer in (1, 2)}, path / "saes")
    save_saes({1: tiny_sae("topk", 1, d_in=16)}, path / "narrow")
    (path / "features.pt").write_bytes(b"pickle")
    return path


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def steer(folder, *options, model="model", saes="saes", prompt="2 + 2 ="):
    where = folder / model if (folder / model).exists() else model
    return run("steer", "--model", where, "--saes", folder / saes, "--tokens", 6, *options, prompt)


def test_steer_prints_both_answers_and_the_receipt(folder):
    result = steer(folder, "--feature", "L1/3", "--add", 5, "--when", "last-prompt-token")
    assert result.exit_code == 0, result.output
    assert "clean ──" in result.output and "Add(L1/3, 5) ──" in result.output
    assert "Add(L1/3, 5): 1 firings" in result.output


def test_steer_gives_each_feature_an_answer_of_its_own(folder):
    both = steer(folder, "--feature", "L1/3", "--feature", "L2/5", "--add", 30)
    assert both.exit_code == 0, both.output
    clean, first, second, receipt = (part.strip().split("\n")[0] for part in re.split(r" ─+\n", both.output)[1:])
    assert len({clean, first, second}) == 3 and receipt.startswith("Add(L1/3, 30): ")
    assert both.output.count("nats at the first edited step") == 2
    unseen = steer(folder, "--feature", "L1/3", "--add", 30, "--when", "after:nothing of the kind")
    assert "0 firings" in unseen.output and "nats" not in unseen.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--feature", "L1/3"], "0 of --add, --clamp and --scale were given"),
        (["--feature", "L1/3", "--add", 1, "--clamp", 1], "2 of --add"),
        (["--feature", "L1/3", "--add", "nan"], "coefficient is nan"),
        (["--feature", "L3/3", "--add", 1], "no SAE at layer 3; there are SAEs at layers [1, 2]"),
        (["--feature", "L9/3", "--add", 1], "has no layer 9; its layers are 0 to 3"),
        (["--feature", "L1/96", "--add", 1], "L1/96 is out of range"),
        (["--feature", "layer one", "--add", 1], "is not a feature"),
        (["--feature", "L1/3", "--add", 1, "--when", "often"], "is not a when"),
        (["--feature", "L1/3", "--add", 1, "--when", "steps:90-99"], "never fired"),
    ],
)
def test_bad_options_end_in_a_sentence(folder, options, sentence):
    result = steer(folder, *options)
    assert result.exit_code == 2
    assert sentence in result.stderr and "Traceback" not in result.output
    assert result.stderr.count("error:") == 1


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": "x" * 600}, "the model's context is 512"),
        ({"saes": "nowhere"}, "no folder at"),
        ({"saes": "narrow"}, "it belongs to another model"),
        ({"saes": "features.pt"}, "is a pickle"),
        ({"model": "no-such-model"}, "no model 'no-such-model'"),
        ({"model": "weights.gguf"}, "no GGUF file at"),
    ],
)
def test_bad_places_end_in_a_sentence(folder, places, sentence):
    result = steer(folder, "--feature", "L1/3", "--add", 1, **places)
    assert result.exit_code == 2
    assert sentence in result.stderr and "Traceback" not in result.output


def test_layers_that_do_not_exist_end_in_a_sentence(folder, tmp_path):
    result = run("train", "--model", folder / "model", "--layers", "2,9", "--out", tmp_path / "saes")
    assert result.exit_code == 2 and "has no layer 9" in result.stderr
    result = run("train", "--model", folder / "model", "--layers", "two", "--out", tmp_path / "saes")
    assert result.exit_code == 2 and "write numbers with commas" in result.stderr
    assert not (tmp_path / "saes").exists()


def test_search_prints_the_best_features(folder, tmp_path):
    table = tmp_path / "features.parquet"
    options = ["--model", folder / "model", "--saes", folder / "saes", "--n", 6, "--top", 3, "--out", table]
    result = run("search", *options)
    assert result.exit_code == 0, result.output
    assert "192 features, 6 pairs" in result.output and table.is_file()


def test_check_refuses_saes_that_do_not_fit_and_says_why(folder):
    result = run("check", "--model", folder / "model", "--saes", folder / "saes")
    assert result.exit_code == 2
    assert "NO" in result.output and "no more than the mean of the tokens would" in result.output
    assert "the SAEs at layers [1, 2] do not fit" in result.stderr


def test_train_check_and_publish(folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(plain_texts()[:120]))
    trained = run(
        "train", "--model", folder / "model", "--layers", 1, "--data", text, "--d-sae", 64, "--k", 8,
        "--out", tmp_path / "saes",
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    saes = ["--saes", tmp_path / "saes"]
    result = run("check", "--model", folder / "model", *saes, "--data", text)
    assert result.exit_code == 0, result.output
    assert "yes" in result.output and "loss recovered" in result.output
    said = ["--data", "Python's help", "--licence", "apache-2.0"]
    result = run("publish", *saes, "--to", tmp_path / "hub", *said, "--licence", "Apache 2")
    assert result.exit_code == 2 and "give the hub's short name" in result.stderr and not (tmp_path / "hub").exists()
    result = run("publish", *saes, "--to", tmp_path / "hub", *said, "--model", folder / "model")
    assert result.exit_code == 0, result.output
    assert "Python's help" in (tmp_path / "hub" / "README.md").read_text()


def test_train_then_steer(folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"The number {n} comes after {n - 1} and before {n + 1}." for n in range(400)))
    options = ["--layers", 1, "--data", text, "--d-sae", 64, "--k", 4, "--out", tmp_path / "saes"]
    trained = run("train", "--model", folder / "model", *options)
    assert trained.exit_code == 0, trained.output
    assert "explained variance" in trained.output and "GB of memory beside the model" in trained.output
    assert "stream=" not in trained.output
    result = run(
        "steer",
        "--model",
        folder / "model",
        "--saes",
        tmp_path / "saes" / "saes",
        "--feature",
        "L1/3",
        "--clamp",
        2,
        "a",
    )
    assert result.exit_code == 0, result.output


def test_challenge_refuses_what_is_not_there(folder):
    result = run("challenge", "dreaming", "--model", folder / "model", "--saes", folder / "saes")
    assert result.exit_code == 2 and "there are cot-mode and step-words" in result.stderr
    result = run("challenge", "cot-mode", "--model", folder / "model", "--saes", folder / "saes", "--layers", "0,1")
    assert result.exit_code == 2 and "no SAE at layer 0" in result.stderr


def test_a_warning_is_one_line_and_shown_once(capsys):
    from saereason.cli.shell import plain_errors

    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with plain_errors():
            for _ in range(3):
                warnings.warn("the SAE at [b]layer 4[/b] was trained elsewhere.", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: the SAE at [b]layer 4[/b] was trained elsewhere.\n"
    assert warnings.showwarning is before
