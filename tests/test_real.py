"""SmolLM2-135M-Instruct and the adapter that ships: small runs of what users do first."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

import saereason as sr
from saereason.effects import Trial, accuracy, answers
from saereason.loading import ADAPTERS
from saereason.saes.pack import PACKS
from saereason.tasks import confirmation_task, problems, split_of, word_problems
from saereason.training import default_rows, split_rows

pytestmark = pytest.mark.real
ROOT = Path(__file__).parent.parent
README = (PACKS["smollm2-135m"].parent / "README.md").read_text(encoding="utf8")


@pytest.fixture(scope="session")
def taught():
    return sr.load_model("smollm2-135m", adapter="taught")


def test_the_shipped_adapter_is_what_its_card_says(taught):
    folder = ADAPTERS["taught"]
    card = json.loads((folder / "card.json").read_text())
    assert taught.hash == card["hash"]
    assert (folder / "adapter_model.safetensors").stat().st_size == card["bytes"] <= 5_000_000
    assert card["cot"]["value"] >= 0.60 and card["direct"]["value"] <= 0.10
    assert card["capitals"]["difference"]["low"] >= -0.05
    assert card["n_problems"] == 200


def test_the_starter_pack_fits_the_base_model_and_nearly_the_taught_one(taught):
    base, saes = sr.load_model("smollm2-135m"), sr.load_saes("smollm2-135m")
    assert list(saes) == [4, 9, 14, 19, 24, 28] and all(len(sae.W_dec) == 4608 for sae in saes.values())
    assert sum(file.stat().st_size for file in PACKS["smollm2-135m"].parent.iterdir()) <= 40_000_000
    for layer, sae in saes.items():
        card = sae.cfg.metadata
        assert card.model_hash == base.hash and card.n_tokens >= 3_000_000 and card.quality["dead"] < 0.01
        said = next(r for r in README.splitlines() if r.startswith(f"| {layer} |")).split("|")
        assert float(said[2]) == pytest.approx(card.quality["explained_variance"], abs=6e-4)
        assert float(said[6]) == pytest.approx(card.quality["loss_recovered"], abs=6e-4)
    fits = {lm: sr.preflight(lm, saes) for lm in (base, taught)}
    assert all(fit.fits and not fit.notes for fit in fits[base][:4])
    assert [fit.explained_variance > 0.6 for fits_ in fits.values() for fit in fits_] == [True] * 12
    for of_base, of_taught in zip(*fits.values(), strict=True):
        assert abs(of_base.explained_variance - of_taught.explained_variance) < 0.05
        assert "trained on weights" in of_taught.notes[0]


def test_the_taught_model_reasons_on_request(taught):
    task = confirmation_task(n=32)
    in_steps = pd.DataFrame(answers(taught, None, Trial.of(taught, task, task.cot)))
    directly = pd.DataFrame(answers(taught, None, Trial.of(taught, task, task.direct)))
    assert accuracy(in_steps).value >= 0.5 > 0.2 >= accuracy(directly).value
    assert in_steps["text"].str.startswith("Step 1").all()


def test_confirmation_problems_were_never_taught():
    drawn = problems(200, seed=3, split="confirmation")
    assert all(split_of(p.template, p.numbers) == "confirmation" for p in drawn)
    assert not {i.id for i in word_problems(drawn).items} & {
        i.id for i in word_problems(problems(2000, seed=0, split="train")).items
    }


@pytest.mark.slow
def test_saes_trained_for_a_minute_explain_most_of_the_variance(taught):
    rows, held_out = split_rows(default_rows(taught, n_problems=150), n_held_out=16)
    saes = sr.train_saes(taught, rows, [19], sr.Design(d_sae=1024))
    [quality] = sr.evaluate_saes(taught, saes, held_out)
    assert quality.explained_variance > 0.6 and quality.loss_recovered > 0.5
    assert abs(quality.l0 - 32) < 0.5


@pytest.mark.filterwarnings("ignore:the SAE at layer 19 was trained on weights")  # the pack's; the demo trains its own
def test_the_readme_quick_start_runs(tmp_path, monkeypatch, capsys):
    sr.save_saes({19: sr.load_saes("smollm2-135m")[19]}, tmp_path / "runs" / "demo" / "saes")
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"<!-- quick start -->\n```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"L19/\d+", printed) and "2 firings" in printed


@pytest.mark.slow
def test_the_quick_demo_runs_and_resumes(tmp_path):
    from saereason.demo import Settings, run_demo
    from saereason.demo.settings import QUICK

    settings = Settings(out=tmp_path / "run", sizes=QUICK)
    first = run_demo(settings).summary
    assert first["knowledge"]["taught"] >= first["knowledge"]["base"] - 0.05
    assert first["accuracy"]["cot"] > first["accuracy"]["direct"]
    assert any("taught" in sentence for sentence in first["words"])
    second = run_demo(settings).summary
    assert second["accuracy"] == first["accuracy"] and second["feature"] == first["feature"]
    assert sum(second["seconds"].values()) < 0.3 * sum(first["seconds"].values())
