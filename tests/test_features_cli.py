"""`saereason features`: the best of a table on disk, and the card of one feature on a terminal."""

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from conftest import tiny_model, tiny_sae
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from saereason.cli import app
from saereason.cli.card import Passage, card_document, card_parts
from saereason.cli.rows import as_document
from saereason.features import Feature, FeatureTable
from saereason.runs import Run
from saereason.saes import save_saes
from saereason.search import FeatureCard, Written
from saereason.stored import ranked, scores_of

HOSTILE = "[bold]a[/bold] :smiley: \u202eb\u200b\x1b[31m\n\tc"


def run(*arguments):
    return CliRunner().invoke(app, ["features", *map(str, arguments)])


def table(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return FeatureTable(
        {
            "layer": np.repeat([3, 14], n // 2),
            "index": np.tile(np.arange(n // 2), 2),
            "studentised": rng.normal(size=n).astype(np.float32),
            "rate_on": rng.uniform(size=n),
            "p": rng.integers(1, 5, n) / 100,
        }
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "search.parquet"
    table().save(path)
    return path


def names(found):
    return [str(feature) for feature in found]


# the best of a table


def test_the_best_are_those_of_the_table_in_memory(path):
    found, n = ranked(path, "studentised", 7)
    assert names(found) == names(table().top(7, "studentised")) and n == 60
    deep = table().at(14)
    found, n = ranked(path, "rate_on", 5, layers=[14], where="rate_on < 0.5 AND studentised > -1")
    kept = deep.where((deep["rate_on"] < 0.5) & (deep["studentised"] > -1))
    assert names(found) == names(kept.top(5, "rate_on")) and n == len(kept)
    assert found["rate_on"].tolist() == sorted(kept["rate_on"], reverse=True)[:5]


def test_the_lowest_come_first_where_asked_with_ties_in_order_and_what_has_no_value_last(tmp_path):
    values = np.array([0.2, np.nan, 0.1, 0.1, 0.3])
    index = np.array([4, 3, 2, 1, 0])
    FeatureTable({"layer": np.zeros(5, int), "index": index, "p": values}).save(tmp_path / "p.parquet")
    assert ranked(tmp_path / "p.parquet", "p", lowest=True)[0]["index"].tolist() == [1, 2, 4, 0, 3]
    assert ranked(tmp_path / "p.parquet", "p")[0]["index"].tolist() == [0, 4, 1, 2, 3]


def test_top_prints_a_table_and_the_same_as_json(path):
    shown = run("top", path, "--k", 3, "--layer", 14, "--where", "rate_on > 0.5")
    assert shown.exit_code == 0, shown.output
    best = ranked(path, "studentised", 3, layers=[14], where="rate_on > 0.5")[0]
    assert all(str(feature) in shown.stdout for feature in best) and "3 of" in shown.stdout
    told = run("top", path, "--k", 3, "--layer", 14, "--where", "rate_on > 0.5", "--json")
    document = json.loads(told.stdout)
    assert [row["feature"] for row in document["features"]] == names(best)
    assert [row["rate_on"] for row in document["features"]] == best["rate_on"].tolist()
    assert document["by"] == "studentised" and isinstance(document["n_features"], int)


def test_a_run_is_asked_by_the_column_or_by_the_table(path, tmp_path):
    table().save(tmp_path / "features.parquet")
    table(seed=1).with_column("cohens_d", np.arange(60.0)).save(tmp_path / "more" / "effects.parquet")
    assert names(ranked(tmp_path, "cohens_d", 1)[0]) == ["L14/29"]
    both = run("top", tmp_path)
    assert both.exit_code == 2 and "name one as view: ['features', 'more/effects']" in both.stderr
    one = run("top", tmp_path, "--view", "features", "--json")
    assert json.loads(one.stdout)["features"][0]["feature"] == names(table().top(1, "studentised"))[0]
    scores = scores_of(tmp_path, Feature(14, 2))
    assert scores["more/effects.cohens_d"] == 32 and "features.studentised" in scores
    assert scores_of(path, Feature(14, 2))["p"] == pytest.approx(table().row(Feature(14, 2))["p"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--by", "nope"], "no column 'nope' in"),
        (["--where", "nope > 1"], "'nope > 1' cannot be asked"),
        (["--where", "rate_on >"], "'rate_on >' cannot be asked"),
        (["--where", "true; DROP TABLE x"], "cannot be asked"),
        (["--k", 0], "k is 0; ask for at least 1"),
        (["--layer", "two"], "write numbers with commas"),
        (["--view", "x"], "no table"),
    ],
)
def test_bad_questions_end_in_a_sentence(path, options, sentence):
    where = path.parent if "--view" in options else path
    result = run("top", where, *options)
    assert result.exit_code == 2 and sentence in result.stderr and not result.stdout
    assert result.stderr.count("error:") == 1 and "Traceback" not in result.output


def test_what_is_no_table_of_features_is_refused(tmp_path):
    (tmp_path / "text.parquet").write_text("no table")
    assert "is no Parquet file" in run("top", tmp_path / "text.parquet").stderr
    assert "no table at" in run("top", tmp_path / "none.parquet").stderr
    (tmp_path / "run").mkdir()
    assert "holds no table of features" in run("top", tmp_path / "run").stderr
    Run.open(tmp_path / "run")
    with pytest.raises(ValueError, match="no table that has L3/9 once"):
        scores_of(tmp_path / "run", Feature(3, 9))


# the card


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cards")
    model = tiny_model()
    model.hf.save_pretrained(path / "model")
    model.tokenizer.save_pretrained(path / "model")
    save_saes({layer: tiny_sae("topk", layer) for layer in (1, 2)}, path / "saes")
    (path / "text.txt").write_text("\n\n".join(f"[red]{n}[/red] and some more text, {n * n}" for n in range(30)))
    FeatureTable({"layer": np.array([1]), "index": np.array([5]), "auroc": np.array([0.75])}).save(path / "t.parquet")
    return path


def card(folder, *options, feature="L1/5"):
    places = ["--model", folder / "model", "--saes", folder / "saes", "--data", folder / "text.txt"]
    return run("show", feature, *places, *options)


def test_a_card_is_shown_and_told_as_json(folder):
    shown = card(folder, "--table", folder / "t.parquet")
    assert shown.exit_code == 0, shown.output
    assert "L1/5 fires on" in shown.stdout and "auroc 0.750" in shown.stdout
    assert all(word in shown.stdout for word in ("raises", "lowers", "like it", "strongest", "«", "█"))
    told = json.loads(card(folder, "--table", folder / "t.parquet", "--json").stdout)
    assert told["feature"] == "L1/5" and told["scores"] == {"auroc": 0.75}
    assert 0 < told["firing_rate"] < 1 and sum(each["tokens"] for each in told["density"]) > 0
    strongest = [each for each in told["contexts"] if each["about"] == "strongest"]
    assert len(strongest) == 3 and strongest[0]["act"] == told["max_act"]
    texts = (folder / "text.txt").read_text()
    assert all(each["before"] + each["token"] + each["after"] in texts for each in told["contexts"])
    assert all(len(each["token"]) == 1 for each in told["contexts"])


def test_a_card_of_nothing_ends_in_a_sentence(folder):
    assert "no SAE at layer 3" in card(folder, feature="L3/5").stderr
    assert "L1/96 is out of range" in card(folder, feature="L1/96").stderr
    assert "is not a feature" in card(folder, feature="five").stderr
    missing = card(folder, "--table", folder / "t.parquet", feature="L1/6")
    assert missing.exit_code == 2 and "no table that has L1/6 once" in missing.stderr
    assert "contexts are 0" in card(folder, "--contexts", 0).stderr


def made():
    """A card whose every text is hostile."""
    written = Written(Feature(1, 2), ((HOSTILE, 1.5),), ((HOSTILE, -1.5),))
    density = tuple((2.0 ** (n / 2), 2.0 ** ((n + 1) / 2), 40 - n) for n in range(-12, 12) if n % 5)
    return FeatureCard(Feature(1, 2), 1000, 0.25, 9.0, (), {}, density, written, ((Feature(2, 3), 0.5),))


def drawn(parts, width):
    console = Console(width=width, file=StringIO())
    for part in parts:
        console.print(part)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_hostile_text_is_shown_and_does_nothing(width):
    read = [Passage("strongest", 9.0, HOSTILE * 4, HOSTILE, HOSTILE * 4), Passage("strongest", 8.0, "", "宽" * 90, "")]
    text = drawn(card_parts(made(), read, {HOSTILE: HOSTILE}, width), width)
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert not {"\u202e", "\u200b", "\x1b", "\t"} & {*text} and "😃" not in text
    assert "[bold]a[/bold]" in text.replace("\n", "") or width == 40
    assert "<U+202E>" in text or width == 40
    told = as_document(card_document(made(), read, {}))
    assert told.isascii() and json.loads(told)["raised"] == [{"token": HOSTILE, "logit": 1.5}]


def test_the_histogram_counts_every_token_in_few_bars():
    whole = made()
    for density in (whole.density, whole.density[:1], whole.density[:4]):
        text = drawn(card_parts(replace(whole, density=density), [], {}, 80), 80)
        lines = text.split("on how many tokens\n")[1].splitlines()
        counts = [int(line.split()[-1]) for line in lines if line.split()[-1].isdigit() and "to" in line]
        bars = [line for line in lines if " to " in line]
        assert len(bars) <= 12 and sum(counts) == sum(n for *_, n in density)
