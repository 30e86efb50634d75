"""The benchmark programs run from end to end, on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats as scipy_stats

TOP = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory):
    """What the quick training benchmark prints last, and its figure."""
    folder = tmp_path_factory.mktemp("tiny")
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    command = [sys.executable, "-m", "benchmarks.training", "--quick", "--model", str(folder)]
    done = subprocess.run(
        [*command, "--out", str(folder / "figure.html")], cwd=TOP, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder / "figure.html"


def test_training_reports_what_it_promises(measured):
    found, figure = measured
    assert {"over_default", "over_best", "ev_gap", "dead_gap", "memory_ratio"} <= found.keys()
    assert all(len(rates) == found["work"]["rounds"] and min(rates) > 0 for rates in found["rates"].values())
    assert 0.2 < found["memory_ratio"] < 5
    assert all(value > 0 for value in found["milliseconds_per_1000_tokens"].values())
    assert 0 < found["forward_of_gemm"] < 1
    assert "layers trained at once" in figure.read_text(encoding="utf8")


def test_every_side_of_the_training_benchmark_learns_the_same(measured):
    found, _ = measured
    for outcome in found["outcomes"].values():
        assert outcome["losses"][-1] < 0.9 * outcome["losses"][0]
    assert abs(found["ev_gap"]) < 0.03
    assert found["dead_gap"] < 0.05


@pytest.fixture(scope="module")
def calibrated():
    """What the quick calibration prints last."""
    command = [sys.executable, "-m", "benchmarks.calibration", "--quick"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_intervals_cover_at_about_their_level(calibrated):
    exact = {name: share for name, share in calibrated["coverage"].items() if name.startswith(("wilson", "paired"))}
    assert len(exact) == 9 and all(0.93 < share < 0.97 for share in exact.values())
    simulated = {name: share for name, share in calibrated["coverage"].items() if name not in exact}
    assert len(simulated) == 11 and all(share > 0.87 for share in simulated.values()), simulated
    assert 0.92 < sum(simulated.values()) / len(simulated) < 0.975


def test_nothing_is_discovered_where_there_is_nothing(calibrated):
    for name in ("null_any_discovery", "null_any_discovery_bh", "null_any_discovery_by"):
        assert (
            scipy_stats.binom.sf(calibrated[name] * calibrated["replicates"] - 1, calibrated["replicates"], 0.05) > 1e-3
        )
    assert min(calibrated["null_ks_permutation"], calibrated["null_ks_t"]) > 1e-3
