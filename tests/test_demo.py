"""The whole story, on tiny random models of every family with a task file, as users run it on their own."""

import json
import shutil
import sys
from dataclasses import replace

import pandas as pd
import pytest
from conftest import tiny_model

from saereason.demo import Settings, run_demo
from saereason.demo.arms import Arms
from saereason.demo.settings import QUICK
from saereason.demo.summary import of_arms
from saereason.runs import claimed

TINY = replace(QUICK, n_problem_texts=24, n_evaluation_rows=4, d_sae=64, k=8, max_new_tokens=8, n_knowledge=6)


@pytest.fixture(scope="session")
def task_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "sums.jsonl"
    rows = [{"question": f"What is {n} plus {n + 3}?", "answer": str(2 * n + 3)} for n in range(24)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Saved tiny models, with a context long enough for plain text at a token a character."""

    def save(family):
        folder = tmp_path_factory.mktemp(family)
        model = tiny_model(family)
        model.hf.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        return folder

    return {family: save(family) for family in ("llama", "qwen2", "gemma3")}


def tell(folder, task_file, out):
    settings = Settings(
        out=out,
        model=str(folder),
        adapter=None,
        task=task_file,
        direct="Only the number.",
        cot="Think first.",
        layers=(1, 2),
        sizes=TINY,
    )
    return run_demo(settings, command=["test"])


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_a_model_of_ones_own_runs_without_new_code(family, folders, task_file, tmp_path):
    told = tell(folders[family], task_file, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    arms = {"direct", "cot", "feature", "random_feature", "random_direction", "diffmean", "forced_prefix"}
    assert set(summary["accuracy"]) == arms
    assert summary["n"] == 10 and summary["knowledge"]["taught"] is None
    assert [sae["layer"] for sae in summary["saes"]] == [1, 2]
    assert "no gap between the direct and the CoT prompt" in told.summary["words"][0]
    assert not any("taught" in sentence for sentence in summary["words"])
    report = (tmp_path / "run" / "report.html").read_text()
    assert "Accuracy on the confirmation problems" in report and summary["feature"] in report


def test_a_second_run_computes_nothing_and_says_the_same(folders, task_file, tmp_path, monkeypatch):
    first = tell(folders["llama"], task_file, tmp_path / "run").summary
    results = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "results").iterdir()}
    monkeypatch.setattr("saereason.demo.story.train_saes", None)
    monkeypatch.setattr(sys.modules["saereason.effects.answers"], "generate", None)
    second = tell(folders["llama"], task_file, tmp_path / "run").summary
    assert {k: v for k, v in first.items() if k != "seconds"} == {k: v for k, v in second.items() if k != "seconds"}
    assert results == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run" / "results").iterdir()}


def test_the_manifest_says_what_decided_the_results(folders, task_file, tmp_path):
    tell(folders["llama"], task_file, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert set(manifest["saes"]) == {"1", "2"}
    assert not set(manifest["discovery"]) & set(manifest["confirmation"])
    assert manifest["model"]["hash"] and manifest["seeds"] == {"demo": 0} and manifest["versions"]["torch"]
    assert manifest["rendered"]["chat"] is True


def test_saes_that_are_not_those_of_the_run_are_trained_again(folders, task_file, tmp_path):
    out = tmp_path / "run"
    first = tell(folders["llama"], task_file, out).summary
    shutil.copytree(out / "saes" / "layer_01", out / "saes" / "layer_03")
    weights = out / "saes" / "layer_03" / "cfg.json"
    weights.write_text(weights.read_text().replace("blocks.1.", "blocks.3."))
    assert tell(folders["llama"], task_file, out).summary["saes"] == first["saes"]
    shutil.rmtree(out / "saes")
    assert tell(folders["llama"], task_file, out).summary["feature"] == first["feature"]


def test_two_processes_do_not_share_a_run(folders, task_file, tmp_path):
    with claimed(tmp_path / "run"), pytest.raises(ValueError, match="another process is at work on"):
        tell(folders["llama"], task_file, tmp_path / "run")


def test_what_cannot_work_is_refused_before_any_work(folders, tmp_path):
    tasks = tmp_path / "long.jsonl"
    rows = [{"question": f"What is {n}? " + "x" * (600 if n == 7 else 1), "answer": "1"} for n in range(24)]
    tasks.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match=r"the prompt has \d+ tokens and the model's context is 512"):
        tell(folders["llama"], tasks, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    rows[7] = {"question": "What is 7?", "answer": "a long answer " * 35}
    tasks.write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match=r"item 8 of long may take \d+ tokens with its answer"):
        tell(folders["llama"], tasks, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    with pytest.raises(ValueError, match="seed is -1"):
        Settings(seed=-1)


def graded(*counts):
    """Answer tables of 100 items with so many right, as the arms have them."""
    outcomes = [["right"] * count + ["wrong"] * (100 - count) for count in counts]
    return [pd.DataFrame({"outcome": outcome, "first_token": 5}) for outcome in outcomes]


@pytest.mark.parametrize(
    ("direct", "cot", "feature", "prefix", "says", "never"),
    [
        (5, 60, 55, 55, ["changes accuracy by +0.50", "the cheaper explanation suffices"], ["no gap", "worse"]),
        (5, 60, 55, 20, ["does more than its first token"], ["suffices"]),
        (60, 20, 20, 20, ["does worse than the direct one", "lowers accuracy"], ["suffices", "no gap"]),
        (5, 5, 5, 5, ["shows no gap", "not shown to raise accuracy"], ["suffices"]),
    ],
)
def test_the_words_say_what_the_figures_show(direct, cot, feature, prefix, says, never):
    names = ("direct", "cot", "feature", "forced_prefix")
    tables = dict(zip(names, graded(direct, cot, feature, prefix), strict=True))
    cells = [(on, which) for on in (False, True) for which in ("clean", "steered")]
    crossed = dict(zip(cells, graded(direct, feature, direct, feature), strict=True))
    arms = Arms(tables, {}, 7, "Step", crossed)
    said = " ".join(of_arms(arms, "L1/2 at 3.0"))
    assert all(part.lower() in said.lower() for part in says) and not any(part in said for part in never), said
