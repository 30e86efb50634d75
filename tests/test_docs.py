"""What the pages in docs/ show is what the package does."""

import ast
import os
import re
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import yaml

import saereason as sr

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))

SMALLER = {
    "index": {},
    "quickstart": {
        "problems(1600,": "problems(40,",
        "plain_texts())": "plain_texts()[:10])",
        "problems(64,": "problems(4,",
        "problems(96,": "problems(8,",
        "problems(20,": "problems(4,",
        "max_new_tokens=96": "max_new_tokens=8",
        ".take(20)": ".take(4)",
    },
    "search": {"n=24": "n=6"},
    "explorer": {
        "n=24": "n=6",
        "block=block, run=run)": "block=block, run=run, texts=['Step by step, we add.'])",
        "n=40": "n=4",
    },
    "exchange": {"[:100]": "[:20]"},
    "challenge": {
        "if layer in (14, 24)": "if layer == 14",
        "n_discovery=96": "n_rehearsal=2, n_plain=12, max_new_tokens=4, n_discovery=8",
        "n_confirmation=60": "n_confirmation=4",
        "top(2,": "top(1,",
        "sums_model(seed=101)": "sums_model(seed=101, n_steps=20)",
        "sums_saes(adder, seed=101)": "sums_saes(adder, seed=101, n_rows=4000)",
    },
    "mechanisms": {"k=5": "k=2", "problems(16,": "problems(8,"},
    "steering": {"problems(8,": "problems(2,"},
    "training": {"default_rows(model))": "default_rows(model, n_problems=40)[:60])"},
    "compared": {},
    "scaling": {"default_rows(model)": "default_rows(model, n_problems=40)"},
}
"""The pages' code on less of everything."""


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_use_public_names(page):
    trees = [ast.parse(block) for block in blocks(page)]
    used = {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sr"
    }
    assert used <= set(sr.__all__)


def test_every_public_name_is_in_the_api():
    listed = re.findall(r"^\.\. auto\w+:: (\w+)$", (DOCS / "api.md").read_text(encoding="utf8"), re.MULTILINE)
    assert sorted(listed) == sr.__all__


def test_the_loop_on_a_cluster_runs(tmp_path, monkeypatch, model):
    """Two tasks of an array one after the other, the whole read from the run, a sweep, and a stand-in for Ray."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sr, "load_model", lambda *args, **options: model)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    script, reading, sweeping, on_ray = blocks(DOCS / "cluster.md")
    names, results = {"__name__": "__main__"}, tmp_path / "runs" / "loop" / "results"
    for rank, done in enumerate((5, 9)):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(rank))
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
        exec(compile(script, "loop.py", "exec"), names)
        assert len(list(results.iterdir())) == done
    written = {path: path.stat().st_mtime_ns for path in results.iterdir()}
    exec(compile(reading, "cluster.md", "exec"), names)
    assert isinstance(names["whole"], pd.DataFrame) and len(names["whole"]) == (1 + 2 * model.n_layers) * 20
    exec(compile(sweeping, "cluster.md", "exec"), names)
    assert sr.sweep_units(model, None, names["trial"], names["arms"], run=names["run"])["done"].all()
    ray = SimpleNamespace(
        init=lambda **options: os.environ.update(options["runtime_env"]["env_vars"]),
        remote=lambda **options: lambda work: SimpleNamespace(remote=work),
        get=list,
    )
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("LOOP_RUN", "")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "loop", SimpleNamespace(share=names["share"]))
    exec(compile(on_ray, "cluster.md", "exec"), {"__name__": "__main__"})
    assert {path: path.stat().st_mtime_ns for path in results.iterdir()} == written


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((DOCS.parent / "CITATION.cff").read_text(encoding="utf8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["version"] == metadata.version("saereason") and "doi" not in cited
    page = (DOCS / "citing.md").read_text(encoding="utf8")
    assert f"title   = {{{cited['title']}}}" in page and f"version = {{{cited['version']}}}" in page


@pytest.mark.slow
@pytest.mark.real
def test_the_page_on_saes_runs(tmp_path, monkeypatch, topk_saes):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAEREASON_CACHE", str(tmp_path / "cache"))
    sr.save_saes(topk_saes, "runs/train/saes")
    names = {"__name__": "docs"}
    exec(compile("\n".join(blocks(DOCS / "saes.md")), "saes.md", "exec"), names)
    assert list(names["packed"]) == list(topk_saes)


def test_the_page_on_exchange_runs(tmp_path, monkeypatch, model, topk_saes):
    monkeypatch.chdir(tmp_path)
    rows = [list(range(n % 7 + 4, n % 7 + 90)) for n in range(12)]
    code = "\n".join(blocks(DOCS / "exchange.md")[1:])  # the first loads the real model
    names = {"sr": sr, "model": model, "saes": {3: topk_saes[3]}, "rows": rows}
    exec(compile(code.replace("14", "3"), "exchange.md", "exec"), names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batches", "export", "latents"]


def test_the_example_with_the_harness_runs(tmp_path, monkeypatch, capsys, model, topk_saes):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    Path("sums.jsonl").write_text('{"q": "2 + 2?", "choices": ["4", "5"]}\n')
    (code,) = (block for block in blocks(DOCS / "steering.md") if "import lm_eval" in block)
    exec(compile(code, "steering.md", "exec"), {"sr": sr, "model": model, "saes": topk_saes})
    assert capsys.readouterr().out.count("acc,none") == 2


def test_the_example_with_reasoning_gym_runs(capsys):
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    (code,) = (block for block in blocks(DOCS / "tasks.md") if "reasoning-gym/" in block)
    exec(compile(code, "tasks.md", "exec"), {})
    assert capsys.readouterr().out.endswith("right\n")


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", SMALLER)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(block for block in blocks(DOCS / f"{name}.md") if "import lm_eval" not in block)  # it has a test
    for shown, smaller in SMALLER[name].items():
        assert shown in code
        code = code.replace(shown, smaller)
    exec(compile(code, f"{name}.md", "exec"), {"__name__": "docs"})
