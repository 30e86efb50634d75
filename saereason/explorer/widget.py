"""The explorer in a notebook."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
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

from .answers import failed, reading, said, steering
from .cards import cards
from .exploration import Exploration
from .marks import Marks, keep
from .page import about, columns, css, esm, write_page


def _to_json(feature: Feature | None, widget: Any) -> str | None:  # noqa: ARG001
    return None if feature is None else str(feature)


def _from_json(name: str | None, widget: Any) -> Feature | None:  # noqa: ARG001
    return None if name is None else Feature.parse(name)


class StrangeFeatureError(ValueError, traitlets.TraitError):
    """A feature that the table lacks; a TraitError, for which traitlets puts the old value back."""


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
            about=about(exploration, live=True, kept=run is not None),
            data=columns(exploration, exploration.table),
            starred=sorted(self._marks.starred),
            notes=dict(self._marks.notes),
        )
        self.on_msg(self._answer)

    def to_html(self, path: str | Path | None = None, *, n: int = 500) -> Path:
        """Write the best `n` features as one HTML file that loads nothing, into the run if no path is given.

        Features with a verdict, a star or a note come with them, and no note on any other feature of the run. Raises
        ValueError for n below 1, and for the path of a folder.
        """
        folder, marks = Path() if self.run is None else self.run.folder, self._shown()
        with steps() as bars, bars.step(f"write {n} features") as show:
            return write_page(
                self.exploration,
                folder / "explorer.html" if path is None else Path(path),
                n,
                starred=sorted(marks.starred),
                notes=marks.notes,
                progress=show,
            )

    def _shown(self) -> Marks:
        return Marks(frozenset(self.starred), {str(k): str(v) for k, v in self.notes.items() if v})

    @traitlets.validate("selected")
    def _is_known(self, proposal: Any) -> Feature | None:
        return proposal["value"] if proposal["value"] is None else self._of_table(proposal["value"])

    def _of_table(self, feature: Feature) -> Feature:
        if feature not in self._known:
            raise StrangeFeatureError(f"{feature} is none of the {len(self._known):,} features of the table.")
        return feature

    @traitlets.observe("selected")
    def _show(self, change: Any) -> None:
        feature = change["new"]
        if feature is None:
            self.card = None
            return
        try:
            self.card = self._card(feature)
        except BaseException as error:  # the page must not wait for it
            self.card = failed(feature, error)
            raise

    def _card(self, feature: Feature) -> dict[str, Any]:
        if feature not in self._cards:
            [self._cards[feature]] = cards(self.exploration, [feature])
        return self._cards[feature]

    @traitlets.observe("starred", "notes")
    def _keep(self, change: Any) -> None:  # noqa: ARG002
        now = self._shown()
        if now == self._marks:
            return
        if self.run is None:
            self._marks = now
            return
        try:
            self._marks = keep(self.run, self._marks, now)
        except (ValueError, OSError) as error:
            self.send({"kind": "kept", "error": f"Stars and notes are not kept: {said(error)}"})
            raise
        self.send({"kind": "kept"})
        with self.hold_trait_notifications():
            self.starred, self.notes = sorted(self._marks.starred), dict(self._marks.notes)

    def _answer(self, widget: Any, message: Any, buffers: Any) -> None:  # noqa: ARG002
        """What the page asks for, under the number that it asked with; what cannot be done is told in the page."""
        answers = {"depths": self._depths, "text": self._read, "steer": self._steer}
        told = {"kind": message.get("kind"), "id": message.get("id")}
        if told["kind"] not in answers:
            return
        try:
            self.send({**told, **answers[told["kind"]](message)})
        except BaseException as error:  # the page must not wait for it
            self.send({**told, "error": said(error)})
            if not isinstance(error, ValueError | SilentEditError):
                raise

    def _depths(self, message: Any) -> dict[str, Any]:
        found = self.exploration.depths([self._of_table(Feature.parse(name)) for name in message["features"]])
        return {"depths": {str(feature): depth for feature, depth in found.items()}}

    def _read(self, message: Any) -> dict[str, Any]:
        feature = self._meant(message)
        told = reading(self.exploration, feature, str(message["text"]))
        return {**told, "max_act": self._card(feature)["max_act"]}

    def _steer(self, message: Any) -> dict[str, Any]:
        def on_text(row: int, text: str) -> None:
            self.send({"kind": "token", "id": message.get("id"), "row": row, "text": text})

        return steering(self.exploration, self._meant(message), message, on_text)

    def _meant(self, message: Any) -> Feature:
        """The feature that a message is about: the one it names, or else the one that is chosen."""
        if message.get("feature") is not None:
            return self._of_table(Feature.parse(message["feature"]))
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
    `feature_contexts` do, for a column that is not there, a feature that is there twice, a verdict on a feature that is
    not in the table or has another, and a block of another search.
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
