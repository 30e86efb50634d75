"""The command line: bad input ends in one sentence and a non-zero exit code, and `--json` is one document."""

import json
import re
import warnings
from io import StringIO
from types import SimpleNamespace

import pytest
from conftest import tiny_model, tiny_sae
from rich.cells import cell_len
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from saereason.cli import EXAMPLES, app, shell
from saereason.cli.rows import Rows, plain
from saereason.features import Feature
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
    told = json.loads(run("search", *options, "--json").stdout)
    assert (told["n_features"], told["n_pairs"], told["table"]) == (192, 6, str(table))
    assert len(told["features"]) == 3 and isinstance(told["features"][0]["studentised"], float)


def test_check_refuses_saes_that_do_not_fit_and_says_why(folder):
    result = run("check", "--model", folder / "model", "--saes", folder / "saes")
    assert result.exit_code == 2
    assert "NO" in result.output and "no more than the mean of the tokens would" in result.output
    assert "the SAEs at layers [1, 2] do not fit" in result.stderr
    result = run("check", "--model", folder / "model", "--saes", folder / "saes", "--json")
    assert result.exit_code == 2 and "do not fit" in result.stderr
    told = json.loads(result.stdout)
    assert [(fit["layer"], fit["fits"]) for fit in told["fits"]] == [(1, False), (2, False)] and told["fits"][0][
        "notes"
    ]


def test_train_check_and_publish(folder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(plain_texts()[:120]))
    trained = run(
        "train", "--model", folder / "model", "--layers", 1, "--data", text, "--d-sae", 64, "--k", 8,
        "--out", tmp_path / "saes", "--json",
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    told = json.loads(trained.stdout)
    assert told["saes"]["saes"][0]["layer"] == 1 and told["plan"] in trained.stderr
    saes = ["--saes", tmp_path / "saes"]
    result = run("check", "--model", folder / "model", *saes, "--data", text)
    assert result.exit_code == 0, result.output
    assert "yes" in result.output and "loss recovered" in result.output
    said = ["--data", "Python's help", "--licence", "apache-2.0"]
    result = run("publish", *saes, "--to", tmp_path / "hub", *said, "--licence", "Apache 2")
    assert result.exit_code == 2 and "give the hub's short name" in result.stderr and not (tmp_path / "hub").exists()
    result = run("publish", *saes, "--to", tmp_path / "hub", *said, "--model", folder / "model", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["qualities"][0]["n_tokens"] > 0
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


def test_steer_tells_answers_and_receipt_as_json(folder):
    result = steer(folder, "--feature", "L1/3", "--feature", "L2/5", "--add", 30, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [answer["edit"] for answer in told["answers"]] == ["clean", "Add(L1/3, 30)", "Add(L2/5, 30)"]
    assert all(answer["tokens"] <= 6 for answer in told["answers"])
    assert [edit["layer"] for edit in told["receipt"]] == [1, 2]
    assert all(edit["nats"] > 0 and edit["firings"] > 0 for edit in told["receipt"])
    unseen = steer(folder, "--feature", "L1/3", "--add", 30, "--when", "after:nothing of the kind", "--json")
    assert json.loads(unseen.stdout)["receipt"][0]["nats"] is None


def test_what_is_planned_is_told_as_json(folder, tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        f"model: {folder / 'model'}\nsaes: {folder / 'saes'}\nfeatures: [L1/3]\nsizes: [1, 2]\nn: 4\n"
        "max_new_tokens: 6\nplain: 2\n"
    )
    told = json.loads(run("sweep", plan, "--dry-run", "--json", "--out", tmp_path / "sweep").stdout)
    assert told["left"] == len(told["units"]) == 6 and told["units"][0]["done"] is False and told["minutes"] > 0
    result = run("layers", "--model", folder / "model", "--n", 4, "--dry-run", "--json", "--out", tmp_path / "layers")
    told = json.loads(result.stdout)
    assert told["families"]["word problems"] == 4 and told["operators"] == 2 and "Families: " in result.stderr


def test_what_long_commands_find_is_told_as_json(folder, tmp_path, monkeypatch):
    """The work itself is done elsewhere: these are stand-ins that find something."""
    import saereason.demo
    import saereason.mechanisms.exam
    import saereason.mechanisms.teach
    import saereason.study
    from saereason.controls import Rung, Verdict
    from saereason.demo.story import Told

    rungs = tuple(Rung(n, n < 3, "so it was", details={"seen": float(n)}) for n in range(1, 9))
    verdict = Verdict(Feature(1, 2), "step-words", rungs, 1.0, 100, 1, 3)
    study = SimpleNamespace(verdicts=(verdict,), proposals=SimpleNamespace(left_out={"probe": "too few"}))
    monkeypatch.setattr(saereason.study, "run_study", lambda *_, **__: study)
    places = ["--model", folder / "model", "--out", tmp_path / "run", "--json"]
    told = json.loads(run("challenge", "step-words", "--saes", folder / "saes", *places).stdout)
    assert told["verdicts"] == [str(verdict)] and told["rungs"][1]["details"] == {"seen": 2}
    assert told["rungs"][0]["value"] is None and told["rungs"][0]["coefficient"] == 1.0

    summary = {"saes": [{"layer": 1, "l0": 8.0}], "features_searched": 9, "n_discovery": 4, "candidates_tried": 2}
    summary |= {"feature": "L1/2", "n": 3, "words": ["[b]It[/b] was found."]}
    monkeypatch.setattr(saereason.demo, "run_demo", lambda *_, **__: Told(summary, ("arm", "n"), [("clean", "3")]))
    assert json.loads(run("demo", *places).stdout)["features_searched"] == 9
    shown = run("demo", *places[:-1])
    assert "- [b]It[/b] was found." in shown.stdout and "chosen: L1/2" in shown.stdout

    monkeypatch.setattr(saereason.mechanisms.teach, "teach", lambda *_, **__: None)
    monkeypatch.setattr(saereason.mechanisms.exam, "write_card", lambda *_, **__: {"cot": 0.75})
    monkeypatch.setattr("saereason.loading.load_model", lambda *_, **__: None)
    assert json.loads(run("teach", *places).stdout) == {"cot": 0.75}


def test_compare_tells_what_it_finds_as_json(folder, tmp_path, monkeypatch):
    import pandas as pd

    from saereason.report import Table
    from saereason.study import suite

    each = SimpleNamespace(
        ground=SimpleNamespace(name="base"),
        comparison=SimpleNamespace(summary=lambda: pd.DataFrame([{"mechanism": "cot", "task": "sums", "tokens": 3.5}])),
    )
    monkeypatch.setattr("saereason.loading.load_model", lambda *_, **__: tiny_model())

    def run_suite(grounds, again):
        assert [one.name for one in (*grounds, *again)] == ["taught", "base", "base"]
        held = [held for one in (*grounds, *again) for held in (one.model, one.changed, *one.saes.values())]
        held = [id(one) for one in held if one is not None]
        assert len(set(held)) == len(held), "each has a model and SAEs of its own"
        return [each]

    monkeypatch.setattr(suite, "run_suite", run_suite)
    monkeypatch.setattr(
        suite, "answer_table", lambda each, rows: Table("answers", ("mechanism", "sums"), (("cot", 1),))
    )
    monkeypatch.setattr(suite, "verdict", lambda found: "There is no [i]switch[/i].")
    options = ["compare", "--suite", "quick", "--saes", folder / "saes", "--out", tmp_path]
    told = json.loads(run(*options, "--json").stdout)
    assert told["verdict"] == "There is no [i]switch[/i]." and told["suite"] == "quick"
    assert told["models"] == {"base": [{"mechanism": "cot", "task": "sums", "tokens": 3.5}]}
    shown = run(*options)
    assert "no [i]switch[/i]." in shown.stdout and "base: " in shown.stdout


# how results are shown


def test_with_json_standard_output_holds_the_document_and_nothing_else(capsys):
    with warnings.catch_warnings(), shell.plain_errors(True) as show:
        warnings.simplefilter("always")
        print("a library prints")  # noqa: T201
        shell.out.print("a note")
        show({"a": 1}, "a part")
        warnings.warn("mind this", UserWarning, stacklevel=1)
        show({"b": float("nan"), "c": Feature(1, 2)}, "another part")
    seen = capsys.readouterr()
    assert json.loads(seen.out) == {"a": 1, "b": None, "c": "L1/2"}
    assert seen.err.split("\n")[:3] == ["a library prints", "a note", "warning: mind this"] and "part" not in seen.err


def test_a_bug_keeps_its_traceback_and_writes_no_document(capsys):
    with pytest.raises(KeyError), shell.plain_errors(True) as show:
        show({"a": 1})
        raise KeyError("b")
    with pytest.raises(RuntimeError, match="of torch"), shell.plain_errors():
        raise RuntimeError("of torch")
    assert capsys.readouterr().out == ""


def test_values_become_plain_json():
    import numpy as np
    import pandas as pd

    from saereason.stats import Estimate

    frame = pd.DataFrame({"layer": [3], "p": [np.nan], "name": ["a"]})
    given = {"x": np.float32(0.5), "n": np.int64(3), "yes": np.bool_(True), "e": Estimate(0.5, 0.25, 1.0), "t": frame}
    given |= {"rows": Rows(("feature", "p"), [(Feature(1, 2), np.array([1.0, np.inf]))]), "at": shell.Path("a/b")}
    assert plain(given) == {
        "x": 0.5,
        "n": 3,
        "yes": True,
        "e": {"value": 0.5, "low": 0.25, "high": 1.0},
        "t": [{"layer": 3, "p": None, "name": "a"}],
        "rows": [{"feature": "L1/2", "p": [1.0, None]}],
        "at": "a/b",
    }


def test_a_table_fits_the_terminal_and_names_the_columns_that_do_not():
    text = "[red]x[/red] :smiley: \u202ey\n"
    rows = Rows(("feature", *(f"column{n}" for n in range(9))), [(text, *[1.23456, 1e-9, None, *[7] * 6])], "[b]t[/b]")
    for width in (40, 80, 200):
        console = Console(width=width, file=StringIO())
        console.print(rows.fitted(console))
        shown = console.file.getvalue()
        assert max(map(cell_len, shown.splitlines())) <= width
        assert "1.235" in shown and "[b]t[/b]" in shown and "\u202e" not in shown
        assert ("--json has all" in shown) == (width < 200)
    assert "[red]x[/red] :smiley: <U+202E>y⏎" in shown and "1e-09" in shown and "–" in shown


# help and completion


def commands(group=None, before=()):
    group = get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name), command


def test_every_command_takes_json_and_every_option_has_help():
    for name, command in commands():
        options = {option: each for each in command.params for option in each.opts}
        assert "--json" in options, name
        unsaid = [option for option, each in options.items() if not getattr(each, "help", None)]
        assert unsaid in ([], ["--seed"]), f"{name}: {unsaid}"


def test_every_example_is_a_line_that_the_command_understands():
    named = {" ".join(name): command for name, command in commands()}
    assert {example.split()[0] for example in EXAMPLES.values()} == {n for n in named if not n.startswith("features")}
    for name, command in named.items():
        told = [line.strip() for line in run(*name.split(), "--help").stdout.splitlines() if line.strip()]
        assert told[-2] == "Example:" and told[-1].startswith(f"saereason {name} "), told[-3:]
        known = {option for each in command.params for option in each.opts}
        assert {word for word in told[-1].split() if word.startswith("--")} <= known


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("challenge ", {"cot-mode", "step-words"}),
        ("challenge s", {"step-words"}),
        ("compare --suite q", {"quick"}),
        ("search --model sm", {"smollm2-135m"}),
        ("steer hi --saes ", {"smollm2-135m"}),
        ("search --adapter t", {"taught"}),
        ("features ", {"top", "show"}),
    ],
)
def test_names_are_completed(words, completed):
    environment = {"_SAEREASON_COMPLETE": "complete_bash", "COMP_WORDS": f"saereason {words}"}
    environment["COMP_CWORD"] = str(len(environment["COMP_WORDS"].split(" ")) - 1)
    result = CliRunner().invoke(app, [], env=environment, prog_name="saereason")
    assert {*result.stdout.split()} == completed


def test_names_to_complete_are_those_there_are():
    from saereason.loading import ADAPTERS, WHEELS
    from saereason.saes.pack import PACKS

    assert tuple(WHEELS) == shell.MODELS and tuple(PACKS) == shell.PACKS and tuple(ADAPTERS) == shell.ADAPTERS


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
