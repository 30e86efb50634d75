"""The benchmark programs run from end to end, on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CHROMIUM, tiny_sae

from benchmarks._family import Draw, answered, null, planted
from saereason import search
from saereason.search import Block
from saereason.stats import max_t

TOP = Path(__file__).parent.parent


def figures(program, *options):
    """What a benchmark prints last when it does little of everything."""
    command = [sys.executable, "-m", f"benchmarks.{program}", "--quick", *map(str, options)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The tiny model on disk."""
    made = tmp_path_factory.mktemp("tiny")
    model.hf.save_pretrained(made)
    model.tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def measured(folder, tmp_path_factory):
    """What the quick training benchmark prints last, and its figure."""
    out = tmp_path_factory.mktemp("out") / "figure.html"
    return figures("training", "--model", folder, "--out", out), out


@pytest.mark.slow
def test_training_reports_what_it_promises(measured):
    found, figure = measured
    assert {"over_default", "over_best", "ev_gap", "dead_gap", "memory_ratio"} <= found.keys()
    assert all(len(rates) == found["work"]["rounds"] and min(rates) > 0 for rates in found["rates"].values())
    assert 0.2 < found["memory_ratio"] < 5
    assert all(value > 0 for value in found["milliseconds_per_1000_tokens"].values())
    assert 0 < found["forward_of_gemm"] < 1
    assert "layers trained at once" in figure.read_text(encoding="utf8")


@pytest.mark.slow
def test_every_side_of_the_training_benchmark_learns_the_same(measured):
    found, _ = measured
    for outcome in found["outcomes"].values():
        assert outcome["losses"][-1] < 0.9 * outcome["losses"][0]
    assert abs(found["ev_gap"]) < 0.03
    assert found["dead_gap"] < 0.05


@pytest.fixture(scope="module")
def block(model, tmp_path_factory):
    """What search keeps of 120 pairs of answers, in a tiny model with SAEs of its own."""
    folder = tmp_path_factory.mktemp("search") / "block"
    search(model, {layer: tiny_sae("topk", layer) for layer in range(4)}, answered(model, 120), block=folder)
    return folder


@pytest.fixture(scope="module")
def calibrated(block, tmp_path_factory):
    """What the quick calibration prints last, and its figure."""
    out = tmp_path_factory.mktemp("out") / "figure.html"
    return figures("calibration", "--block", block, "--out", out), out


@pytest.mark.slow
def test_calibration_reports_what_it_promises(calibrated):
    found, figure = calibrated
    assert found["features"] == 4 * 96 and found["pairs"] == [120, 120]
    assert [line["d_z"] for line in found["recall"]] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert found["planted_first"] == found["recall"][5]["first"] and found["cue_caught"] == 1
    assert "true standardised difference" in figure.read_text(encoding="utf8")


@pytest.mark.slow
def test_intervals_cover_at_about_their_level(calibrated):
    coverage = calibrated[0]["coverage"]
    exact = {name: share for name, share in coverage.items() if name.startswith(("wilson", "paired"))}
    assert len(exact) == 9 and all(0.93 < share < 0.97 for share in exact.values())
    simulated = {name: share for name, share in coverage.items() if name not in exact}
    assert len(simulated) == 16 and all(share > 0.87 for share in simulated.values()), simulated
    assert 0.92 < sum(simulated.values()) / len(simulated) < 0.975


def test_nothing_is_discovered_where_there_is_nothing(block, tmp_path):
    found = null(Draw(Block.open(block), tmp_path / "block", n_pairs=80, n_permutations=99), 60)
    for name in ("null_any_discovery", "null_any_discovery_bh", "null_any_discovery_by"):
        assert found[name] <= 9 / 60  # 3 of 60 expected; more than 9 once in 1,000 times
    assert min(found["null_ks_permutation"], found["null_ks_t"]) > 1e-3


def test_what_is_planted_is_ranked_first_and_discovered(block, tmp_path):
    draw = Draw(Block.open(block), tmp_path / "block", n_pairs=100, n_permutations=99)
    none, large = planted(draw, 12, [0.0, 0.8])
    assert large.first >= 11 / 12 and large.discovered >= 11 / 12
    assert none.first <= 2 / 12 and none.discovered <= 2 / 12
    [among_real] = planted(draw, 6, [0.8], real=True)
    assert among_real.discovered >= 5 / 6


def test_the_real_pairs_do_differ_which_null_data_sets_could_have_shown(block):
    assert (max_t(Block.open(block).differences, n_permutations=99) <= 0.05).sum() > 10


@pytest.mark.slow
def test_the_search_benchmark_reports_what_it_promises(folder):
    found = figures("search", "--model", folder)
    assert found["over_forward"] > found["over_forward_last"] > 0.5
    assert 0.8 < found["memory_ratio"] < 1.3 and 0.8 < found["memory_ratio_block"] < 1.5
    assert all(len(rates) == 3 and min(rates) > 0 for rates in found["rates"].values())


@pytest.mark.slow
def test_the_steering_benchmark_reports_what_it_promises(folder):
    found = figures("steering", "--model", folder)
    ratios = {"over_plain", "over_plain_topk", "over_bridge", "eval_over_plain", "sweep_over_naive", "memory_ratio"}
    assert ratios <= found.keys() and all(0.05 < found[name] < 20 for name in ratios)


def test_the_benchmark_of_sizes_in_nats_reports_what_it_promises(folder):
    found = figures("kl", "--model", folder)
    assert 1 <= found["secant_worst"] < 1.11 and 1 <= found["fisher_worst"] < 10 and found["asc_median"] < 1


def test_the_layers_benchmark_reports_what_it_promises(folder):
    found = figures("layers", "--model", folder)
    assert found["over_naive"] > 0.3 and found["floor"] > 1 and found["apart"] < 0.05


def test_the_tables_benchmark_reports_what_it_promises():
    found = figures("tables")
    assert found["same_answers"] and min(found["top_sql"], found["top_table"], found["top_sorted"]) > 0


@pytest.mark.slow
def test_the_positive_benchmark_reports_what_it_promises():
    found = figures("positive")
    assert found["seeds"] == 2 and found["positive_passed"] == 0, "models that were hardly trained have no such feature"
    assert sum(found["failed"].values()) == 2


@pytest.mark.slow
def test_the_localisation_benchmark_finds_what_was_planted(folder):
    found = figures("localisation", "--model", folder)
    assert found["models"] == 2 == found["found"] and found["wrong_order"] == 0
    assert found["coverage"] >= 0.7 and 0 <= found["null_different"] <= 0.3


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_the_explorer_benchmark_reports_what_it_promises(folder, tmp_path):
    found = figures("explorer", "--model", folder, "--out", tmp_path / "page.html")
    assert 0.05 < found["megabytes"] < 2 and 0 < found["first_paint_ms"] <= found["card_ms"] and found["sort_ms"] > 0
    assert (tmp_path / "page.html").is_file()
