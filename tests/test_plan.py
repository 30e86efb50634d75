"""Sweeps planned in a YAML file, and the command that runs them."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model, tiny_sae
from typer.testing import CliRunner

import saereason as sr
from saereason.cli import app
from saereason.plots import plot_dose
from saereason.saes import save_saes
from saereason.study import Plan, Planned

GIVEN = {"features": ["L1/3", "L2/5"], "sizes": [2, 8.0]}
SMALL = "features: [L1/3]\nsizes: [2, 30]\nn: 6\nmax_new_tokens: 6\nplain: 2\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, its SAEs and a plan on disk."""
    path = tmp_path_factory.mktemp("plan")
    model = tiny_model()
    model.hf.save_pretrained(path / "model")
    model.tokenizer.save_pretrained(path / "model")
    save_saes({layer: tiny_sae("topk", layer) for layer in (1, 2)}, path / "saes")
    (path / "plan.yaml").write_text(f"{SMALL}model: {path / 'model'}\nsaes: {path / 'saes'}\n")
    return path


def sweep(folder, *options, plan="plan.yaml"):
    out = folder / "out"
    return CliRunner().invoke(app, ["sweep", str(folder / plan), "--out", str(out), *map(str, options)])


def test_a_plan_is_read_and_changed(folder):
    plan = Plan.read(folder / "plan.yaml", ["sizes=[1, 2]", "when=prompt", "adapter=null", "n = 4"])
    assert (plan.features, plan.sizes, plan.when, plan.n) == (("L1/3",), (1.0, 2.0), ("prompt",), 4)
    assert Plan.of(GIVEN).sizes == (2.0, 8.0)
    assert Plan.read(folder / "plan.yaml", ["dtype=float32"]).load_model().dtype == torch.float32


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": [1]}, "no setting 'size'; did you mean sizes?"),
        ({"qqqq": 1}, "no setting 'qqqq'; there are"),
        ({"n": "many"}, "n is 'many'; it must be a whole number"),
        ({"n": True}, "n is True; it must be a whole number"),
        ({"n": 0}, "n is 0"),
        ({"sizes": ["a"]}, r"sizes is \('a',\); it must be a list of numbers"),
        ({"sizes": [float("inf")]}, "sizes are inf; each must be a finite number"),
        ({"sizes": [1, 1]}, r"sizes has 1.0 twice"),
        ({"features": [3]}, r"features is \(3,\); it must be a list of texts"),
        ({"features": []}, "must each have at least one entry"),
        ({"adapter": 3}, "adapter is 3; it must be a text or null"),
        ({"may_be_silent": "yes"}, "may_be_silent is 'yes'; it must be true or false"),
        ({"may_be_silent": 1}, "may_be_silent is 1; it must be true or false"),
        ({"operator": "push"}, "operator is 'push'; choose from"),
        ({"unit": "metres"}, "unit is 'metres'; choose from"),
        ({"operator": "scale", "unit": "nats"}, "the factor of scale has no unit"),
        ({"unit": "nats", "sizes": [0, 1]}, "sizes in nats must be positive"),
        ({"operator": "boost", "unit": "largest-act"}, "the alpha of boost has no unit, and largest-act was asked for"),
        ({"operator": "boost", "unit": "mean-norm"}, "the alpha of boost has no unit"),
        ({"sizes": [10**400]}, r"sizes is \(1000.*; it must be a list of numbers"),
        ({"sizes": ["1e400"]}, "sizes are inf; each must be a finite number"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"dtype": "float33"}, "dtype is 'float33'; it must be a floating-point type"),
        ({"rows_at_once": 0}, "rows_at_once is 0; it must be at least 1"),
        ({"source": "x"}, "source and part are of benchmarks, and task is 'confirmation'; leave them out"),
        ({"task": "a.jsonl", "part": "x"}, "source and part are of benchmarks, and task is 'a.jsonl'"),
    ],
)
def test_what_is_no_plan_is_said(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Plan.of(GIVEN | changes)


def test_a_file_that_is_no_plan_is_said(tmp_path):
    path = tmp_path / "plan.yaml"
    for text, sentence in (
        ("features: [", "are not YAML"),
        ("- 1", "has no table of settings"),
        ("n: 3", "the plan has no features and no sizes"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=sentence):
            Plan.read(path)
    path.write_text(SMALL)
    with pytest.raises(ValueError, match="'n' changes nothing"):
        Plan.read(path, ["n"])
    with pytest.raises(ValueError, match="n=3, n=4 change one setting twice"):
        Plan.read(path, ["n=3", "n=4"])
    path.write_text(f"{SMALL}n: 3\n")
    with pytest.raises(ValueError, match="n is given twice; give it once"):
        Plan.read(path)


def test_powers_of_ten_are_numbers(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("features: [L1/3]\nsizes: [1e3, 2.5E-1, 1.0e+2, -1.e1]\n")
    assert Plan.read(path).sizes == (1000.0, 0.25, 100.0, -10.0)


def test_units_of_size_mean_what_they_say(model, topk_saes):
    def sizes(**settings):
        plan = Plan.of(GIVEN | {"features": ["L1/3"], "n": 4, "plain": 2, "max_new_tokens": 4} | settings)
        trial = plan.trial(model)
        return trial, plan.interventions(model, topk_saes, trial)

    trial, own = sizes(sizes=[2.0])
    assert own == [sr.Add(sr.Feature(1, 3), 2.0, sr.LastPromptToken())]
    [norm] = sizes(unit="mean-norm", sizes=[0.5])[1]
    mean, row = sr.mean_norms(model, [1], texts_of(model, trial))[1], float(topk_saes[1].W_dec[3].norm())
    assert row != pytest.approx(1, rel=0.01) and norm.size * row == pytest.approx(0.5 * mean)
    [along] = sizes(unit="mean-norm", operator="set-projection", sizes=[0.5])[1]
    assert along.size == pytest.approx(0.5 * mean)
    [largest] = sizes(unit="largest-act", sizes=[2.0])[1]
    feature = sr.Feature(1, 3)
    twice = 2 * sr.largest_acts(model, topk_saes, [feature], texts_of(model, trial))[feature]
    assert largest.size == pytest.approx(twice)
    [along] = sizes(unit="largest-act", operator="set-projection", sizes=[2.0])[1]
    assert along.size == pytest.approx(twice * row)
    coarse = sr.Model(copy.deepcopy(model.hf).bfloat16(), model.tokenizer, "coarse")
    with pytest.raises(ValueError, match=r"rounding in bfloat16 hides .*load the model in float32"):
        plan = Plan.of(GIVEN | {"features": ["L1/3"], "n": 4, "unit": "nats", "sizes": [1e-5]})
        plan.interventions(coarse, topk_saes, plan.trial(coarse))
    for operator in ("add", "clamp"):
        [nats] = sizes(unit="nats", operator=operator, sizes=[0.05])[1]
        moved = sr.Divergence.over(model, trial.prompts)(topk_saes, nats).mean()
        assert moved == pytest.approx(0.05, rel=0.11), operator
    with pytest.raises(ValueError, match=r"no size of Boost.* was found that moves the next token by 0.0001 nats"):
        sizes(unit="nats", operator="boost", sizes=[1e-4])  # it enters the k at one size, and then counts at once


@pytest.mark.parametrize("operator", ["add", "clamp", "set-projection"])
def test_a_size_of_one_mean_norm_is_the_norm_of_the_residual_stream(model, topk_saes, operator):
    plan = Plan.of(GIVEN | {"unit": "mean-norm", "operator": operator, "sizes": [50], "n": 4, "when": ["everywhere"]})
    trial = plan.trial(model)
    found = sr.sweep(model, topk_saes, trial, plan.interventions(model, topk_saes, trial)).summary()
    assert found["relative_size"][1:].tolist() == pytest.approx([50, 50], rel=0.25)


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_an_sae_that_normalises_has_no_mean_norm(model, kind):
    sae = tiny_sae("standard", 1)
    sae.cfg.normalize_activations = kind
    sae._setup_activation_normalization()
    for unit, operator in (("mean-norm", "add"), ("mean-norm", "clamp"), ("largest-act", "set-projection")):
        plan = Plan.of(GIVEN | {"features": ["L1/3"], "n": 4, "unit": unit, "operator": operator})
        with pytest.raises(ValueError, match=rf"layer 1 normalises its input \({kind}\), so a unit of L1/3"):
            plan.interventions(model, {1: sae}, plan.trial(model))


def texts_of(model, trial):
    return [*trial.prompts, *Plan.of(GIVEN | {"plain": 16}).texts(model)]


def test_a_feature_that_is_never_on_has_no_largest_activation(model):
    plan = Plan.of({"features": ["L1/3"], "sizes": [1], "unit": "largest-act", "n": 4})
    dead = {1: tiny_sae("topk", 1)}
    with torch.no_grad():
        dead[1].W_enc[:, 3], dead[1].b_enc[3] = 0.0, -9.0
    with pytest.raises(ValueError, match="L1/3 is never on"):
        plan.interventions(model, dead, plan.trial(model))


def test_the_command_tells_does_and_goes_on(folder):
    told = sweep(folder, "--dry-run")
    assert told.exit_code == 0, told.output
    assert "6 work units, 6 to do" in told.output and "at most about" in told.output
    assert not (folder / "out").exists()
    done = sweep(folder)
    assert done.exit_code == 0, done.output
    assert "6 items an arm" in done.output and "Add(L1/3, 30) LastPromptToken()" in done.output
    summary = pd.read_parquet(folder / "out" / "summary.parquet")
    assert list(summary["size"].dropna()) == [2.0, 30.0] and np.isfinite(summary["perplexity"]).all()
    page = (folder / "out" / "report.html").read_text(encoding="utf8")
    assert "Dose and response" in page and "6 firings, |change|/|residual|" in page
    assert sr.Run.open(folder / "out").manifest["plan"]["sizes"] == [2.0, 30.0]
    again = sweep(folder, "--dry-run", "--set", "sizes=[2, 30, 90]")
    assert "8 work units, 2 to do" in again.output, again.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--set", "features=L9/3"], "no SAE at layer 9"),
        (["--set", "features=L1/99"], "L1/99 is out of range"),
        (["--set", "when=often"], "is not a when"),
        (["--set", "task=gsm9k"], "no benchmark 'gsm9k'"),
        (["--set", "sizes=2, 3"], "sizes is ('2, 3',)"),
        (["--set", "saes=nowhere"], "no folder at"),
        (["--set", "max_new_tokens=100000", "--dry-run"], "the model's context is 512"),
    ],
)
def test_bad_plans_end_in_a_sentence(folder, options, sentence):
    result = sweep(folder, *options)
    assert result.exit_code == 2 and sentence in result.stderr, result.output
    assert "Traceback" not in result.output and result.stderr.count("error:") == 1


def test_an_arm_that_never_fires_is_an_error_unless_it_may_be(folder):
    late = ["--set", "when=steps:90-99"]
    refused = sweep(folder, *late)
    assert refused.exit_code == 2 and "never fired" in refused.stderr
    allowed = sweep(folder, *late, "--set", "may_be_silent=true")
    assert allowed.exit_code == 0, allowed.output
    summary = pd.read_parquet(folder / "out" / "summary.parquet")
    assert list(summary["firings"]) == [0, 0, 0] and list(summary["change"]) == [0.0, 0.0, 0.0]


def test_a_folder_of_another_command_is_left_alone(folder, tmp_path):
    for command in (["challenge"], ["/usr/bin/saereason", "demo", "--out", "sweep"]):
        sr.Run.open(tmp_path).write_manifest(command=command)
        (tmp_path / "report.html").write_text("theirs")
        for own in (("sweep", folder / "plan.yaml"), ("layers", "--model", folder / "model")):
            result = CliRunner().invoke(app, [*map(str, own), "--out", str(tmp_path)])
            assert result.exit_code == 2 and "give another folder" in result.stderr, result.output
        assert sr.Run.open(tmp_path).manifest["command"] == command
        assert (tmp_path / "report.html").read_text() == "theirs"


def test_no_plan_at_all_ends_in_a_sentence(folder):
    assert "no file" in sweep(folder, plan="none.yaml").stderr


def test_the_estimate_counts_what_is_left(model, topk_saes):
    plan = Plan.of(GIVEN | {"n": 4, "max_new_tokens": 8, "plain": 2})
    planned = Planned.of(plan, model, topk_saes)
    units = planned.units(None)
    assert planned.seconds(units) > 0
    assert planned.seconds(units.assign(done=True)) == 0


def test_the_dose_plot_shows_every_arm_and_its_interval(model, topk_saes):
    plan = Plan.of(GIVEN | {"n": 6, "max_new_tokens": 6, "plain": 0, "when": ["last-prompt-token", "generated"]})
    planned = Planned.of(plan, model, topk_saes)
    found = sr.sweep(model, topk_saes, planned.trial, planned.interventions)
    figure = plot_dose(found)
    said = figure.layout.title.text.replace("<br>", " ")
    assert f"{len(planned.trial)} items, the same for every arm; bars: Wilson's 95% intervals." in said
    lines = [trace for trace in figure.data if trace.showlegend]
    assert [line.name for line in lines] == [
        *(f"Add({f}) {when}" for f in ("L1/3", "L2/5") for when in ("LastPromptToken()", "Generated()")),
        "clean",
    ]
    assert all(tuple(line.x) == (2.0, 8.0) and len(line.error_y.array) == 2 for line in lines[:-1])
    assert len(figure.layout.annotations) == 3  # nothing was measured on plain texts
    names = [f"{each} {each.when}" for each in planned.interventions]
    moved = plot_dose(found, sizes=dict(zip(names, map(float, range(1, 9)), strict=True)), unit="nats")
    assert moved.data[0].x == (1.0, 2.0) and moved.layout.xaxis3.title.text == "size, in nats"
    with pytest.raises(ValueError, match="no arm of the sweep has a size"):
        plot_dose(sr.sweep(model, topk_saes, planned.trial, [(planned.interventions[0], planned.interventions[-1])]))
