"""The layer lab from end to end: families of both kinds, every operator, the page and the command."""

import dataclasses
import runpy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_model, tiny_sae
from test_layers import bump, curve
from typer.testing import CliRunner

import saereason as sr
from saereason.cli import app
from saereason.layers import AnswerDepths, MeanOfBlock, Patching, SkipBlock, graded
from saereason.layers.contrasts import POSITIONS
from saereason.metrics import Scored
from saereason.plots import plot_centroids, plot_operators
from saereason.runs import write_table
from saereason.saes import save_saes
from saereason.study.lab import Subject, battery, conclude, named, page, sentences, subjects_of
from saereason.study.lab.pair import screened
from saereason.study.lab.parts import Parts
from saereason.study.lab.tables import finding_table, pair_table, tables
from saereason.tasks import confirmation_task

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(autouse=True)
def few_partners(monkeypatch):
    """Drawing hundreds of problems takes long with every type checked."""
    monkeypatch.setattr("saereason.study.lab.subjects.PARTNERS", 60)


def family_curves(operator="skip block", gap=4.0):
    """Four families of each kind around two depths, and plain text that layer 0 ruins."""
    made = []
    for kind, centre in (("reasoning", 5.5 + gap / 2), ("knowledge", 5.5 - gap / 2)):
        for n in range(4):
            one = curve(bump(centre + 0.3 * n), seed=n, name=f"{kind} {n}")
            made.append(dataclasses.replace(one, kind=kind, operator=operator))
    plain = curve([5.0, *[0.1] * 11], noise=0.01, name="plain text")
    return [*made, dataclasses.replace(plain, kind="neutral", operator=operator)]


@pytest.fixture(scope="module")
def lab():
    depths = [AnswerDepths("reasoning 0", "reasoning", 12, np.array([3.0, np.nan, 5.0]), np.array([1.0, 0.0, 0.5]))]
    return conclude([*family_curves(), *family_curves("SAE splice", gap=0.0)], depths)


def test_each_operator_has_a_finding_on_kinds_and_on_a_pair(lab):
    assert list(lab.kinds) == list(lab.pairs) == ["skip block", "SAE splice"]
    assert lab.kinds["skip block"].statement.startswith("Reasoning depends on deeper layers")
    assert "not shown to differ" in lab.kinds["SAE splice"].statement
    assert lab.kinds["skip block"].layers_left_out == (0,) == lab.pairs["skip block"].layers_left_out
    assert len(sentences(lab)) == 5
    assert lab.verdict == (
        "For reasoning in higher layers: 1 of 2 operators place it deeper than knowledge (skip block), and none the "
        "other way round."
    )


def test_operators_together_may_say_against_disagree_or_nothing():
    ways = {"skip block": -4.0, "SAE splice": 0.0}
    against = conclude([one for name, gap in ways.items() for one in family_curves(name, gap)], [])
    assert against.verdict.startswith("Against reasoning in higher layers: 1 of 2 operators place it shallower")
    both = conclude([*family_curves("skip block", 4.0), *family_curves("SAE splice", -4.0)], [])
    assert both.verdict.startswith("Operators disagree") and "SAE splice shallower, of 2 operators." in both.verdict
    nothing = conclude(family_curves(gap=0.0), [])
    assert nothing.verdict.startswith("Inconclusive: of 1 operator none") and "(1 could)" in nothing.verdict
    assert against.all_layers["skip block"].layers_left_out == ()
    screens = ("skip block by gradient", "with matched features", "without candidate features")
    aside = conclude([one for name in screens for one in family_curves(name, 4.0)], [])
    assert aside.verdict.startswith("Inconclusive: of 0 operators none") and len(aside.kinds) == 3


def test_the_page_tells_what_was_found(lab, model):
    told = page(model, lab)
    assert told.lead == lab.verdict
    titles = [section.title for section in told.sections]
    assert titles[:3] == ["What each operator says", "Families", "Depth of every family"]
    rows = {row[0]: row for row in told.sections[1].rows}
    first, found = rows["reasoning 0"], lab.kinds["skip block"]
    assert first[1:3] == ("reasoning", len(lab.curves[0].drop))
    assert "not counted because" not in told.sections[1].header, "all are counted"
    assert (first[5].value, first[5].low, first[5].high) == found.centroids["reasoning 0"]
    kept = [n for n in range(12) if n not in found.layers_left_out]
    assert first[4].value == pytest.approx(lab.curves[0].drop[:, kept].sum(1).mean()) and rows["plain text"][5] is None
    assert "Operators side by side" in titles and "Where the answer can be read" in titles
    fewer = {"skip block": dataclasses.replace(found, families_left_out={"reasoning 0": "few items"})}
    table = page(model, dataclasses.replace(lab, kinds=lab.kinds | fewer)).sections[1]
    assert table.header[-1] == "not counted because" and [row[-1] for row in table.rows[:2]] == ["few items", ""]


def test_one_mask_of_layers_serves_every_operator():
    """That of skipped blocks on plain text, though another operator costs it nothing."""
    other = [one for one in family_curves("SAE splice", gap=2.0) if one.kind != "neutral"]
    found = conclude([*family_curves(), *other], [])
    assert found.kinds["SAE splice"].layers_left_out == found.pairs["SAE splice"].layers_left_out == (0,)
    assert found.all_layers["SAE splice"].layers_left_out == ()
    plain = family_curves()[-1]
    alone = conclude(other, [], neutral=plain)
    assert alone.kinds["SAE splice"].layers_left_out == (0,) and list(alone.kinds) == ["SAE splice"]


def test_the_verdict_is_told_with_all_layers_where_that_differs():
    """Layer 0, which plain text needs as well, carries what makes reasoning look shallow."""
    made = []
    for one in family_curves(gap=4.0):
        extra = 30.0 if one.kind == "reasoning" else 0.0
        made.append(dataclasses.replace(one, drop=one.drop + np.where(np.arange(12) == 0, extra, 0.0)))
    found = conclude(made, [])
    assert found.verdict.startswith("For reasoning in higher layers")
    assert "With all layers: against reasoning in higher layers" in found.verdict


def test_every_panel_has_the_number_of_its_own_items(model):
    fewer = [dataclasses.replace(c, operator="few", drop=c.drop[:20], clean=c.clean[:20]) for c in family_curves()]
    found = conclude([*family_curves(), *fewer], [])
    forest = next(each for each in page(model, found).sections if each.title == "Depth of every family")
    counts = [{name.rpartition("(n = ")[2] for name in trace.y} for trace in forest.figure.data]
    n = len(found.curves[0].drop)
    assert counts == [{f"{n})"}, {f"{n})"}, {"20)"}, {"20)"}]


def test_what_says_nothing_is_on_disk_with_its_reason():
    noise = [dataclasses.replace(c, operator="noise", drop=c.drop - c.drop.mean()) for c in family_curves()[:8]]
    table = finding_table(conclude([*family_curves(), *noise], []))
    rows = table[table["operator"] == "noise"]
    assert set(rows["layers"]) == {"without vital", "all"} and rows["centroid"].isna().all()
    assert rows["not_counted_because"].str.contains("no total effect|gains by the changes").all()
    pairs = pair_table(conclude([*family_curves(), *noise], []))
    assert list(pairs["operator"]) == ["skip block", "noise"] and set(pairs["way"]) == {"as they are"}
    assert pairs["centroid_difference"].isna().tolist() == [False, True]
    told = table[(table["operator"] == "skip block") & (table["layers"] == "all")]
    assert len(told) == 8 and told["layers_left_out"].eq("").all() and told["p_all_operators"].le(1).all()


def test_patching_of_two_runs_that_do_not_differ_is_no_figure(model, lab):
    values = np.random.default_rng(0).normal(size=(9, len(POSITIONS), 12))
    same = Patching("sums", "reasoning", tuple(range(12)), 12, np.zeros(9), np.zeros(9), values, values)
    found = dataclasses.replace(lab, parts=Parts(patched=(same,)))
    titles = {section.title: section for section in page(model, found).sections}
    assert "Patching: sums" not in titles
    assert "patching: the two runs of sums differ by under 5 standard errors." in " ".join(
        titles["Left out"].paragraphs
    )


def test_the_first_pair_is_told_as_it_is_matched_and_adjusted():
    curves = family_curves()
    sides = [next(one for one in curves if one.kind == kind) for kind in ("reasoning", "knowledge")]
    families = []
    for n, one in enumerate(sides):
        items = tuple(Scored((1,) * (5 + k % 7 + n), (2, 3), (False, True)) for k in range(len(one.drop)))
        families.append(sr.Family(one.family, one.kind, sr.LogProb(items)))
    found = conclude(curves, [], families).alike
    assert found is not None and found.matched is not None and found.match is not None
    assert found.unshared == () and found.match.kept > 0.7
    assert [*found.nulls] == [
        "halves of reasoning 0",
        "halves of knowledge 0",
        "shifts along depth",
        "swaps within matched pairs",
    ]
    assert found.nulls["swaps within matched pairs"].reached == 0 and found.nulls["shifts along depth"].reached > 0
    assert found.nulls["halves of reasoning 0"].usual < 1 / 11, "a tenth of what these families differ by"
    assert abs(found.match.after["prompt tokens"]) < abs(found.match.before["prompt tokens"])
    for finding in (found.as_they_are, found.adjusted, found.matched):
        assert finding.low > 0 and finding.centroid_difference == pytest.approx(4 / 11, abs=0.1)
    far = [
        dataclasses.replace(families[0], metric=sr.LogProb(tuple(Scored((1,) * 50, (2,), (True,)) for _ in range(60))))
    ]
    apart = conclude(curves, [], [*far, families[1]]).alike
    assert apart is not None and apart.matched is None and "are alike" in apart.refused
    assert "swaps within matched pairs" not in apart.nulls
    assert apart.unshared == ("prompt tokens", "tokens before the last scored")
    assert conclude(curves, []).alike is None
    fewer = [dataclasses.replace(one, drop=one.drop[:22], clean=one.clean[:22]) for one in curves]
    assert conclude(fewer, [], families).alike is None, "as patching, whose curves are of pairs"


def test_the_screen_is_ranked_against_skipping():
    skip = curve(bump(3), name="a")
    other = dataclasses.replace(skip, operator="skip block by gradient", drop=2 * skip.drop)
    turned = dataclasses.replace(other, family="b", drop=-skip.drop)
    found = screened([skip, other, turned, dataclasses.replace(skip, family="b")])
    assert found == {"a": pytest.approx(1), "b": pytest.approx(-1)}
    assert screened([skip]) == {}


def test_the_forest_has_every_family_once_a_panel(lab):
    figure = plot_centroids(list(lab.kinds.values()))
    names = [name for trace in figure.data for name in trace.y]
    assert sorted(names) == sorted(2 * [f"{kind} {n}" for kind in ("reasoning", "knowledge") for n in range(4)])
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_centroids([dataclasses.replace(lab.kinds["skip block"], centroids={})])


def test_the_heat_map_is_reasoning_less_knowledge(lab):
    figure = plot_operators(lab.curves)
    values = np.array(figure.data[0].z, dtype=float)
    assert values.shape == (2, 12)
    np.testing.assert_allclose(values.sum(axis=1), 0, atol=1e-9)  # shares sum to one
    assert values[0, 8] > 0.05 and values[0, 3] < -0.05 and np.abs(values[1]).max() < 0.05
    none = [dataclasses.replace(one, operator="noise", drop=one.drop * 0) for one in family_curves()]
    with_noise = plot_operators([*lab.curves, *none])
    assert np.isnan(
        np.array(with_noise.data[0].z, dtype=float)[2]
    ).all() and "both kinds to share out: noise" in with_noise.layout.title.text.replace("<br>", " ")
    with pytest.raises(ValueError, match="give curves of both kinds"):
        plot_operators([one for one in lab.curves if one.kind == "reasoning"])


def test_graded_answers_by_layer_are_those_of_one_layer_at_a_time(model, tmp_path):
    trial = sr.Trial.of(model, confirmation_task(n=4), max_new_tokens=6)
    found = graded(model, None, trial, SkipBlock(), name="sums", kind="reasoning", run=sr.Run.open(tmp_path))
    assert found.curve.operator == "skip block, graded answers" and found.curve.drop.shape == (4, 4)
    for layer in range(4):
        with sr.steered(model, None, sr.ScaleBlock(layer, 0.0)):
            written = sr.generate(model, trial.prompts, max_new_tokens=6)
        ends = zip(written.texts, written.tokens, written.finished, strict=True)
        outcomes = [trial.judge(n, text, tokens, finished=ended) for n, (text, tokens, ended) in enumerate(ends)]
        rights = np.array([outcome is sr.Outcome.RIGHT for outcome in outcomes])
        np.testing.assert_array_equal(found.curve.drop[:, layer], found.curve.clean - rights)
        lost = np.mean([outcome not in (sr.Outcome.RIGHT, sr.Outcome.WRONG) for outcome in outcomes])
        assert found.no_answer[layer] == pytest.approx(lost)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lab")
    model = tiny_model()
    model.hf.save_pretrained(path / "model")
    model.tokenizer.save_pretrained(path / "model")
    save_saes({1: tiny_sae("topk", 1)}, path / "saes")
    return path


def layers(folder, *options):
    arguments = ["layers", "--model", folder / "model", "--n", 12, "--out", folder / "out", *options]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_tells_how_long_and_then_what(folder, monkeypatch):
    monkeypatch.setattr("saereason.study.lab.subjects.FEWEST_PLAIN", 3)
    monkeypatch.setattr("saereason.study.lab.parts.PROBED", 60)
    told = layers(folder, "--dry-run", "--operators", "all")
    blocks = "skip block, skip block by gradient, block × 0.5, block × 1.5, mean of block, skip attention, skip MLP, "
    beside = "patching, probes, steps, graded answers, fast and slow, similar states. This takes about"
    assert told.exit_code == 0 and f"Asked for: {blocks}{beside}" in told.output
    assert not (folder / "out").exists()
    on_features = layers(folder, "--dry-run", "--operators", "all", "--saes", folder / "saes")
    assert f"Asked for: {blocks}SAE splice, features, {beside}" in on_features.output
    result = layers(folder, "--operators", "all", "--saes", folder / "saes")
    assert result.exit_code == 0, result.output
    assert "Families: word problems (12), capital (12), plain text (3)." in result.output
    assert "- skip block: " in result.output and "Inconclusive about kinds" in result.output
    curves = pd.read_parquet(folder / "out" / "curves.parquet")
    assert set(curves["operator"]) >= {"skip block", "skip attention", "mean of block", "SAE splice"}
    battery = curves[~curves["operator"].str.contains("features|graded|patching")]
    assert len(battery) == (12 + 12 + 3) * (7 * 4 + 1)
    assert {"with candidate features, beyond matched", "skip block, graded answers"} <= set(curves["operator"])
    there = {path.name for path in (folder / "out").glob("*.parquet")}
    assert there >= {"lens.parquet", "steps.parquet", "fast_slow.parquet", "similarity.parquet", "nulls.parquet"}
    columns = {*pd.read_parquet(folder / "out" / "fast_slow.parquet").columns}
    assert {"overthinks_low", "corrects_value"} <= columns and not {"overthinks", "corrects"} & columns
    page = (folder / "out" / "report.html").read_text(encoding="utf8")
    for title in (
        "They do not meet in prompt tokens",
        "What each operator says",
        "One pair, alike in length and difficulty",
        "That pair where there is nothing",
        "The gradient as a screen",
        "What a probe reads",
    ):
        assert title in page
    the_documentation_is_made_of_such_runs(folder)


def the_documentation_is_made_of_such_runs(folder):
    """With operators that find something, which a model that knows nothing has not."""
    operators = ("skip block", "skip attention", "skip MLP")
    planted = tables(conclude([one for operator in operators for one in family_curves(operator)], []))
    for model in ("base", "taught"):
        shutil.copytree(folder / "out", folder / "runs" / model)
        for name, table in planted.items():
            own = pd.read_parquet(folder / "out" / f"{name}.parquet")
            rest = own[own["operator"] == "skip block, graded answers"]
            write_table(folder / "runs" / model / f"{name}.parquet", pd.concat([table, rest]))
    study = runpy.run_path(str(DOCS / "layers_study.py"))
    with pytest.raises(SystemExit, match=r"there is no .*curves\.parquet, .*; run `make layers`"):
        study["main"](folder / "docs", folder / "docs")
    study["main"](folder / "runs", folder / "docs", ("html",))
    made = {path.stem for path in (folder / "docs" / "images").iterdir()}
    assert made == {"layers", "operators", "steps"}
    told = (folder / "docs" / "layers_tables.md").read_text(encoding="utf8")
    widths = [{line.count("|") for line in part.splitlines() if line.startswith("|")} for part in told.split("<!--")]
    assert widths == [set(), {9}, {8}, {8}, {10}, set()], "every row has as many cells as its header"
    row = planted["findings"].iloc[0]
    assert f"{row['centroid']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" in told and "+0.36" in told


def test_curves_are_read_again_as_they_were(tmp_path, lab):
    write_table(tmp_path / "curves.parquet", tables(lab)["curves"])
    found = sr.load_curves(tmp_path / "curves.parquet")
    assert len(found) == len(lab.curves)
    for mine, theirs in zip(found, lab.curves, strict=True):
        for name in ("family", "kind", "operator", "layers", "n_layers", "unit"):
            assert getattr(mine, name) == getattr(theirs, name), name
        np.testing.assert_array_equal(mine.drop, theirs.drop)
        np.testing.assert_array_equal(mine.clean, theirs.clean)
    again = conclude(found, lab.depths)
    assert again.kinds["skip block"].statement == lab.kinds["skip block"].statement
    write_table(tmp_path / "findings.parquet", tables(lab)["findings"])
    assert len(sr.load_curves(tmp_path)) == len(found)
    with pytest.raises(ValueError, match=r"findings.parquet has no column 'clean'; give a folder that"):
        sr.load_curves(tmp_path / "findings.parquet")


def test_the_mean_of_blocks_is_measured_only_where_it_is_asked_for(model, monkeypatch):
    whole = {one.name: one for one in battery(model, {}, ["a text", "and another"], "mean of block, skip MLP")}
    assert whole.keys() == {"mean of block", "skip MLP"} and len(whole["mean of block"].means) == model.n_layers
    monkeypatch.setattr(MeanOfBlock, "of", None)
    assert [one.name for one in battery(model, {}, ["a text"], "patching, skip MLP")] == ["skip MLP"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--operators", "skip block, some"], "'some' is none of skip block, skip block by gradient, block × 0.5"),
        (["--families", "some"], "families without --data, a folder of others, are 'some'"),
        (["--families", "all"], "--data"),
        (["--n", 1], "n is 1"),
        (["--operators", "probes, features"], "there are no SAEs to take them from"),
    ],
)
def test_bad_options_end_in_a_sentence(folder, options, sentence):
    result = layers(folder, *options)
    assert result.exit_code == 2 and sentence in result.stderr and "Traceback" not in result.output


def test_a_curve_of_no_kind_makes_no_lab(model, tmp_path):
    from saereason.progress import steps
    from saereason.study import run_lab

    plain = Subject(sr.plain_family(model, ["x" * 40, "y" * 50]), None)
    with steps() as bars, pytest.raises(ValueError, match="there is no reasoning family"):
        run_lab(model, None, [plain], [SkipBlock()], sr.Run.open(tmp_path), bars)
    with steps() as bars, pytest.raises(ValueError, match="there is no part 'probe'; there are features, patching"):
        run_lab(model, None, [plain], [SkipBlock()], sr.Run.open(tmp_path), bars, ["probe"])


def test_operators_are_asked_for_by_name(folder):
    result = layers(folder, "--dry-run", "--operators", "skip MLP, skip block by gradient")
    assert result.exit_code == 0 and "Asked for: skip block by gradient, skip MLP. This takes about" in result.output


def test_what_is_beside_the_operators_is_asked_for_by_name(folder, tmp_path):
    """Without any operator, too."""
    told = layers(folder, "--dry-run", "--operators", "patching, skip MLP,probes")
    assert "Asked for: skip MLP, patching, probes. This takes about" in told.output
    result = layers(folder, "--operators", "graded answers", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "Asked for: graded answers. This takes about" in result.output
    curves = sr.load_curves(tmp_path)
    assert [(c.family, c.operator) for c in curves if c.kind == "neutral"] == [("plain text", "skip block")]
    assert {c.operator for c in curves if c.kind != "neutral"} == {"skip block, graded answers"}
    page = (tmp_path / "report.html").read_text(encoding="utf8")
    assert "Answers that are none, with a block skipped" in page and "What a probe reads" not in page


@pytest.mark.parametrize(
    ("part", "title"),
    [("similar states", "States under fast and slow prompts"), ("probes", "What a probe reads")],
)
def test_a_part_that_says_nothing_of_kinds_makes_a_page_too(folder, tmp_path, part, title):
    result = layers(folder, "--operators", part, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report.html").read_text(encoding="utf8")
    assert title in page and "What each operator says" not in page and "Inconclusive: of 0 operators none" in page


def test_what_needs_many_items_takes_them_of_the_whole_task(model):
    problems, capitals, plain = subjects_of(model, ["x" * 40, "y" * 50], 6)
    assert len(problems.family.metric) == 6 and problems.most(model, 4) is problems.family
    more = problems.most(model, 30)
    assert more.metric.items[:6] == problems.family.metric.items and len(more.metric) == 30
    assert len(capitals.most(model, 10**6).metric) == len(capitals.whole) > 30
    assert plain.most(model, 30) is plain.family
    own = subjects_of(model, ["x" * 40, "y" * 50], 3, task=problems.whole.take(9))[0]
    assert len(own.family.metric) == 3 and len(own.most(model, 200).metric) == 9


def test_one_item_without_working_does_not_change_how_the_others_are_scored(model):
    task = confirmation_task(n=12)
    bare = tuple(dataclasses.replace(item, solution="", spans=()) for item in task.items)
    few = dataclasses.replace(task, items=(*task.items[:10], *bare[10:]))
    own = subjects_of(model, ["x" * 40, "y" * 50], 4, task=few)[0]
    assert own.whole.items == task.items[:10]
    assert own.most(model, 99).metric.items[:4] == own.family.metric.items
    many = dataclasses.replace(task, items=(*task.items[:4], *bare[4:]))
    own = subjects_of(model, ["x" * 40, "y" * 50], 4, task=many)[0]
    assert len(own.whole) == 12 and own.most(model, 99).metric.items[:4] == own.family.metric.items


def test_families_are_asked_for_by_name(folder, tmp_path):
    missing = layers(folder, "--families", "capital", "--data", tmp_path)
    assert missing.exit_code == 2 and "Traceback" not in missing.output
    names = ("capital", "currency", "known_1000")
    there = [Subject(sr.Family(name, "knowledge", sr.LogProb(())), None) for name in names]
    with pytest.raises(ValueError, match="'nothing' is none of capital, currency, known_1000"):
        named("capital, nothing", there, "families")
    assert named("known_1000,capital", there, "families") == [there[0], there[2]]
