"""Figures hold the figures they are given, and say what they leave off."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import plotly.graph_objects as go
import pytest

from saereason import plots
from saereason.controls import Rung, Verdict
from saereason.features import Feature
from saereason.layers import (
    Curve,
    Finding,
    GradedCurve,
    Patching,
    Probed,
    Similarity,
    StepMap,
    compare_depth,
    compare_kinds,
    share_difference,
)
from saereason.layers.contrasts import POSITIONS
from saereason.mechanisms import Overlap
from saereason.plots import (
    figure_html,
    plot_accuracy,
    plot_firing,
    plot_funnel,
    plot_layers,
    plot_quality,
    plot_share_difference,
    plotly_script,
    save_figures,
    visible,
)
from saereason.plots.export import _on_white
from saereason.plots.look import CLEAR, framed
from saereason.quality import Quality
from saereason.stats import Estimate, bootstrap_bands, wilson

HOSTILE = "<b>a</b> &amp; \u202e <img src=x onerror=alert(1)>"


def curve(family="word problems", kind="reasoning", *, means=None, n=40, seed=0, layers=None):
    """A curve whose mean drop is about `means`."""
    means = np.linspace(0.1, 0.4, 12) if means is None else np.asarray(means, dtype=float)
    drop = means + 0.05 * np.random.default_rng(seed).standard_normal((n, len(means)))
    layers = tuple(range(len(means))) if layers is None else layers
    return Curve(family, kind, "skip block", layers, max(layers) + 1, drop, np.zeros(n))


def families(**options):
    return [
        curve("word problems", "reasoning", seed=1, **options),
        curve("country facts", "knowledge", seed=2, n=30, **options),
        curve("plain text", "neutral", seed=3, n=20, **options),
    ]


def lines(figure):
    return [trace for trace in figure.data if "markers" in (trace.mode or "")]


def said(figure):
    """Title and subtitle as they read."""
    return re.sub(r"<br>|</?span[^>]*>", " ", figure.layout.title.text)


def quality(layer, **values):
    given = {"explained_variance": 0.9, "l0": 32.0, "dead": 0.1, "loss_recovered": 0.8, "mean_norm": 9.0}
    given |= {"loss_clean": 3.0, "loss_spliced": 3.5, "loss_mean_ablated": 5.5}
    return Quality(layer=layer, n_tokens=4096, firing_rate=np.zeros(4), **(given | values))


# layers


def test_layers_hold_means_and_bands():
    curves = families()
    figure = plot_layers(curves, level=0.9)
    assert len(figure.data) == 6
    for n, c in enumerate(curves):
        band, line = figure.data[2 * n : 2 * n + 2]
        low, high = bootstrap_bands(c.drop, level=0.9)
        np.testing.assert_allclose(line.y, c.drop.mean(axis=0))
        assert line.x == c.layers
        np.testing.assert_allclose(line.customdata, np.stack([low, high], axis=1))
        np.testing.assert_allclose(band.y, [*high, *low[::-1]])
        assert band.x == (*c.layers, *reversed(c.layers))
        assert band.fill == "toself"
        assert band.legendgroup == line.legendgroup
    assert "90% bootstrap bands" in said(figure)
    assert "skip block" in said(figure)


def test_kinds_differ_without_colour_and_the_legend_names_them():
    traces = lines(plot_layers(families()))
    assert len({trace.line.dash for trace in traces}) == len({trace.marker.symbol for trace in traces}) == 3
    assert traces[0].name == "word problems (reasoning, n = 40)"
    assert traces[1].name == "country facts (knowledge, n = 30)"


def test_families_of_a_kind_differ_without_colour():
    traces = lines(plot_layers([curve(f"family {n}") for n in range(4)]))
    assert {trace.line.dash for trace in traces} == {"solid"}
    assert len({trace.marker.symbol for trace in traces}) == 4


def test_axes_name_their_units_and_the_index_convention():
    figure = plot_layers(families())
    assert figure.layout.xaxis.title.text == "layer (residual after the block, counted from 0)"
    assert figure.layout.yaxis.title.text == "drop in log-probability, nats per token"
    assert figure.layout.xaxis.dtick == 2


def test_a_huge_first_layer_is_left_off_the_scale_and_named():
    figure = plot_layers(families(means=[11.4, *[0.3] * 15, 0.6]))
    low, high = figure.layout.yaxis.range
    assert low < 0 < 0.6 < high < 1.2
    assert "Off the scale: layer 0 (word problems 11.4, country facts 11.4, plain text 11.4)." in said(figure)
    (arrow,) = figure.layout.annotations
    assert (arrow.x, arrow.y, arrow.text) == (0, 1, "↑")
    assert lines(figure)[0].y[0] == pytest.approx(11.4, abs=0.1)  # the value is still there for who zooms out


def test_layers_may_be_off_the_scale_in_either_direction():
    figure = plot_layers([curve(means=[9, *[0.3] * 14, -5])])
    assert [(a.x, a.text) for a in figure.layout.annotations] == [(0, "↑"), (15, "↓")]
    assert "layer 0 (word problems 9" in said(figure)
    assert "layer 15 (word problems -5" in said(figure)


@pytest.mark.parametrize("means", [np.linspace(0.1, 3, 12), [5, 5, *[0.1] * 10], [9, 0.1, 0.1], [0.3]])
def test_all_is_on_the_scale_where_no_layer_stands_out(means):
    c = curve(means=means)
    figure = plot_layers([c])
    low, high = figure.layout.yaxis.range
    ends = np.concatenate(bootstrap_bands(c.drop))
    assert low < ends.min()
    assert ends.max() < high
    assert not figure.layout.annotations
    assert "Off the scale" not in said(figure)


def test_what_many_families_lose_off_the_scale_is_told_as_a_range():
    figure = plot_layers([curve(f"family {n}", means=[5 + n, *[0.1] * 11]) for n in range(5)])
    assert re.search(r"Off the scale: layer 0 \((5|5\.0\d|4\.9\d) to (9|9\.0\d|8\.9\d)\)", said(figure))


def test_curves_over_different_layers_share_a_figure():
    some = curve("facts", "knowledge", means=[8, 0.2, 0.3, 0.1, 0.2], layers=(0, 4, 8, 11, 15))
    figure = plot_layers([curve(means=[0.3] * 16), some])
    assert lines(figure)[1].x == (0, 4, 8, 11, 15)
    assert figure.layout.xaxis.dtick == 2
    assert plot_layers([some]).layout.xaxis.tickvals == (0, 4, 8, 11, 15)
    assert re.search(r"layer 0 \(word problems 0\.\d+, facts [78]\.\d+\)", said(figure))


def test_layers_without_effect_and_without_curves():
    assert plot_layers([Curve("a", "neutral", "skip block", (0, 1), 2, np.zeros((3, 2)), np.zeros(3))]).data
    with pytest.raises(ValueError, match="0 curves of the operators"):
        plot_layers([])


def test_operators_are_not_mixed():
    with pytest.raises(ValueError, match="give those of one"):
        plot_layers([curve(), replace(curve("facts"), operator="halve block")])


# difference of shares


def test_share_difference_holds_values_and_intervals():
    first, second = curve(), curve("country facts", "knowledge", means=np.linspace(0.5, 0.2, 12), seed=5)
    finding = compare_depth(first, second)
    figure = plot_share_difference(first, second, finding)
    (points,) = figure.data
    value, low, high = share_difference(first, second)
    np.testing.assert_allclose(points.y, value)
    np.testing.assert_allclose(value - np.array(points.error_y.arrayminus), low)
    np.testing.assert_allclose(value + np.array(points.error_y.array), high)
    assert said(figure).startswith("Share of the total effect: word problems minus country facts")
    assert finding.statement in said(figure)
    assert figure.layout.yaxis.zerolinewidth > 1
    bottom, top = figure.layout.yaxis.range
    assert bottom < low.min() < high.max() < top


def test_layers_left_out_are_open_points():
    first, second = curve(), curve("facts", "knowledge", seed=4)
    finding = Finding("Said.", ("word problems", "facts"), (40, 40), (0.5, 0.5), 0.0, -0.1, 0.1, 0.05, (0, 3))
    figure = plot_share_difference(first, second, finding)
    symbols = figure.data[0].marker.symbol
    assert [n for n, symbol in enumerate(symbols) if symbol == "circle-open"] == [0, 3]
    assert "left out of the centroids (layer 0, 3)" in said(figure)


def test_a_share_off_the_scale_is_named():
    first, second = curve(means=[4.0, *[0.1] * 11]), curve("facts", "knowledge", means=[1.0, *[0.1] * 11])
    figure = plot_share_difference(first, second, compare_depth(first, second))
    value, low, high = share_difference(first, second)[:, 0]
    assert f"Off the scale: layer 0 ({Estimate(value, low, high)})" in said(figure)
    assert figure.layout.yaxis.range[1] < value


def test_share_difference_refuses_what_does_not_belong_together():
    first, second = curve(), curve("facts", "knowledge", seed=4)
    finding = compare_depth(first, second)
    with pytest.raises(ValueError, match="in that order"):
        plot_share_difference(second, first, finding)
    with pytest.raises(ValueError, match="over the same layers"):
        plot_share_difference(first, curve("facts", means=[0.1] * 3), finding)


def test_families_without_any_effect_have_no_shares():
    nothing = [Curve(name, "neutral", "skip block", (0, 1), 2, np.zeros((5, 2)), np.zeros(5)) for name in "ab"]
    figure = plot_share_difference(*nothing, compare_depth(*nothing))
    assert json.loads(figure.to_json())["data"][0]["y"] == [None, None]
    assert "Inconclusive" in said(figure)


# accuracy and quality


def test_accuracy_has_a_row_an_arm_from_the_top():
    draws = [0.05] * 6 + [0.07, 0.4]
    arms = [("direct", wilson(4, 100), []), ("random features", Estimate(0.06, 0.02, 0.1), draws)]
    figure = plot_accuracy(arms)
    points, dots = figure.data
    assert points.x == (0.04, 0.06)
    assert points.y == (0, 1)
    direct = arms[0][1]
    assert points.x[0] - points.error_x.arrayminus[0] == pytest.approx(direct.low)
    assert points.x[0] + points.error_x.array[0] == pytest.approx(direct.high)
    assert sorted(dots.x) == sorted(draws)
    assert all(1 < y < 1.5 for y in dots.y)
    assert dots.marker.symbol != points.marker.symbol
    assert len({*zip(dots.x, dots.y, strict=True)}) == len(draws)  # equal draws stand beside one another
    top, bottom = figure.layout.yaxis.range[1], figure.layout.yaxis.range[0]
    assert top < 0 < 1 < bottom
    assert figure.layout.yaxis.ticktext[0].startswith("direct<br>")
    assert str(direct) in figure.layout.yaxis.ticktext[0]
    low, high = figure.layout.xaxis.range
    assert low <= 0 < 0.4 < high < 0.5


def test_accuracy_without_draws_and_without_arms():
    figure = plot_accuracy([("direct", wilson(0, 10), []), ("cot", wilson(10, 10), [])])
    assert len(figure.data) == 1
    assert not figure.layout.showlegend
    assert figure.layout.xaxis.range[1] > 1
    with pytest.raises(ValueError, match="no arms to plot"):
        plot_accuracy([])


def test_quality_has_a_panel_a_measure_in_order_of_layers():
    figure = plot_quality([quality(14, explained_variance=0.7), quality(7, dead=0.3, loss_recovered=-0.2)])
    assert [trace.x for trace in figure.data] == [(7, 14)] * 3
    assert [trace.y for trace in figure.data] == [(0.9, 0.7), (-0.2, 0.8), (0.3, 0.1)]
    names = [annotation.text for annotation in figure.layout.annotations]
    assert names == ["explained variance", "loss recovered", "dead features (share)"]
    assert figure.layout.yaxis2.range[0] < -0.2
    assert figure.layout.xaxis3.title.text.startswith("layer (residual")
    assert "4,096 tokens" in said(figure)
    with pytest.raises(ValueError, match="no qualities to plot"):
        plot_quality([])


# firing rates


def firing(layer, rates):
    """The quality of an SAE whose features fire at these rates."""
    rates = np.array(rates, dtype=float)
    return replace(quality(layer), firing_rate=rates, dead=(rates == 0).mean())


def test_firing_rates_have_a_panel_a_layer_that_counts_every_living_feature():
    rates = 10 ** np.random.default_rng(0).uniform(-4.2, 0, 300)
    figure = plot_firing([firing(14, [1.0, 0.5, 0.0, 0.0]), firing(7, [*rates, *[0.0] * 100])])
    assert [annotation.text for annotation in figure.layout.annotations] == [
        "layer 7: 25.0% dead",
        "layer 14: 50.0% dead",
    ]
    assert [sum(trace.y) for trace in figure.data] == pytest.approx([0.75, 0.5])
    for trace, alive in zip(figure.data, (rates, np.array([1.0, 0.5])), strict=True):
        total = 4 if len(alive) == 2 else 400
        for centre, share in zip(trace.x, trace.y, strict=True):
            inside = np.abs(np.log10(alive) - centre) <= 0.1 + 1e-9
            assert share * total <= inside.sum() + 1e-6
    assert figure.layout.xaxis2.ticktext == ("1e-05", "0.0001", "0.001", "0.01", "0.1", "1")
    assert figure.layout.xaxis2.title.text.startswith("firing rate (share of tokens")
    assert "4,096 tokens" in said(figure)


def test_dead_saes_and_many_layers_have_a_figure_too():
    (panel,) = plot_firing([firing(3, np.zeros(8))]).data
    assert set(panel.y) == {0.0}
    figure = plot_firing([firing(layer, [0.0, 0.01, 0.001 * (layer + 1)]) for layer in range(30)])
    assert len(figure.data) == 30 and figure.layout.height < 3600
    with pytest.raises(ValueError, match="no qualities to plot"):
        plot_firing([])


# every figure


def every_figure(name="word problems"):
    first, second = curve(name), curve("facts", "knowledge", means=np.linspace(0.5, 0.2, 12), seed=5)
    return {
        "layers": plot_layers([first, second]),
        "shares": plot_share_difference(first, second, compare_depth(first, second)),
        "accuracy": plot_accuracy([(name, wilson(4, 100), [0.1])]),
        "quality": plot_quality([quality(3)]),
        "firing": plot_firing([firing(3, [0.0, 0.1])]),
    }


@pytest.mark.parametrize("name", every_figure())
def test_figures_have_no_background_and_no_line_too_long_for_a_telephone(name):
    long = "a family with a name that is so long that nobody would read it to the very end " * 2
    layout = every_figure(long)[name].layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0, 0, 0, 0)"
    assert max(map(len, re.sub(r"</?span[^>]*>", "", layout.title.text).split("<br>"))) <= 52


@pytest.mark.parametrize("name", every_figure())
def test_names_are_text_to_plotly(name):
    told = every_figure(HOSTILE)[name].to_json()
    told = told.encode().decode("unicode_escape")
    assert "<b>" not in told
    assert "<img" not in told
    assert "\u202e" not in told
    if name not in ("quality", "firing"):
        assert "&lt;b&gt;a&lt;/b&gt;" in told
        assert "&amp;amp;" in told
        assert "U+202E" in told


def test_figure_html_cannot_end_its_script():
    figure = go.Figure(go.Scatter(x=[1], y=[2], name="</script><!--<script>"))
    text = figure_html(figure, 'a"b', label='"><i>\u200b')
    assert text.count("<script") == text.count("</script>") == 1
    assert "<!--" not in text
    assert "<i>" not in text
    assert 'id="a&quot;b"' in text
    data = json.loads(text.split("data-figure=", 1)[1].split(">", 1)[1].removesuffix("</script>"))
    assert data["data"][0]["name"] == "</script><!--<script>"


def test_the_script_is_plotly_and_always_the_same():
    script = plotly_script()
    assert script == plotly_script()
    assert 4e6 < len(script.encode()) < 5.5e6
    assert "plotly.js v" in script[:200]
    assert "Plotly.newPlot(" in script[-2000:]
    assert "</script" not in script.lower()
    assert "<!--" not in script


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, naïve ≥ 3 שלום 👍\n\ttext", "plain, naïve ≥ 3 שלום 👍\n\ttext"),
        ("a\u200bb", "a<U+200B>b"),
        ("\u202eabc\u202c", "<U+202E>abc<U+202C>"),
        ("\u2066\u2069\ufeff\u00ad", "<U+2066><U+2069><U+FEFF><U+00AD>"),
        ("\x00\x1b\r\x85", "<U+0000><U+001B><U+000D><U+0085>"),
        ("\u2028\u2029\u3164\u034f", "<U+2028><U+2029><U+3164><U+034F>"),
        ("\ud800", "<U+D800>"),
        ("\U000e0041", "<U+E0041>"),
    ],
)
def test_hidden_characters_are_shown(text, shown):
    assert visible(text) == shown


def test_items_without_a_finite_effect_are_left_out_and_counted():
    whole = families()
    broken = replace(whole[1], drop=whole[1].drop.copy())
    broken.drop[3, 5] = np.nan
    figure = plot_layers([whole[0], broken, whole[2]])
    assert "Left out: 1 items of country facts" in said(figure) and "n = 29" in lines(figure)[1].name
    kept = np.delete(whole[1].drop, 3, axis=0).mean(axis=0)
    assert np.allclose(lines(figure)[1].y, kept)


# the funnel


def verdicts(*heights):
    """Features that pass every rung up to a height and the sixth, the last one not tried."""
    return [
        Verdict(
            Feature(3, n),
            "counting",
            tuple(Rung(k, None if k == 8 else k <= height or k == 6, "so it was") for k in range(1, 9)),
            1.0,
            100,
            len(heights),
            3,
        )
        for n, height in enumerate(heights)
    ]


def test_the_funnel_counts_who_stands_and_who_passes():
    found = verdicts(0, 2, 4)
    figure = plot_funnel(found, {"AUROC": [Feature(3, 0), Feature(3, 2)], "<b>d</b>": [Feature(3, 1)]})
    standing, passing = figure.data
    assert [list(map(int, row)) for row in standing.text] == [[1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]]
    assert list(passing.text[0]) == ["1", "1", "1", "1", "0", "2", "0", ""]
    assert passing.z[0][5] == 1.0 and passing.z[0][7] is None
    assert list(standing.y) == ["AUROC (2)", "&lt;b&gt;d&lt;/b&gt; (1)"]
    with pytest.raises(ValueError, match="L3/9 was proposed and has no verdict"):
        plot_funnel(found, {"AUROC": [Feature(3, 9)]})
    with pytest.raises(ValueError, match="no score proposed anything"):
        plot_funnel(found, {})


# how many, and which interval


def figures_of_the_lab():
    """Of curves, and of what is measured beside them."""
    first, second = curve(), curve("facts", "knowledge", seed=4, means=np.linspace(0.5, 0.2, 12))
    probed = Probed("words", "reasoning", "answer", 4, 3, np.ones((9, 4)), np.zeros(9), np.zeros((9, 4)))
    values = np.random.default_rng(0).normal(size=(7, len(POSITIONS), 3))
    patched = Patching("sums", "reasoning", (0, 1, 2), 3, np.ones(7), np.zeros(7), values, values)
    steps = StepMap("sums", 12, [first], [probed], [(0, 0)], [])
    return {
        "plot_layers": plots.plot_layers([first, second]),
        "plot_share_difference": plots.plot_share_difference(first, second, compare_depth(first, second)),
        "plot_centroids": plots.plot_centroids(
            [compare_kinds([first, second])], n_items={("skip block", "word problems"): 40, ("skip block", "facts"): 40}
        ),
        "plot_operators": plots.plot_operators([first, second]),
        "plot_probes": plots.plot_probes([probed]),
        "plot_similarity": plots.plot_similarity(
            [Similarity("fast and slow", np.array([0.5, 0.7]), np.full(2, 0.1), 9, False)]
        ),
        "plot_patching": plots.plot_patching(patched),
        "plot_no_answer": plots.plot_no_answer([GradedCurve(first, np.full(12, 0.25), 0.5)]),
        "plot_steps": plots.plot_steps(steps),
    }


def figures_of_features_and_mechanisms():
    import pandas as pd

    log = pd.DataFrame([{"design": 0, "layer": 3, "tokens": 512, "tokens_per_second": 100.0}])
    log = log.assign(explained_variance=0.5, l0=8.0, dead=0.0, step_tokens_per_second=900.0)
    alike, points = Overlap(*([0.5] * 9)), {1: Estimate(0.2, 0.1, 0.3), 4: Estimate(0.5, 0.4, 0.6)}
    return {
        "plot_accuracy": plot_accuracy([("direct", wilson(4, 100), [])], n=100, interval="Wilson's 95% intervals"),
        "plot_quality": plot_quality([quality(3)]),
        "plot_firing": plot_firing([firing(3, [0.0, 0.1])]),
        "plot_funnel": plot_funnel(verdicts(0, 2), {"AUROC": [Feature(3, 0)]}),
        "plot_training": plots.plot_training(log),
        "plot_overlaps": plots.plot_overlaps({("cot", "vector"): alike}, n=16),
        "plot_through_steps": plots.plot_through_steps({"cot": np.ones((2, 1))}, [(-1, -1), (0, 3)], [5], n=16),
        "plot_weights": plots.plot_weights(np.ones(4), np.ones(4), n=16),
        "plot_pass_at_k": plots.plot_pass_at_k({"base": points}, n=16),
    }


def test_the_figure_through_steps_says_the_number_it_was_given_whatever_the_layers():
    found = {"cot": np.ones((2, 3)), "prefix": np.zeros((2, 3))}
    for layers in ([4, 9, 14], [14, 9, 4]):
        figure = plots.plot_through_steps(found, [(-1, -1), (0, 3)], layers, n=16)
        assert " 16 items. " in said(figure)
        assert [note.text for note in figure.layout.annotations] == [f"layer {layer}" for layer in layers]
        assert all(f"layer {at}:" in heat.hovertemplate for heat, at in zip(figure.data, layers, strict=True))
        assert [heat.showscale for heat in figure.data] == [True, False, False]


def test_every_figure_says_of_how_many_it_is_and_what_its_interval_is():
    """That of a sweep does so too: tests/test_plan.py."""
    figures = figures_of_the_lab() | figures_of_features_and_mechanisms()
    named = {name for name in plots.__all__ if name.startswith("plot_")}
    assert figures.keys() == named - {"plot_dose"}
    for name, figure in figures.items():
        assert re.search("interval|band", said(figure)), f"{name}: {said(figure)}"
        told = said(figure) + json.dumps(figure.to_plotly_json(), default=str)
        assert re.search(r"n = \d|\d items|\d tokens|\d pairs|\d features", told), name
        assert ("overlaps" not in name and "pass_at_k" not in name) or "16 items" in said(figure), name
        assert max(map(len, re.sub(r"</?span[^>]*>", "", figure.layout.title.text).split("<br>"))) <= 52


# files


FIGURES = {"one": go.Figure(go.Scatter(y=[1, 2])), "two figures": go.Figure(go.Bar(y=[3]))}


class Browser:
    """Stands in for kaleido: notes each start of a browser, and fails as told."""

    def __init__(self, monkeypatch, error=None, version=None):
        self.starts, self.error = [], error
        kaleido, errors = ModuleType("kaleido"), ModuleType("choreographer.errors")
        kaleido.write_fig_from_object_sync = self.write
        for name in ("ChromeNotFoundError", "BrowserFailedError", "BrowserClosedError"):
            setattr(errors, name, type(name, (RuntimeError,), {}))
        self.errors = errors
        for module in (kaleido, ModuleType("choreographer"), errors):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr("saereason.plots.export.installed", lambda package: version)

    def write(self, jobs, *, cancel_on_error, kopts):
        assert cancel_on_error and kopts == {"mathjax": False}
        self.starts.append([(job["path"].name, job["opts"]) for job in jobs])
        for n, job in enumerate(jobs):
            if self.error and n == 1:
                raise getattr(self.errors, self.error)("No Chrome was found.\nSee above.")
            job["path"].write_bytes(job["fig"].to_json().encode())


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_pages_are_whole_and_need_no_network(tmp_path):
    paths = save_figures(FIGURES, tmp_path / "new")
    assert [path.name for path in paths] == left(tmp_path / "new") == ["one.html", "two figures.html"]
    page = paths[0].read_text(encoding="utf8")
    assert "plotly.js v" in page and "<script src=" not in page and paths[0].stat().st_mode & 0o777 == 0o644


def test_all_images_are_made_by_one_browser(tmp_path, monkeypatch):
    browser = Browser(monkeypatch, version="1.5.0")
    paths = save_figures(FIGURES, tmp_path, ("svg", "html", "png"))
    assert left(tmp_path) == sorted(f"{name}.{kind}" for name in FIGURES for kind in ("html", "png", "svg"))
    assert len(browser.starts) == 1 and len(paths) == 6
    options = dict(browser.starts[0])
    assert options["one.png"] == {"format": "png", "width": 700, "scale": 2}
    assert options["two figures.svg"] == {"format": "svg", "width": 700, "scale": 1}


@pytest.mark.parametrize("error", ["ChromeNotFoundError", "BrowserFailedError"])
def test_without_a_browser_the_error_says_what_to_install_and_nothing_is_written(tmp_path, monkeypatch, error):
    Browser(monkeypatch, error)
    (tmp_path / "one.png").write_bytes(b"before")
    with pytest.raises(ValueError, match=r"\(No Chrome was found\); install Chrome or Chromium, .* BROWSER_PATH"):
        save_figures(FIGURES, tmp_path, ("html", "png"))
    assert left(tmp_path) == ["one.png"] and (tmp_path / "one.png").read_bytes() == b"before"


def test_without_kaleido_or_with_an_old_one_the_error_says_what_to_install(tmp_path, monkeypatch):
    Browser(monkeypatch, version="1.2.0")
    with pytest.raises(ValueError, match=r"version 1.2.0 and SVG and PNG need 1.3 .*pip install 'saereason\[export\]'"):
        save_figures(FIGURES, tmp_path, ("svg",))
    Browser(monkeypatch)
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(ValueError, match=r"need kaleido, which is not there; .*pip install 'saereason\[export\]'"):
        save_figures(FIGURES, tmp_path, ("svg",))
    assert left(tmp_path) == []


def test_other_formats_and_names_that_are_no_files_are_refused(tmp_path):
    for formats in ((), ("pdf",), "html"):
        with pytest.raises(ValueError, match="some of html, png, svg"):
            save_figures(FIGURES, tmp_path, formats)
    for name in ("", "../out", "a/b", ".hidden", "a\\b", "a\0b"):
        with pytest.raises(ValueError, match="no name of a file"):
            save_figures({name: FIGURES["one"]}, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        save_figures(FIGURES, tmp_path / "file")


@pytest.mark.slow
def test_a_browser_draws_svg_and_png(tmp_path):
    pytest.importorskip("kaleido", reason="kaleido (the extra `export`) is not installed")
    if not any(map(Path.exists, map(Path, ("/usr/bin/chromium", "/usr/bin/google-chrome")))):
        pytest.skip("there is no Chrome or Chromium")
    svg, png, *_ = save_figures(FIGURES, tmp_path, ("svg", "png"))
    assert "<svg" in svg.read_text(encoding="utf8")[:500]
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_an_image_stands_on_white_and_a_figure_on_its_page():
    figure = framed(go.Figure(go.Scatter(y=[1, 2])), "a title")
    assert (figure.layout.paper_bgcolor, _on_white(figure).layout.paper_bgcolor) == (CLEAR, "white")
    dark = figure.update_layout(paper_bgcolor="#111111")
    assert _on_white(dark).layout.paper_bgcolor == "#111111"
