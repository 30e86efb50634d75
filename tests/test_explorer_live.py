"""The explorer's page with Python behind it: two views, what was typed, focus, and answers that come late."""

import base64
import json
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny_model, tiny_sae

import saereason as sr
from saereason.controls import Verdict
from saereason.controls.ladder import Rung
from saereason.explorer import Exploration, Explorer, write_page
from saereason.explorer.page import css, esm
from saereason.features import FeatureTable
from saereason.layers import Curve

pytestmark = pytest.mark.slow

TEXTS = [f"Tom has {n} apples and {n + 1} pears{end}" for n in range(4) for end in (", step by step.", ".")]
HOSTILE = "</script><b>\u202ecolumn"

PAGE = """<!doctype html><meta charset="utf-8"><style>%s</style><div id="a"></div><div id="b"></div>
<script type="application/json" id="state">%s</script>
<script type="module">%s
// what anywidget gives to render: one model, however many views
const values = JSON.parse(document.getElementById("state").textContent), listeners = {}, changed = new Set();
for (const [name, text] of Object.entries(values.data)) {
  values.data[name] = new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
}
const tell = (event, ...what) => [...(listeners[event] ?? [])].forEach((each) => each(...what));
window.put = (name, value) => {
  if (JSON.stringify(values[name]) === JSON.stringify(value)) return;
  values[name] = value;
  tell(`change:${name}`);
};
window.sent = [];
window.say = (message) => tell("msg:custom", message);
window.listening = () => Object.values(listeners).flat().length;
window.model = {
  get: (name) => values[name],
  set: (name, value) => { changed.add(name); window.put(name, value); },
  on: (event, listener) => (listeners[event] ??= []).push(listener),
  off: (event, listener) => { listeners[event] = listeners[event].filter((each) => each !== listener); },
  send: (message) => window.sent.push(["message", JSON.parse(JSON.stringify(message))]),
  save_changes() {
    window.sent.push(["state", Object.fromEntries([...changed].map((name) => [name, values[name]]))]);
    changed.clear();
  },
};
window.clean = ["a", "b"].map((id) => render({ model: window.model, el: document.getElementById(id) }));
</script>"""


class Shown:
    """An explorer in two views; `answer` lets Python do what the page has asked for since."""

    def __init__(self, look, explorer):
        self.look, self.explorer, self.wrong = look, explorer, []
        look.on("pageerror", lambda error: self.wrong.append(str(error)))
        look.on("console", lambda message: self.wrong.append(message.text))
        explorer.send = lambda content, buffers=None: look.evaluate("message => say(message)", content)
        names = ["about", "selected", "card", "starred", "notes"]
        state = explorer.get_state(names)
        state["data"] = {name: base64.b64encode(raw).decode() for name, raw in explorer.data.items()}
        look.set_content(PAGE % (css(), json.dumps(state).replace("<", "\\u003c"), esm()))
        explorer.observe(self._push, names[1:])
        self.a, self.b = look.locator("#a"), look.locator("#b")
        self.answer()

    def _push(self, change):
        value = self.explorer.get_state(change["name"])[change["name"]]
        self.look.evaluate("([name, value]) => put(name, value)", [change["name"], value])

    def answer(self):
        time.sleep(0.2)
        while sent := self.look.evaluate("sent.splice(0)"):
            for kind, what in sent:
                if kind == "state":
                    self.explorer.set_state(what)
                else:
                    self.explorer._answer(self.explorer, what, [])

    @property
    def focus(self):
        return self.look.evaluate(
            "[document.activeElement.getAttribute('role') ?? document.activeElement.className, "
            "document.activeElement.textContent]"
        )


@pytest.fixture(scope="module")
def explored():
    model, saes = tiny_model(), {layer: tiny_sae("topk", layer) for layer in range(2)}
    table = sr.search(model, saes, sr.Examples.pair(model, TEXTS[::2], TEXTS[1::2]))
    keep = {name: table[name] for name in ("layer", "index", "difference", "rate_on", "studentised")}
    share = np.round(np.arange(len(table)) % 10 / 10, 1)
    odd = {"layer>": share, "a b": share, "__proto__": share, "rung": share, HOSTILE: share}
    best = next(iter(table.top(1, "studentised")))
    verdict = Verdict(best, HOSTILE, (Rung(1, True, "so it is"),), 1.0, 192, 2, 3)
    return Exploration.of(model, saes, FeatureTable({**keep, **odd}), texts=TEXTS, verdicts=[verdict])


@pytest.fixture
def shown(browser, explored, tmp_path):
    with browser.new_context(viewport={"width": 1200, "height": 900}) as context:
        made = Shown(context.new_page(), Explorer(explored, sr.Run.open(tmp_path / "run")))
        yield made
        assert not made.wrong


def test_two_views_of_one_explorer_show_the_same_and_one_may_go(shown):
    shown.a.locator(".rows .row").nth(2).click()
    shown.answer()
    name = str(shown.explorer.selected)
    shown.a.locator(".star").click()
    shown.a.get_by_label("Notes").fill("a note")
    shown.a.get_by_label("Notes").blur()
    shown.answer()
    assert shown.explorer.starred == [name] and shown.explorer.notes == {name: "a note"}
    for view in (shown.a, shown.b):
        assert view.locator(".card h2").text_content() == f"{name} ★" and view.locator(".rows svg").count() > 10
        assert view.get_by_label("Notes").input_value() == "a note"
    before = shown.look.evaluate("listening()")
    shown.look.evaluate("clean[0]()")
    assert shown.look.evaluate("listening()") == before / 2 and shown.a.inner_html() == ""
    shown.explorer.selected = sr.Feature(1, 1)
    assert shown.b.locator(".card h2").text_content().startswith("L1/1")


def test_the_state_can_be_saved_with_the_notebook(shown):
    assert shown.look.evaluate("Object.keys(structuredClone(model.get('about'))).length") == len(shown.explorer.about)


def test_an_answer_goes_to_the_view_and_the_feature_that_asked(shown):
    shown.a.get_by_label("tokens at most").fill("3")
    shown.a.get_by_role("button", name="Generate").click()
    shown.answer()
    texts = [[text.text_content() for text in view.locator(".pair .text").all()] for view in (shown.a, shown.b)]
    assert all(texts[0]) and not any(texts[1])
    shown.a.get_by_label("A text of your own").fill("Tom")
    shown.a.get_by_role("button", name="Read it").click()
    shown.a.get_by_role("button", name="Generate").click()
    shown.a.locator(".rows .row").nth(4).click()
    shown.answer()
    assert not any(text.text_content() for text in shown.a.locator(".pair .text").all())
    assert shown.a.locator("section .context").count() == shown.b.locator("section .context").count()
    assert shown.a.get_by_role("button", name="Generate").is_enabled()
    shown.a.get_by_label("size").fill("")
    shown.a.get_by_role("button", name="Generate").click()
    shown.answer()
    assert shown.a.locator(".card .wrong").text_content() == "size is None; give a number."


def test_what_was_typed_is_kept(shown):
    name = str(shown.explorer.selected)
    shown.a.locator("textarea[aria-label=Prompt]").fill("Tom has 5")
    shown.a.get_by_label("Notes").focus()
    shown.look.keyboard.type("half a no")
    shown.explorer.starred = [name]
    assert shown.a.get_by_label("Notes").input_value() == "half a no" and shown.focus[1] == ""
    shown.explorer.selected = sr.Feature(1, 1)
    shown.answer()
    assert shown.explorer.notes == {name: "half a no"} and shown.a.get_by_label("Notes").input_value() == ""
    assert shown.a.locator("textarea[aria-label=Prompt]").input_value() == "Tom has 5"


def test_the_keyboard_suffices_and_keeps_its_place(shown):
    press = shown.look.keyboard.press
    shown.a.get_by_role("grid").focus()
    for key in ("ArrowDown", "s", "Control+s"):
        press(key)
        shown.answer()
    assert shown.focus[0] == "grid" and shown.explorer.starred == [str(shown.explorer.selected)]
    shown.a.locator(".star").focus()
    press("Enter")
    shown.answer()
    assert shown.focus == ["star", "☆"] and shown.explorer.starred == []
    shown.a.get_by_role("columnheader", name="difference").get_by_role("button").focus()
    press("Enter")
    assert shown.focus == ["link", "difference ▼"]
    press("s")
    shown.a.locator(".card .tokens button.link").first.focus()
    press("Enter")
    shown.answer()
    assert shown.focus[0] == "card" and shown.explorer.starred == []
    shown.a.get_by_role("tab", name="Features").focus()
    press("ArrowRight")
    assert shown.focus == ["tab", "Layers"] and shown.a.get_by_role("tabpanel", name="Layers").is_visible()


@pytest.mark.parametrize(
    ("typed", "test"),
    [
        ("layer>>=0.7 layer=1", lambda t: (t["layer>"] >= 0.7) & (t["layer"] == 1)),  # 0.7 as 32 bits is below 0.7
        ("a b = 0.3", lambda t: t["a b"] == 0.3),
        ("__proto__<.1", lambda t: t["__proto__"] < 0.1),
        ("rung>0.5", lambda t: t["rung"] > 0.5),
        ("rung reached=1", lambda t: np.arange(len(t)) == np.argmax(t["studentised"])),
        ("difference > 1e-1 L0/1", lambda t: (t["difference"] > 0.1) & (t["layer"] == 0) & _begins(t["index"], "1")),
    ],
)
def test_any_column_filters(shown, explored, typed, test):
    shown.a.get_by_role("searchbox").fill(typed)
    time.sleep(0.3)
    n = int(test(explored.table).sum())
    assert shown.a.locator(".search p").text_content() == f"{n} of 192 features"
    assert shown.a.get_by_role("grid").get_attribute("aria-rowcount") == str(n + 1)


def _begins(index, digits):
    return np.array([str(each).startswith(digits) for each in index])


def test_what_is_no_filter_is_said_and_hidden_characters_of_columns_are_marks(shown):
    box = shown.a.get_by_role("searchbox")
    for typed in ("constructor>1", "difference>x", "difference>0.5x"):
        box.fill(typed)
        time.sleep(0.3)
        assert f"“{typed}” is no filter" in shown.a.locator(".search .wrong").text_content()
    heads = shown.a.get_by_role("grid").get_by_role("columnheader").all_text_contents()
    assert "</script><b><U+202E>column" in heads and heads.count("rung") == heads.count("rung reached") == 1


def test_a_star_taken_away_leaves_the_list_of_starred(shown):
    shown.explorer.starred = [str(shown.explorer.selected), "L1/5"]
    shown.a.get_by_role("searchbox").fill("starred")
    time.sleep(0.3)
    assert shown.a.locator(".rows .row").count() == 2
    shown.a.locator(".star").click()
    assert shown.a.locator(".rows .row").count() == 1


def test_a_card_or_a_mark_that_failed_is_told(shown, monkeypatch):
    def fail(*_):
        raise ValueError("the SAE has gone.")

    monkeypatch.setattr("saereason.explorer.widget.cards", fail)
    shown.a.locator(".rows .row").nth(5).click()
    with pytest.raises(ValueError, match="gone"):
        shown.answer()
    assert shown.a.locator(".card .wrong").text_content() == "the SAE has gone."
    (shown.explorer.run.folder / "explorer.json").write_text("spoilt")
    shown.a.locator(".star").click()
    with pytest.raises(ValueError, match="holds no stars"):
        shown.answer()
    assert shown.b.get_by_text("Stars and notes are not kept").is_visible()


def test_families_without_a_figure_and_curves_of_one_layer_are_shown(browser, explored, tmp_path):
    def curve(name, drop):
        return Curve(name, "neutral", "skip block", tuple(range(drop.shape[1])), 2, drop, np.zeros(len(drop)))

    one, none = curve("one", np.ones((1, 1))), curve("none", np.array([[1.0, np.nan]] * 2))
    path = write_page(replace(explored, curves=(one, none)), tmp_path / "page.html", 1)
    with browser.new_context() as context:
        look = context.new_page()
        look.goto(path.as_uri(), timeout=60_000)
        look.get_by_role("tab", name="Layers").click()
        assert look.locator(".layers li").all_inner_texts() == [" one (neutral, n = 1)", " none (neutral, n = 0)"]
        point = look.locator(".layers .chart circle").first
        assert point.evaluate("point => getComputedStyle(point).stroke") != "none"
        drawn = (
            "[...document.querySelectorAll('svg *')].flatMap((e) => [...e.attributes].map((a) => a.value)).join(' ')"
        )
        assert "NaN" not in look.evaluate(drawn)


def test_a_page_prints_a_whole_note_in_ink_and_fits_a_long_name(browser, explored, tmp_path):
    name = str(next(iter(explored.table.top(1, "studentised"))))
    note = "\n".join(f"line {n} \u202e" for n in range(30))
    made = replace(explored, by="a" * 99, table=explored.table.with_column("a" * 99, explored.table["studentised"]))
    path = write_page(made, tmp_path / "page.html", 2, notes={name: note})
    with browser.new_context(color_scheme="dark", viewport={"width": 390, "height": 844}) as context:
        look = context.new_page()
        look.goto(path.as_uri(), timeout=60_000)
        look.wait_for_selector(".card .note")
        assert look.evaluate("document.documentElement.scrollWidth") == 390
        look.emulate_media(media="print")
        assert look.locator(".note").inner_text().endswith("line 29 <U+202E>")
        assert not look.locator(".list").is_visible() and look.locator(".card").is_visible()
        assert look.locator(".mark").first.evaluate("mark => getComputedStyle(mark).color") == "rgb(163, 60, 0)"
