"""The explorer in a notebook."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from saereason.controls import Verdict
from saereason.effects import Sweep
from saereason.features import Feature, FeatureTable
from saereason.layers import Curve
from saereason.model import Model, Rendered
from saereason.progress import steps
from saereason.runs import Run
from saereason.saes import SAE
from saereason.steering import SilentEditError

from .bench import Wish, try_out
from .cards import cards, number
from .exploration import Exploration
from .marks import Marks, keep
from .page import about, columns, css, esm, write_page
from .windows import acts_on

MOST_TOKENS = 400
"""That the bench may write."""


def _to_json(feature: Feature | None, widget: Any) -> str | None:  # noqa: ARG001
    return None if feature is None else str(feature)


def _from_json(name: str | None, widget: Any) -> Feature | None:  # noqa: ARG001
    return None if name is None else Feature.parse(name)


class Explorer(anywidget.AnyWidget):
    """What `explore` gives. `selected` is a `Feature`, to read, to set and to observe; `to_html` writes one file."""

    _esm = esm()
    _css = css()

    about = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    selected: Any = traitlets.Instance(Feature, allow_none=True).tag(sync=True, to_json=_to_json, from_json=_from_json)
    card = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    starred = traitlets.List(traitlets.Unicode()).tag(sync=True)
    notes = traitlets.Dict().tag(sync=True)

    def __init__(self, exploration: Exploration, run: Run | None = None) -> None:
        self.exploration, self.run = exploration, run
        self._marks = Marks() if run is None else Marks.load(run)
        self._known = {*exploration.table}
        self._cards: dict[Feature, dict[str, Any]] = {}
        super().__init__(
            about=about(exploration, live=True),
            data=columns(exploration, exploration.table),
            starred=sorted(self._marks.starred),
            notes=dict(self._marks.notes),
        )
        self.on_msg(self._answer)

    def to_html(self, path: str | Path | None = None, *, n: int = 500) -> Path:
        """Write the best `n` features as one HTML file that loads nothing, into the run if no path is given."""
        folder = Path() if self.run is None else self.run.folder
        marks = self._marks
        with steps() as bars, bars.step(f"write {n} features") as show:
            return write_page(
                self.exploration,
                folder / "explorer.html" if path is None else Path(path),
                n,
                starred=sorted(marks.starred),
                notes=marks.notes,
                progress=show,
            )

    @traitlets.validate("selected")
    def _is_known(self, proposal: Any) -> Feature | None:
        if proposal["value"] is not None and proposal["value"] not in self._known:
            raise ValueError(f"{proposal['value']} is none of the {len(self._known):,} features of the table.")
        return proposal["value"]

    @traitlets.observe("selected")
    def _show(self, change: Any) -> None:
        feature = change["new"]
        if feature is None:
            self.card = None
            return
        if feature not in self._cards:
            [self._cards[feature]] = cards(self.exploration, [feature])
        self.card = self._cards[feature]

    @traitlets.observe("starred", "notes")
    def _keep(self, change: Any) -> None:  # noqa: ARG002
        now = Marks(frozenset(self.starred), {str(k): str(v) for k, v in self.notes.items() if v})
        if now == self._marks:
            return
        before, self._marks = self._marks, now
        if self.run is not None:
            self._marks = keep(self.run, before, now)
            with self.hold_trait_notifications():
                self.starred, self.notes = sorted(self._marks.starred), dict(self._marks.notes)

    def _answer(self, widget: Any, message: Any, buffers: Any) -> None:  # noqa: ARG002
        """What the page asks for; what cannot be done is told in the page."""
        kind = message.get("kind")
        try:
            if kind == "depths":
                features = [Feature.parse(name) for name in message["features"]]
                self.send(
                    {"kind": kind, "depths": {str(f): depth for f, depth in self.exploration.depths(features).items()}}
                )
            elif kind == "text":
                self.send({"kind": kind, **self._read(str(message["text"]))})
            elif kind == "steer":
                self._steer(message)
        except (ValueError, SilentEditError) as error:
            self.send({"kind": "steered" if kind == "steer" else kind, "error": str(error)})

    def _read(self, text: str) -> dict[str, Any]:
        """The selected feature on a text."""
        ex, feature = self.exploration, self._chosen()
        row = ex.model.encode(text)
        acts = acts_on(ex.model, ex.saes, [feature], {0: row})[feature][0]
        return {
            "tokens": [ex.model.token_text(token) for token in row],
            "acts": [number(act) for act in acts],
            "focus": int(np.argmax(acts)),
            "max_act": self._cards[feature]["max_act"],
        }

    def _steer(self, message: Any) -> None:
        ex, tokens = self.exploration, int(message["tokens"])
        if not 1 <= tokens <= MOST_TOKENS:
            raise ValueError(f"tokens are {tokens}; give 1 to {MOST_TOKENS}.")
        wish = Wish(message["intervention"], float(message["size"]), message["unit"], message["when"])
        found = try_out(
            ex.model,
            ex.saes,
            self._chosen(),
            wish,
            str(message["prompt"]),
            max_new_tokens=tokens,
            on_text=lambda row, text: self.send({"kind": "token", "row": row, "text": text}),
        )
        first = [[token, *map(number, shares)] for token, *shares in found.first]
        self.send({"kind": "steered", "texts": list(found.texts), "first": first, "receipt": found.receipt})

    def _chosen(self) -> Feature:
        if self.selected is None:
            raise ValueError("no feature is chosen; choose one in the list.")
        return self.selected


def explore(
    model: Model,
    saes: Mapping[int, SAE],
    table: FeatureTable,
    *,
    by: str | None = None,
    texts: Sequence[str | Rendered] | None = None,
    verdicts: Sequence[Verdict] = (),
    sweep: Sweep | None = None,
    block: Path | None = None,
    curves: Sequence[Curve] = (),
    run: Run | None = None,
) -> Explorer:
    """The features of a table to look at, in Jupyter: a list, a card of each, a steering bench, a page of layers.

    `by` is the column that ranks them (`studentised`, where there is one). `texts` tell what each feature reads (plain
    English, if none are given; the first 128 tokens of each are read, at once). `block`, what `search` was asked to
    keep, gives scores their intervals; `verdicts` come from `challenge`, `sweep` gives dose and response, and `curves`
    of `localise` what whole layers are worth. Stars and notes are kept in the `run`. Raises ValueError as `search` and
    `feature_contexts` do, for a column that is not there, and for a block of another search.
    """
    with steps() as bars, bars.step("read the texts") as show:
        exploration = Exploration.of(
            model,
            saes,
            table,
            by=by,
            texts=texts,
            verdicts=verdicts,
            sweep=sweep,
            block=block,
            curves=curves,
            progress=show,
        )
    return Explorer(exploration, run)
