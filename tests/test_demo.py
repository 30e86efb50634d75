"""The whole story, on tiny random models of every family with a task file, as users run it on their own."""

import json
import sys
from dataclasses import replace

import pytest
from conftest import tiny_model

from saereason.demo import Settings, run_demo
from saereason.demo.settings import QUICK

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
