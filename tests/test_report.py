"""A report is one file that loads nothing, shows hostile text as text, and can be read anywhere."""

import hashlib
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from saereason.layers import Curve, compare_depth
from saereason.plots import plot_accuracy, plot_layers, plot_quality, plot_share_difference
from saereason.quality import Quality
from saereason.report import Code, Figure, Link, Page, SideBySide, Table, Text, write_report
from saereason.stats import Estimate, wilson

HOSTILE = (
    "<script>hacked=1;alert(1)</script></script><img src=x onerror=alert(1)>"
    '"onload=\'alert(1)\' &lt;b&gt; \u202eabc\u202c zero\u200bwidth \ud800 ]]> <!-- {} %s <a href="https://evil.example">x</a>'
)
ARMS = [
    ("direct", wilson(13, 300), []),
    ("chain of thought, asked for step by step in so many words", wilson(61, 300), []),
    ("random features", Estimate(0.045, 0.02, 0.07), [0.03, 0.04, 0.04, 0.05, 0.06]),
]


def curve(family, kind, peak, n, first, seed):
    """Thirty layers, of which the first costs enormously more than the others."""
    rng, depth = np.random.default_rng(seed), np.arange(30)
    mean = 0.05 + 0.35 * np.exp(-(((depth - peak) / 6) ** 2)) + 0.25 * (depth == 29)
    mean[0] = first
    return Curve(
        family, kind, "skip block", tuple(range(30)), 30, mean + 0.2 * rng.standard_normal((n, 30)), np.zeros(n)
    )


def figures(name="word problems: computed results"):
    curves = [
        curve(name, "reasoning", 15, 200, 11.3, 1),
        curve("country facts", "knowledge", 9, 150, 9.4, 2),
        curve("plain text", "neutral", 4, 64, 8.9, 3),
    ]
    finding = compare_depth(*curves[:2], neutral=curves[2])
    qualities = [
        Quality(n, 0.95 - n / 99, 32.0, n / 99, 3.1, 3.2, 7.4, 0.97, 40.0, 51200, np.zeros(4)) for n in range(30)
    ]
    return (
        Figure("Layers", plot_layers(curves), "Each block skipped in turn."),
        Figure("Shares", plot_share_difference(curves[0], curves[1], finding), finding.statement),
        Figure("Accuracy", plot_accuracy([*ARMS, (name, wilson(3, 10), [])])),
        Figure("SAEs", plot_quality(qualities)),
    )


def full_page(text="ordinary text", name="word problems: computed results"):
    """A page with every kind of section, and this text wherever text can be."""
    return Page(
        text,
        text,
        (
            Text(text, (text, text)),
            Table(text, (text, *"bcdefghi"), ((text, *[Estimate(0.1, 0.0, 0.2)] * 8), (None, *range(8))), text),
            *(replace(f, title=text, caption=text) for f in figures(name)),
            SideBySide(text, (text, text), ((text, text, text, text),)),
            Code(text, text * 20),
            Link(text, text, text),
        ),
    )


class Tags(HTMLParser):
    """Every tag with its attributes, and the text under each."""

    def __init__(self, source):
        super().__init__()
        self.found, self.open, self.text = [], [], {}
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "img", "link", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.text.setdefault(self.open[-1], []).append(data)

    def of(self, tag):
        return [attrs for name, attrs in self.found if name == tag]


def written(tmp_path, *sections, title="A title", lead="A lead."):
    source = write_report(tmp_path, Page(title, lead, sections)).read_text(encoding="utf8")
    return source, Tags(source)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    path = write_report(tmp_path_factory.mktemp("hostile"), full_page(HOSTILE, HOSTILE))
    source = path.read_text(encoding="utf8")
    return path, source, Tags(source)


# what the file is


def test_the_report_is_one_whole_file_with_the_same_bytes_each_time(tmp_path):
    path = write_report(tmp_path / "new", full_page())
    assert path == tmp_path / "new" / "report.html"
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    assert path.stat().st_size < 6e6
    before = path.read_bytes()
    write_report(tmp_path / "new", full_page())
    assert path.read_bytes() == before


def test_a_page_without_figures_is_small_and_runs_no_script(tmp_path):
    source, tags = written(tmp_path, Text("t", ("p",)))
    assert len(source) < 2e4
    assert not tags.of("script")
    assert "script-src 'none'" in source


def test_a_report_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    path = write_report(tmp_path, full_page())
    before = path.read_bytes()

    def break_off(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", break_off)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path, full_page("other"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_the_page_is_well_formed_and_says_what_it_is(hostile):
    _, source, tags = hostile
    assert source.startswith("<!doctype html>\n")
    assert not tags.open
    assert tags.of("html") == [{"lang": "en"}]
    assert len(tags.of("h1")) == len(tags.of("main")) == len(tags.of("title")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in tags.of("meta")
    ids = [attrs["id"] for _, attrs in tags.found if "id" in attrs]
    assert len(ids) == len(set(ids))


# nothing is loaded


def test_nothing_is_loaded_from_anywhere(hostile):
    _, _, tags = hostile
    for tag, attrs in tags.found:
        assert tag not in {"img", "link", "iframe", "object", "embed", "base", "form", "audio", "video", "source"}
        assert not {name for name in attrs if name.startswith("on") or name in {"src", "srcset", "style", "action"}}
        href = attrs.get("href", "#")
        assert href.startswith("#") or not set(href) & set(":/"), "a place on the page, or a page beside it"
    (style,) = tags.text["style"]
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style


def test_the_policy_forbids_loading_and_every_script_but_ours(hostile):
    _, source, tags = hostile
    (policy,) = [m["content"] for m in tags.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    code = [text for text in tags.text["script"] if "Plotly.newPlot" in text]
    digest = b64encode(hashlib.sha256(code[0].encode()).digest()).decode()
    assert len(code) == 1
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert source.index("Content-Security-Policy") < source.index("<style>") < source.index("<script")


# text is text


def test_hostile_text_is_shown_and_does_nothing(hostile):
    _, source, tags = hostile
    scripts = tags.of("script")
    assert [s for s in scripts if s != {}] == [
        {"type": "application/json", "data-figure": f"section-{n}-figure"} for n in (3, 4, 5, 6)
    ]
    assert scripts.count({}) == 1
    body = re.sub(r"<script.*?</script>", "", source, flags=re.DOTALL)
    assert "&lt;script&gt;hacked=1;alert(1)&lt;/script&gt;" in body
    assert "&amp;lt;b&amp;gt;" in body
    assert "&quot;onload=&#x27;" in body
    for hidden in "\u202e\u202c\u200b\ud800":
        assert hidden not in source
        assert f'<span class="mark">&lt;U+{ord(hidden):04X}&gt;</span>' in body
    assert body.count("<bdi>") == body.count("</bdi>") > 20


def test_right_to_left_text_keeps_to_itself(tmp_path):
    source, _ = written(tmp_path, SideBySide("s", ("a", "b"), (("q", "שלום 1", "مرحبا", ""),)))
    assert '<div class="text" dir="auto"><bdi>שלום 1</bdi></div>' in source


# sections


def test_contents_are_listed_from_four_sections_on(tmp_path):
    source, tags = written(tmp_path, *(Text(f"Part {n}", ()) for n in range(3)))
    assert not tags.of("nav")
    source, tags = written(tmp_path, *(Text(f"Part {n}", ()) for n in range(4)))
    assert [a["href"] for a in tags.of("a")] == ["#content", *(f"#section-{n}" for n in range(1, 5))]
    assert {s["id"] for s in tags.of("section")} == {f"section-{n}" for n in range(1, 5)}
    assert '<a href="#section-2"><bdi>Part 1</bdi></a>' in source


def test_cells_are_written_for_reading(tmp_path):
    row = (
        "name",
        12345,
        0.25,
        2e-5,
        -1234.5,
        Estimate(0.1, 0.0, 0.2),
        np.float32(0.5),
        np.int64(7),
        True,
        None,
        "3/70",
    )
    source, tags = written(tmp_path, Table("t", tuple("abcdefghijk"), (row,), "A note."))
    cells = re.findall(r'<td class="(\w+)"><bdi>(.*?)</bdi></td>', source)
    assert [text for _, text in cells] == (
        ["name", "12,345", "0.250", "2.0e-05", "-1,234.500", "0.100 [0.000, 0.200]", "0.500", "7", "yes", "–", "3/70"]
    )
    assert [kind for kind, _ in cells] == ["short", *["number"] * 7, "short", "short", "number"]
    assert [head["class"] for head in tags.of("th")] == [kind for kind, _ in cells]
    assert all(head["scope"] == "col" for head in tags.of("th"))
    assert "A note." in source


def test_a_column_with_words_is_not_one_of_numbers(tmp_path):
    source, _ = written(tmp_path, Table("t", ("a", "b"), ((1, 2), ("L14/3021", None), ("x" * 40, float("nan")))))
    cells = re.findall(r'<td class="(\w+)">', source)
    assert cells == ["short", "number", "short", "number", "long", "number"]


def test_an_empty_table_has_its_header(tmp_path):
    _, tags = written(tmp_path, Table("t", ("a", "b"), ()))
    assert len(tags.of("th")) == 2
    assert not tags.of("td")


def test_a_table_with_a_short_row_is_refused():
    with pytest.raises(ValueError, match="row 1 of 'arms' has 1 cells; the header has 2"):
        Table("arms", ("a", "b"), (("1", "2"), ("1",)))


def test_notes_and_captions_that_are_empty_leave_no_trace(tmp_path):
    empty = (
        SideBySide("s", ("a", "b"), (("q", "l", "r", ""),)),
        Table("t", ("a",), ()),
        replace(figures()[3], caption=""),
    )
    source, tags = written(tmp_path, *empty)
    assert 'class="note"' not in source
    assert not tags.of("figcaption")


def test_what_scrolls_is_reached_by_the_keyboard(hostile):
    _, _, tags = hostile
    scrollers = [attrs for _, attrs in tags.found if attrs.get("class") == "scroller"]
    assert len(scrollers) == 2
    assert all(s["tabindex"] == "0" and s["role"] == "region" and s["aria-label"] for s in scrollers)
    assert all(attrs["aria-label"] for attrs in tags.of("div") if attrs.get("class") == "plot")


# in a browser

DRAWN = "document.querySelectorAll('.plot .main-svg').length >= 4 && document.querySelectorAll('.xtick').length > 8"
OUTSIDE = """() => [...document.querySelectorAll('.plot')].flatMap(plot => {
    const box = plot.getBoundingClientRect();
    return [...plot.querySelectorAll('text')].filter(text => {
        const own = text.getBoundingClientRect();
        return own.width && (own.left < box.left - 2 || own.right > box.right + 2 || own.top < box.top - 2
            || own.bottom > box.bottom + 2);
    }).map(text => text.textContent);
})"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
COLOURS = """() => [getComputedStyle(document.documentElement).backgroundColor,
    ...[...document.querySelectorAll('.plot text, p, h1, h2, h3, h4, td, th, a:not(.skip), .mark')].map(
        e => e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color)]"""


def luminance(colour):
    rgb = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def context(browser, name):
    telephone = name == "telephone"
    return browser.new_context(
        color_scheme="dark" if name == "dark" else "light",
        viewport={"width": 390 if telephone else 1100, "height": 844},
        has_touch=telephone,
        is_mobile=telephone,
    )


def watched(look, path):
    """Open the page until it is drawn; what it asked for, and what went wrong in it."""
    asked, wrong = [], []
    look.on("request", lambda request: asked.append(request.url))
    look.on("console", lambda message: wrong.append(message.text))
    look.on("pageerror", lambda error: wrong.append(str(error)))
    look.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    look.goto(path.as_uri(), timeout=120_000)
    look.wait_for_function(DRAWN, timeout=120_000)
    return asked, wrong


@pytest.fixture(scope="module", params=["light", "dark", "telephone"])
def opened(request, browser, tmp_path_factory):
    """An ordinary page in a browser, its path, what it asked for and what went wrong."""
    path = write_report(tmp_path_factory.mktemp("ordinary"), full_page("text \u200b"))
    with context(browser, request.param) as opened_context:
        look = opened_context.new_page()
        yield look, path, *watched(look, path)


@pytest.mark.slow
def test_a_browser_draws_the_page_and_asks_for_nothing(opened):
    look, path, asked, wrong = opened
    assert asked == [path.as_uri()]
    assert not wrong
    assert look.locator(".plot .main-svg").count() >= 4
    assert look.evaluate("document.documentElement.scrollWidth") <= look.viewport_size["width"]


@pytest.mark.slow
def test_a_browser_shows_all_of_every_figure(opened):
    assert opened[0].evaluate(OUTSIDE) == []


@pytest.mark.slow
def test_a_browser_can_be_read_in_light_and_dark(opened):
    behind, *colours = (luminance(colour) for colour in opened[0].evaluate(COLOURS))
    assert len(colours) > 100
    assert min((max(c, behind) + 0.05) / (min(c, behind) + 0.05) for c in colours) > 4.5


@pytest.mark.slow
def test_a_browser_follows_the_keyboard(opened):
    look = opened[0]
    look.keyboard.press("Tab")
    assert look.evaluate("document.activeElement.className") == "skip"
    look.keyboard.press("Enter")
    assert look.evaluate("document.activeElement.id") == "content"
    look.keyboard.press("Tab")
    assert look.evaluate("document.activeElement.className") == "scroller"


@pytest.mark.slow
def test_a_browser_paints_text_soon(opened):
    """The best of three, since other work may hold the machine."""
    look, path, *_ = opened
    soonest = look.evaluate(PAINTED)
    for _ in range(2):
        if soonest > 5000:
            look.goto(path.as_uri(), timeout=120_000)
            look.wait_for_function(DRAWN, timeout=120_000)
            soonest = min(soonest, look.evaluate(PAINTED))
    assert soonest < 5000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["light", "telephone"])
def test_a_browser_takes_hostile_text_for_text(browser, name, hostile):
    with context(browser, name) as opened_context:
        look = opened_context.new_page()
        asked, wrong = watched(look, hostile[0])
        assert asked == [hostile[0].as_uri()]
        assert not wrong
        assert look.evaluate("typeof hacked") == "undefined"
        assert look.locator("img, .plot a").count() == 0
        assert look.locator("h1").inner_text().startswith("<script>hacked=1;alert(1)</script>")
        assert "<img src=x" in "".join(look.locator(".plot :is(.gtitle, .legend)").all_text_contents())
        assert look.evaluate("document.documentElement.scrollWidth") <= look.viewport_size["width"]
