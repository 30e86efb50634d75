"""The explorer: what it shows is what was computed, as a file and live, and hostile text stays text."""

import json
import math
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_sae

import saereason as sr
from saereason.controls import Verdict
from saereason.controls.ladder import Rung
from saereason.explorer import Exploration, Explorer, write_page
from saereason.explorer.bench import Stream
from saereason.explorer.cards import cards, doses
from saereason.explorer.evidence import intervals
from saereason.explorer.marks import Marks, keep
from saereason.explorer.page import about, columns
from saereason.explorer.windows import acts_on
from saereason.features import FeatureTable
from saereason.hooks import read
from saereason.layers import Curve
from saereason.model import pad
from saereason.search import Block
from saereason.search.moments import moments
from saereason.search.scores import cohens_d, point_biserial
from saereason.stats import Estimate

ON = [f"Tom has {n} apples and {n + 1} pears, step by step." for n in range(12)]
OFF = [f"Tom has {n} apples and {n + 1} pears." for n in range(12)]
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=alert(1)> \u202eabc\u202c zero\u200bwidth"
SHOWN = "Array.from(document.querySelectorAll('.rows .row')).map(row => row.querySelector('.c1').textContent)"


def until(look, expression, seconds=30):
    """Wait until it holds; the page's own policy forbids playwright to wait within it."""
    end = time.monotonic() + seconds
    while not look.evaluate(expression):
        assert time.monotonic() < end, expression
        time.sleep(0.05)


def verdict_of(feature, said="it fades"):
    rungs = (
        Rung(1, True, "it goes along", Estimate(0.9, 0.8, 0.95), "AUROC", 24),
        Rung(2, False, said),
        Rung(3, None, ""),
    )
    return Verdict(feature, "counting", rungs, 1.0, 384, 2, 3)


@pytest.fixture(scope="module")
def model():
    """Its tokens of one letter each are hostile as they come."""
    made = tiny_model()
    names = {5: "</script>", 6: "<img src=x onerror=alert(1)>", 7: "\u202e", 8: "\u200b", 9: "\n"}
    decode = made.tokenizer.decode
    made.tokenizer.decode = lambda ids, **options: "".join(
        names.get(int(i), decode([int(i)], **options)) for i in np.atleast_1d(np.asarray(ids))
    )
    return made


@pytest.fixture(scope="module")
def explored(model, tmp_path_factory):
    block = tmp_path_factory.mktemp("explored") / "block"
    saes = {layer: tiny_sae("topk", layer) for layer in range(4)}
    table = sr.search(model, saes, sr.Examples.pair(model, ON, OFF), block=block)
    best = next(iter(table.top(1, "studentised")))
    rng = np.random.default_rng(0)
    curves = [
        Curve(name, kind, "skip block", tuple(range(4)), 4, rng.normal(size=(9, 4)) + np.arange(4), np.zeros(9))
        for name, kind in ((HOSTILE, "reasoning"), ("capitals", "knowledge"))
    ]
    return Exploration.of(
        model,
        saes,
        table,
        texts=[*ON, *OFF, HOSTILE],
        block=block,
        verdicts=[verdict_of(best, HOSTILE)],
        curves=curves,
    )


@pytest.fixture
def explorer(explored, tmp_path):
    made = Explorer(explored, sr.Run.open(tmp_path / "run"))
    made.sent = []
    made.send = lambda content, buffers=None: made.sent.append(content)
    return made


# what is shown


def test_activations_are_those_of_the_sae_on_the_whole_text(explored):
    model, saes = explored.model, explored.saes
    features = [*explored.table.top(6, "studentised")]
    rows = {n: explored.rows[n] for n in (3, 7, 24)}
    found = acts_on(model, saes, features, rows, batch_size=2)
    for n, row in rows.items():
        resid = read(model, pad([row], pad_token=0), sorted(saes))
        for feature in features:
            acts = saes[feature.layer].encode(resid[feature.layer][0])[:, feature.index].numpy()
            np.testing.assert_allclose(found[feature][n][1:], acts[1:], rtol=1e-4, atol=1e-5)
            assert found[feature][n][0] == 0


def test_a_card_tells_of_one_feature_what_search_and_contexts_do(explored):
    feature = next(iter(explored.table.top(1, "studentised")))
    [card] = cards(explored, [feature])
    row = explored.table.row(feature)
    assert card["feature"] == str(feature) and card["verdict"]["height"] == 1
    assert {name: value for name, value, *_ in card["scores"]} == pytest.approx(
        {name: value for name, value in row.items() if name not in ("layer", "index")}, rel=1e-5
    )
    for tokens, acts, focus in card["top"]:
        assert len(tokens) == len(acts) and acts[focus] > 0
    assert card["top"][0][1][card["top"][0][2]] == pytest.approx(card["max_act"], rel=1e-2)
    assert card["depth"][sorted(explored.saes).index(feature.layer)] == pytest.approx(1, abs=1e-3)
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_intervals_are_about_the_scores_and_resample_prompts(explored):
    feature = next(iter(explored.table.top(1, "studentised")))
    found, row = intervals(explored.block, feature), explored.table.row(feature)
    assert set(found) <= set(row)
    for name, estimate in found.items():
        assert estimate.value == pytest.approx(row[name], rel=1e-4, abs=1e-6), name
        assert estimate.low <= estimate.value <= estimate.high


def test_a_layer_is_worth_what_its_curve_says(explored):
    told = explored.worth()
    assert [one["kind"] for one in told] == ["reasoning", "knowledge"] and told[0]["n"] == 9
    np.testing.assert_allclose([v for v, *_ in told[0]["values"]], explored.curves[0].drop.mean(0), rtol=1e-2)
    assert all(low <= value <= high for value, low, high in told[1]["values"])


def test_doses_are_those_of_arms_that_edit_this_feature_alone(explored):
    from saereason.effects import Shows, Trial, sweep

    one, other = list(explored.table.top(2, "studentised"))
    trial = Trial(tuple(OFF[:4]), Shows("[a-m]"), tuple("abcd"), 3)
    arms = [sr.Add(one, 2.0), sr.Boost((one,), 3.0), sr.Add(other, 2.0), (sr.Add(one, 1.0), sr.Add(other, 1.0))]
    found = sweep(explored.model, explored.saes, trial, arms)
    told = doses(found, one)
    assert [dose["size"] for dose in told] == [2.0, 3.0]
    assert all(dose["accuracy"][1] <= dose["accuracy"][0] <= dose["accuracy"][2] for dose in told)
    assert doses(None, one) == []


def test_what_cannot_be_explored_is_refused(explored, tmp_path):
    model, saes, table = explored.model, explored.saes, explored.table
    with pytest.raises(ValueError, match=r"no numbers to rank them by in 'beauty'; its columns are"):
        Exploration.of(model, saes, table, by="beauty", texts=ON)
    with pytest.raises(ValueError, match="the table has 0 features"):
        Exploration.of(model, saes, table.where([]), texts=ON)
    with pytest.raises(ValueError, match="no SAE at layer"):
        Exploration.of(model, {0: saes[0]}, table, texts=ON)
    with pytest.raises(ValueError, match="0 rows have no tokens"):
        Exploration.of(model, saes, table, texts=[])
    with pytest.raises(ValueError, match="no block of activations"):
        Exploration.of(model, saes, table, texts=ON, block=tmp_path)
    with pytest.raises(ValueError, match="n is 0"):
        write_page(explored, tmp_path / "page.html", 0)


def test_a_table_that_would_mislead_is_refused(explored):
    model, saes, table = explored.model, explored.saes, explored.table
    best = next(iter(table.top(1, "studentised")))
    told = verdict_of(best)
    for options, said in (
        ({"table": table.where([0, 0, 1])}, r"L0/0 is in the table 2 times; give each feature once"),
        ({"table": FeatureTable({**table.columns, "index": table["index"] - 1})}, r"L0/-1 is out of range"),
        ({"verdicts": [told, replace(told, behaviour="other")]}, f"there are 2 verdicts on {best}; give one"),
        ({"verdicts": [replace(told, feature=sr.Feature(0, 999))]}, "a verdict on L0/999, which is not in the table"),
        ({"texts": "Tom has 3 pears."}, "texts is one text, 'Tom has 3 pears.'; give a list"),
        ({"block": explored.block.folder, "table": table.with_column("mean_on", table["mean_on"] + 1)}, "mean_on of"),
    ):
        with pytest.raises(ValueError, match=said):
            Exploration.of(model, saes, **{"table": table, "texts": ON[:2], **options})


def test_columns_that_are_no_numbers_stay_out_and_none_hides_another(explored):
    n, table = len(explored.table), explored.table
    more = {"flag": np.arange(n) % 2 == 0, "rung": np.ones(n), "big": np.full(n, 1e300), "nan": np.full(n, np.nan)}
    none = {"2d": np.ones((n, 2)), "z": np.ones(n) + 1j, "o": np.array([10**400] * n, dtype=object)}
    none["days"] = np.ones(n, "m8[D]")
    made = replace(explored, table=FeatureTable({**table.columns, **more, **none}))
    assert {*more} < {*made.scores} and not {*none} & {*made.scores}
    held = columns(made, made.table)
    assert set(held) == {"layer", "index", *made.scores, "rung reached"} and len({*map(len, held.values())}) == 1
    assert about(made, live=True)["rung"] == "rung reached" and np.isinf(np.frombuffer(held["big"], "<f4")).all()
    [card] = cards(made, [next(iter(made.verdicts))])
    assert {name for name, *_ in card["scores"]} == {*made.scores} and json.dumps(card, allow_nan=False)


def test_texts_longer_than_the_context_are_cut(explored):
    model, long = explored.model, "Tom has pears. " * 99
    made = Exploration.of(model, explored.saes, explored.table, texts=[long])
    assert made.rows == (tuple(model.tokenizer(long)["input_ids"][:128]),)


def test_depth_is_the_highest_cosine_of_each_layer(explored):
    features = [sr.Feature(2, 5), sr.Feature(0, 7)]
    for feature, depth in explored.depths(features).items():
        row = explored.saes[feature.layer].W_dec[feature.index]
        cosines = [torch.cosine_similarity(sae.W_dec, row[None], dim=-1).max() for sae in explored.saes.values()]
        assert depth == pytest.approx([float(each) for each in cosines], abs=1e-3)


def test_a_verdict_without_a_finite_figure_becomes_json(explored):
    told = verdict_of(next(iter(explored.verdicts)))
    told = replace(told, rungs=(replace(told.rungs[0], figure=Estimate(math.nan, -math.inf, 1.0)), *told.rungs[1:]))
    [card] = cards(replace(explored, verdicts={told.feature: told}), [told.feature])
    assert card["verdict"]["rungs"][0]["figure"] == [None, None, 1.0] and json.dumps(card, allow_nan=False)


def test_curves_of_few_items_have_no_interval(explored):
    some = np.array([[1.0, 2.0], [np.nan, 1.0]])
    curves = [Curve("f", "neutral", "skip block", (0, 1), 4, drop, np.zeros(len(drop))) for drop in (some, some[1:])]
    one, none = replace(explored, curves=tuple(curves)).worth()
    assert (one["n"], one["values"]) == (1, [[1.0, None, None], [2.0, None, None]])
    assert (none["n"], none["values"]) == (0, [[None] * 3] * 2)


@pytest.mark.parametrize(
    ("on", "off"), [([5.0] * 6, [3.0] * 6), ([5.0] * 5 + [6.0], [3.0] * 6), ([0.0] * 6, [0.0] * 6)]
)
def test_intervals_hold_the_scores_where_hardly_anything_varies(tmp_path, on, off):
    np.save(tmp_path / "values.npy", np.array([v for pair in zip(on, off, strict=True) for v in pair], "<f4")[:, None])
    np.save(tmp_path / "rows.npy", np.array([(n // 2, 1 - n % 2) for n in range(12)]))
    np.save(tmp_path / "features.npy", np.array([[0, 0]]))
    found = intervals(Block.open(tmp_path), sr.Feature(0, 0))
    sides = [torch.tensor(side)[:, None] for side in (on, off)]
    d, r = (float(score(*map(moments, sides))[0]) for score in (cohens_d, point_biserial))
    assert found["cohens_d"].value == pytest.approx(d) and found["correlation"].value == pytest.approx(r)
    assert found["cohens_d"].low >= d / 2 and found["correlation"].low >= r / 2, "no draw counts as none"


# live, without a browser


def test_the_selection_is_a_feature_and_brings_its_card(explorer):
    best = next(iter(explorer.exploration.table.top(1, "studentised")))
    seen = []
    explorer.observe(lambda change: seen.append(change["new"]), "selected")
    explorer.set_state({"selected": str(best)})
    assert explorer.selected == best and seen == [best] and explorer.card["feature"] == str(best)
    assert explorer.get_state("selected") == {"selected": str(best)}
    with pytest.raises(ValueError, match="L9/9 is none of the 384 features"):
        explorer.selected = sr.Feature(9, 9)
    explorer.selected = None
    assert explorer.card is None


def test_a_feature_that_the_table_lacks_changes_nothing(explorer):
    explorer.selected = next(iter(explorer.exploration.table.top(1, "studentised")))
    before, card = explorer.selected, explorer.card
    with pytest.raises(ValueError, match="L9/9 is none of the 384 features"):
        explorer.set_state({"selected": "L9/9"})
    assert explorer.selected == before and explorer.card is card


def test_the_page_never_waits_for_what_failed(explorer, monkeypatch):
    """Also for what was not foreseen, and when the kernel is interrupted."""
    one, other = explorer.exploration.table.top(2, "studentised")
    explorer.selected = one
    for error, told in ((ValueError("no such layer."), "no such layer."), (KeyboardInterrupt(), "KeyboardInterrupt")):
        monkeypatch.setattr("saereason.explorer.widget.cards", lambda *_, error=error: (_ for _ in ()).throw(error))
        explorer.selected = one
        with pytest.raises(type(error)):
            explorer.selected = other
        assert explorer.card == {"feature": str(other), "error": told}
    with pytest.raises(KeyError):
        explorer._answer(explorer, {"kind": "steer", "id": 7, "feature": str(one), "tokens": 3, "size": 1}, [])
    assert explorer.sent[-1] == {"kind": "steer", "id": 7, "error": "KeyError: 'intervention'"}


def test_answers_are_about_the_feature_that_was_meant(explorer):
    """Whatever has been chosen since; and they carry the number of the question."""
    one, other = explorer.exploration.table.top(2, "studentised")
    explorer.selected = other
    explorer._answer(explorer, {"kind": "text", "id": "a/1", "feature": str(one), "text": ON[0]}, [])
    row = explorer.exploration.model.encode(ON[0])
    acts = acts_on(explorer.exploration.model, explorer.exploration.saes, [one], {0: row})[one][0]
    assert explorer.sent[-1]["id"] == "a/1" and explorer.sent[-1]["acts"] == pytest.approx(acts.tolist(), rel=1e-4)
    explorer._answer(explorer, {"kind": "depths", "features": ["L9/9"]}, [])
    assert "none of the 384" in explorer.sent[-1]["error"]


def test_the_bench_generates_as_generate_does(explorer):
    best = explorer.selected = next(iter(explorer.exploration.table.top(1, "studentised")))
    model, saes = explorer.exploration.model, explorer.exploration.saes
    wish = {"kind": "steer", "prompt": "Tom has 3", "intervention": "Add", "when": "last-prompt-token", "tokens": 6}
    explorer._answer(explorer, {**wish, "size": 30.0, "unit": "own"}, [])
    answer = explorer.sent[-1]
    asked = model.render("Tom has 3")
    clean = sr.generate(model, [asked], max_new_tokens=6)
    with sr.steered(model, saes, sr.Add(best, 30.0, sr.LastPromptToken())):
        edited = sr.generate(model, [asked], max_new_tokens=6)
    assert answer["texts"] == [clean.texts[0], edited.texts[0]] and "1 firings" in answer["receipt"]
    streamed = ["".join(m["text"] for m in explorer.sent if m["kind"] == "token" and m["row"] == row) for row in (0, 1)]
    assert [said.startswith(text) for said, text in zip(streamed, answer["texts"], strict=True)] == [True, True]
    tokens = [token for token, *_ in answer["first"]]
    assert model.decode([clean.tokens[0][0]]) in tokens and model.decode([edited.tokens[0][0]]) in tokens
    for unit, size in (("largest-act", 1.0), ("mean-norm", 1.0), ("nats", 0.2)):
        explorer._answer(explorer, {**wish, "size": size, "unit": unit, "when": "everywhere"}, [])
        assert "error" not in explorer.sent[-1] or "never on" in explorer.sent[-1]["error"]


def test_text_is_told_in_whole_characters_with_the_spaces_between_words():
    """As in vocabularies of bytes, and of words that begin with their space only when decoded by themselves."""
    pieces = {1: b"\xd8", 2: b"\xa7", 3: b" a", 4: b" b"}

    def decode(tokens):
        return b"".join(pieces[token] for token in tokens).decode(errors="replace").lstrip()

    told = []
    stream = Stream(decode, lambda row, text: told.append((row, text)))
    for token in (3, 4, 1, 2):
        stream(0, token)
    assert told == [(0, "a"), (0, " b"), (0, "\u0627")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokens": 0}, "tokens are 0; give 1 to 400."),
        ({"prompt": " "}, "the prompt is empty"),
        ({"intervention": "Pray"}, "no intervention 'Pray'"),
        ({"when": "noon"}, "'noon' is not a when"),
        ({"intervention": "Scale", "unit": "nats"}, "the size of Scale is a factor"),
        ({"size": float("nan")}, "nan"),
        ({"size": None}, "size is None; give a number."),
        ({"unit": "miles"}, "no unit 'miles'; there are own"),
    ],
)
def test_the_bench_says_what_it_cannot_do(explorer, change, said):
    explorer.selected = next(iter(explorer.exploration.table.top(1, "studentised")))
    wish = {"kind": "steer", "prompt": "Tom", "intervention": "Add", "when": "everywhere", "size": 1.0, "unit": "own"}
    explorer._answer(explorer, {**wish, "tokens": 3, **change}, [])
    assert explorer.sent[-1]["kind"] == "steer" and said in explorer.sent[-1]["error"]


def test_a_text_of_ones_own_is_read_with_the_selected_feature(explorer):
    explorer._answer(explorer, {"kind": "text", "text": "Tom"}, [])
    assert explorer.sent[-1]["error"].startswith("no feature is chosen")
    best = explorer.selected = next(iter(explorer.exploration.table.top(1, "studentised")))
    explorer._answer(explorer, {"kind": "text", "text": ON[0]}, [])
    row = explorer.exploration.model.encode(ON[0])
    acts = acts_on(explorer.exploration.model, explorer.exploration.saes, [best], {0: row})[best][0]
    assert explorer.sent[-1]["acts"] == pytest.approx(acts.tolist(), rel=1e-4)
    assert explorer.sent[-1]["focus"] == int(np.argmax(acts))


def test_stars_and_notes_are_kept_in_the_run_and_two_notebooks_lose_none(explored, tmp_path):
    run = sr.Run.open(tmp_path)
    one, other = Explorer(explored, run), Explorer(explored, run)
    one.starred = ["L1/2"]
    other.starred = ["L2/3"]
    one.notes = {"L1/2": HOSTILE}
    other.notes = {"L2/3": "mine"}
    one.starred = [name for name in one.starred if name != "L1/2"]
    held = Marks.load(run)
    assert held == Marks(frozenset({"L2/3"}), {"L1/2": HOSTILE, "L2/3": "mine"})
    assert keep(run, held, replace(held, notes={})).notes == {}
    assert Explorer(explored, run).starred == ["L2/3"]
    for spoilt in ("[]", "{", '{"starred": "L1/2", "notes": {}}', '{"starred": []}', '{"starred": [], "notes": []}'):
        (tmp_path / "explorer.json").write_text(spoilt)
        with pytest.raises(ValueError, match="holds no stars and notes"):
            Explorer(explored, run)


def test_marks_that_could_not_be_kept_are_told_and_kept_later(explorer):
    path = explorer.run.folder / "explorer.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="holds no stars"):
        explorer.starred = ["L1/2"]
    assert explorer.sent[-1]["kind"] == "kept" and explorer.sent[-1]["error"].startswith("Stars and notes are not kept")
    path.unlink()
    explorer.notes = {"L1/2": "mine"}
    assert explorer.sent[-1] == {"kind": "kept"}
    assert Marks.load(explorer.run) == Marks(frozenset({"L1/2"}), {"L1/2": "mine"})


def test_nothing_of_a_card_can_end_its_script(explored, tmp_path):
    path = write_page(explored, tmp_path / "page.html", 9, notes={"L1/2": HOSTILE})
    html = path.read_text(encoding="utf8")
    assert html.count("</script>") == html.count("<script") and "<img" not in html
    parts = re.findall(r'<script type="application/json" id="([^"]+)">(.*?)</script>', html, re.DOTALL)
    told = {name: json.loads(text) for name, text in parts}
    assert len(told) == 11 and told["explored"]["notes"] == {"L1/2": HOSTILE}
    assert write_page(explored, tmp_path / "again.html", 9, notes={"L1/2": HOSTILE}).read_bytes() == path.read_bytes()


def test_a_page_has_what_is_marked_and_no_mark_of_other_features(explored, tmp_path):
    last = [*explored.table.sort("studentised")][-1]
    path = tmp_path / "new" / "page.html"
    write_page(explored, path, 1, starred=[str(last), "L9/1"], notes={"L9/9": "a secret of another table"})
    assert f'id="{last}"' in path.read_text(encoding="utf8") and "secret" not in path.read_text(encoding="utf8")
    with pytest.raises(ValueError, match="is a folder; give the path of a file"):
        write_page(explored, tmp_path, 1)


# in a browser


@pytest.fixture(scope="module", params=["light", "dark", "telephone"])
def opened(request, browser, explored, tmp_path_factory):
    """The page, its path, what it asked for and what went wrong."""
    path = write_page(
        explored, tmp_path_factory.mktemp("page") / "page.html", 60, starred=["L0/87"], notes={"L0/87": HOSTILE}
    )
    phone = request.param == "telephone"
    view = {"width": 390 if phone else 1200, "height": 844}
    with browser.new_context(color_scheme="dark" if request.param == "dark" else "light", viewport=view) as context:
        look, asked, wrong = context.new_page(), [], []
        look.on("request", lambda request: asked.append(request.url))
        look.on("console", lambda message: wrong.append(message.text))
        look.on("pageerror", lambda error: wrong.append(str(error)))
        look.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        look.goto(path.as_uri(), timeout=120_000)
        look.wait_for_selector(".card .context", timeout=60_000)
        yield look, path, asked, wrong


@pytest.mark.slow
def test_the_page_asks_for_nothing_and_fits(opened):
    look, path, asked, wrong = opened
    assert asked == [path.as_uri()] and not wrong
    assert look.evaluate("document.documentElement.scrollWidth") <= look.viewport_size["width"]
    assert look.evaluate("typeof hacked") == "undefined" and look.locator("img").count() == 0


@pytest.mark.slow
def test_the_page_sorts_filters_and_follows_the_keyboard(opened):
    look, table = opened[0], None
    look.get_by_role("tab", name="Features").click()
    first = look.evaluate(SHOWN)[0]
    look.get_by_role("grid").focus()
    look.keyboard.press("Home")
    look.keyboard.press("ArrowDown")
    assert look.locator(".card h2").inner_text().split()[0] == look.evaluate(SHOWN)[1]
    box = look.get_by_role("searchbox")
    box.fill("L2 difference>0")
    until(look, f"{SHOWN}.every(name => name.startsWith('L2/'))")
    box.fill("beauty>1")
    look.wait_for_selector(".search .wrong")
    assert "is no filter" in look.locator(".search .wrong").inner_text()
    box.fill("")
    until(look, f"{SHOWN}.length > 15")
    look.get_by_role("button", name="difference", exact=False).first.click()
    values = look.evaluate("Array.from(document.querySelectorAll('.rows .row')).map(r => +r.children[4].textContent)")
    assert values == sorted(values, reverse=True) and table is None
    look.get_by_role("button", name="studentised", exact=False).first.click()
    assert look.evaluate(SHOWN)[0] == first


@pytest.mark.slow
def test_the_page_shows_hostile_text_as_text(opened, explored):
    look = opened[0]
    best = next(iter(explored.table.top(1, "studentised")))
    look.get_by_role("searchbox").fill(str(best))
    until(look, f"{SHOWN}.length >= 1")
    look.locator(".rows .row").first.click()
    said = look.locator(".card").inner_text()
    assert "<script>window.hacked=1</script>" in said and "<U+202E>" in said and "<U+200B>" in said
    look.get_by_role("searchbox").fill("")
    until(look, f"{SHOWN}.length > 15")


@pytest.mark.slow
def test_the_page_of_layers_leads_back_to_features(opened):
    look = opened[0]
    look.get_by_role("tab", name="Layers").click()
    assert "<script>window.hacked=1</script>" in look.locator(".layers").inner_text()
    look.locator(".heat[cursor=pointer]").first.click()
    assert look.locator(".card").is_visible() and look.locator(".card h2").inner_text().startswith("L0/")


@pytest.mark.slow
def test_the_map_of_layers_follows_the_arrows(opened):
    look = opened[0]
    look.get_by_role("tab", name="Layers").click()
    assert look.locator(".heat[tabindex='0']").count() == 1
    look.locator(".heat[tabindex='0']").focus()
    at = "document.activeElement.getAttribute('aria-label')"
    first = look.evaluate(at)
    look.keyboard.press("ArrowLeft")
    assert look.evaluate(at) == first, "at the edge"
    look.keyboard.press("ArrowDown")
    look.keyboard.press("ArrowRight")
    assert look.evaluate(at).startswith("L1/") and look.locator(".heat[tabindex='0']").count() == 1
    name = look.evaluate(at).split(":")[0]
    look.keyboard.press("Enter")
    assert look.locator(".card").is_visible() and look.locator(".card h2").inner_text().startswith(name)


@contextmanager
def serving(program, folder):
    """JupyterLab or Notebook on a port of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--no-browser",
        "--allow-root",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
    ]
    log = (folder / "lab.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", program, *options, f"--ServerApp.root_dir={folder}"], stdout=log, stderr=log
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)
        log.close()


CELLS = [
    f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from conftest import tiny_model, tiny_sae
import saereason as sr
model, saes = tiny_model(), {{layer: tiny_sae("topk", layer) for layer in range(2)}}
on, off = ["Tom has %d pears, step by step." % n for n in range(8)], ["Tom has %d pears." % n for n in range(8)]
table = sr.search(model, saes, sr.Examples.pair(model, on, off))
ex = sr.explore(model, saes, table, texts=[*on, *off], run=sr.Run.open("run"))
ex
""",
    "print('chosen', repr(ex.selected), ex.starred)",
]


def notebook(folder):
    import nbformat

    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, folder / "explore.ipynb")


def run_all(look):
    """Run all cells, again if the kernel was not yet there to hear of it."""
    from playwright.sync_api import TimeoutError

    look.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    for _ in range(4):
        time.sleep(4)
        if (dialog := look.locator(".jp-Dialog .jp-mod-accept")).count():
            dialog.click()
        look.get_by_role("menuitem", name="Run", exact=True).click()
        look.get_by_text("Run All Cells", exact=True).click()
        try:
            return look.wait_for_selector(".saereason .card .context", timeout=45_000)
        except TimeoutError:
            continue
    raise AssertionError(look.locator(".jp-Notebook").inner_text())


@pytest.mark.slow
@pytest.mark.parametrize(("program", "at"), [("jupyterlab", "lab/tree"), ("notebook", "notebooks")])
def test_in_jupyter_a_click_reaches_python_and_the_bench_generates(browser, tmp_path, program, at):
    pytest.importorskip(program, reason=f"{program} is not installed")
    from playwright.sync_api import Error

    notebook(tmp_path)
    with serving(program, tmp_path) as address, browser.new_context(viewport={"width": 1300, "height": 900}) as context:
        look = context.new_page()
        for _ in range(60):
            try:
                look.goto(f"{address}/{at}/explore.ipynb", timeout=60_000)
                break
            except Error:
                time.sleep(1)
        run_all(look)
        assert look.locator(".rows .row svg").count() > 5, "sparks come from the kernel"
        look.locator(".rows .row").nth(2).click()
        name = look.locator(".rows .row").nth(2).locator(".c1").inner_text()
        until(look, f"document.querySelector('.card h2').textContent.startsWith('{name}')")
        look.locator(".card button.star").click()
        look.locator(".card textarea[aria-label=Prompt]").fill("Tom has 3")
        look.locator(".fields input[aria-label=size]").fill("40")
        look.locator(".fields select").nth(1).select_option("own")
        look.locator(".fields button").click()
        until(look, "[...document.querySelectorAll('.card .soft')].some(e => e.textContent.includes('1 firings'))")
        assert all(look.locator(".pair .text").nth(n).inner_text() for n in (0, 1))
        cell = look.locator(".jp-CodeCell").nth(1)
        cell.locator(".cm-content").click()
        look.keyboard.press("Control+Enter")
        feature = sr.Feature.parse(name)
        until(look, f"document.body.innerText.includes({f'chosen {feature!r} [{name!r}]'!r})", 60)
    assert json.loads((tmp_path / "run" / "explorer.json").read_text())["starred"] == [name]


def test_a_large_table_stays_small_for_the_page(explored):
    """A hundred thousand features are columns of numbers, not objects."""
    n = 100_000
    table = FeatureTable({"layer": np.zeros(n, int), "index": np.arange(n), "studentised": np.ones(n)})
    made = replace(explored, table=table, verdicts={})
    assert sum(map(len, columns(made, table).values())) == 12 * n
    assert torch.frombuffer(bytearray(columns(made, table)["index"]), dtype=torch.int32)[-1] == n - 1
