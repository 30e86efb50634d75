"""The explorer as one HTML file, which opens from disk and loads nothing."""

import hashlib
import html
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saereason.features import Feature, FeatureTable
from saereason.runs import installed, write_text
from saereason.steering import UNITS
from saereason.visible import one_line

from .bench import KINDS
from .cards import Card, cards
from .exploration import Exploration, Progress

HERE = Path(__file__).parent
PROMPT = "A farmer has 12 hens and buys 7 more. How many hens are there now?"
WHENS = ("last-prompt-token", "everywhere", "prompt", "generated")

SHELL = """
// On a page there is no kernel: what the explorer asks for stands in the page.
const told = (id) => JSON.parse(document.getElementById(id).textContent);
const values = { ...told("explored"), selected: null, card: null }, listeners = {};
const tell = (event) => listeners[event]?.forEach((listener) => listener());
render({
  el: document.getElementById("explorer"),
  model: {
    get: (name) => values[name],
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    depth: (name) => values.depths[name],
    set(name, value) {
      values[name] = value;
      if (name !== "selected") return;
      values.card = told(value);
      tell("change:selected");
      tell("change:card");
    },
    save_changes() {},
    send() {},
  },
});
"""


def write_page(
    ex: Exploration,
    path: Path,
    n: int,
    *,
    starred: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
    progress: Progress = lambda done, total: None,
) -> Path:
    """Write the best `n` features, and whatever has a verdict, a star or a note, as one file; whole or not at all."""
    if n < 1:
        raise ValueError(f"n is {n}; write at least one feature.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the path of a file, such as {path / 'explorer.html'}.")
    marked = {*starred, *(notes or {})}
    chosen = ex.best(n, [feature for feature in ex.table if str(feature) in marked] if marked else ())
    written = cards(ex, chosen, progress)
    write_text(path, page(ex, chosen, written, starred=starred, notes=notes or {}))
    return path


def page(
    ex: Exploration,
    features: Sequence[Feature],
    written: Sequence[Card],
    *,
    starred: Sequence[str] = (),
    notes: Mapping[str, str],
) -> str:
    """The same exploration gives the same bytes. Marks on features that are not among these stay out."""
    table, named = _rows(ex.table, features), {str(feature) for feature in features}
    explored = {
        "about": about(ex, live=False),
        "data": {name: b64encode(raw).decode() for name, raw in columns(ex, table).items()},
        "depths": {card["feature"]: card["depth"] for card in written},
        "starred": sorted({*starred} & named),
        "notes": {name: text for name, text in notes.items() if name in named},
    }
    parts = [("explored", explored), *((card["feature"], card) for card in written)]
    data = "\n".join(f'<script type="application/json" id="{name}">{_json(value)}</script>' for name, value in parts)
    script = f"{esm()}\n{SHELL}"
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    title = html.escape(one_line(f"Features of {ex.model.name} by {ex.by}"))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'sha256-{digest}'; \
style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ background: light-dark(#fdfdfb, #16181a); color: light-dark(#1d1f21, #e4e4e0); }}
body {{ margin: 0 auto; max-width: 90rem; overflow-wrap: anywhere; padding: 1rem; }}
h1 {{ font: 600 1.4rem/1.3 system-ui, sans-serif; margin: 0 0 0.8rem; }}
@media print {{ body {{ background: #fff; color: #000; }} }}
footer {{ opacity: 0.75; font: 0.85rem system-ui, sans-serif; margin-top: 2rem; }}
{css()}</style>
</head>
<body>
<h1>{title}</h1>
<main id="explorer"></main>
<footer>{len(features):,} of {len(ex.table):,} features. This page loads nothing else. \
Written by saereason {html.escape(installed("saereason") or "")}.</footer>
{data}
<script type="module">{script}</script>
</body>
</html>
"""


def esm() -> str:
    return (HERE / "explorer.js").read_text(encoding="utf8")


def css() -> str:
    return (HERE / "explorer.css").read_text(encoding="utf8")


def about(ex: Exploration, *, live: bool, kept: bool = False) -> dict[str, Any]:
    """What the page needs to know before any feature is chosen; `kept` if there is a run for stars and notes."""
    return {
        "by": ex.by,
        "scores": list(ex.scores),
        "rung": rung(ex),
        "layers": sorted(ex.saes),
        "page": ex.layers(),
        "worth": ex.worth(),
        "live": live,
        "kept": kept,
        "prompt": PROMPT,
        "kinds": list(KINDS),
        "units": list(UNITS),
        "whens": list(WHENS),
    }


def columns(ex: Exploration, table: FeatureTable) -> dict[str, bytes]:
    """Little-endian numbers of each column: 32-bit integers for layer and index, floats for scores and rungs."""
    found = {name: table[name].astype("<i4").tobytes() for name in ("layer", "index")}
    with np.errstate(over="ignore"):  # what is too large for 32 bits is infinite
        found |= {name: table[name].astype("<f4").tobytes() for name in ex.scores}
    if (name := rung(ex)) is not None:
        rungs = [ex.verdicts[f].height if f in ex.verdicts else np.nan for f in table]
        found[name] = np.array(rungs, dtype="<f4").tobytes()
    return found


def rung(ex: Exploration) -> str | None:
    """The name of the column of verdicts: not one that the table has. None without verdicts."""
    name = "rung"
    while name in ex.table.columns:
        name = f"{name} reached"
    return name if ex.verdicts else None


def _rows(table: FeatureTable, features: Sequence[Feature]) -> FeatureTable:
    place = {feature: n for n, feature in enumerate(table)}
    return table.where(np.array([place[feature] for feature in features]))


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    told = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(f"\\u{ord(c):04x}" if c in "<>&\u2028\u2029" or 0xD800 <= ord(c) < 0xE000 else c for c in told)
