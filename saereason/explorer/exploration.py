"""What is explored: a table of features with all that can be shown of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from saereason.controls import Verdict
from saereason.effects import Sweep
from saereason.features import Feature, FeatureTable
from saereason.layers import Curve
from saereason.model import Model, Rendered
from saereason.saes import SAE, check_saes, decoder_cosines, decoder_row, sae_at
from saereason.search import Block, Contexts, feature_contexts
from saereason.stats import mean_interval
from saereason.training import plain_texts

N_TEXTS, ROW = 200, 128
"""Plain texts that are read where none are given, and the tokens of each text that are."""

N_BEST = 24
"""Features of a layer on the layer page."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Exploration:
    """A table of features with the model, the SAEs and the texts that tell what each is."""

    model: Model
    saes: Mapping[int, SAE]
    table: FeatureTable
    by: str
    """The column that features are ranked by."""

    rows: tuple[tuple[int, ...], ...]
    """Token ids of what was read."""

    contexts: Contexts
    verdicts: Mapping[Feature, Verdict]
    sweep: Sweep | None
    block: Block | None
    curves: tuple[Curve, ...] = ()
    """What changing whole layers costs families of items."""

    @classmethod
    def of(
        cls,
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
        progress: Progress = lambda done, total: None,
    ) -> "Exploration":
        """Read the texts (plain English, if none are given) and put everything side by side.

        Raises ValueError for an empty table, features that the SAEs lack, a column to rank by that is not there or has
        no numbers, and a block of another search.
        """
        check_saes(model, saes)
        chosen = (
            next((name for name in ("studentised", *table.columns) if _is_score(table, name)), "") if by is None else by
        )
        if not len(table) or not _is_score(table, chosen):
            raise ValueError(
                f"the table has {len(table)} features and no numbers to rank them by in {chosen!r}; its columns are "
                f"{sorted(table.columns)}."
            )
        for layer in np.unique(table["layer"]):
            sae_at(saes, Feature(int(layer), int(table.at(int(layer))["index"].max())))
        known = None if block is None else Block.open(block)
        if known is not None and len({*table} - {Feature(*map(int, each)) for each in known.features}):
            raise ValueError(
                f"the block at {block} lacks features of the table; give the block of this table's search."
            )
        given = [text for text in plain_texts() if model.fits(text)][:N_TEXTS] if texts is None else texts
        rows = tuple(tuple(row[:ROW]) for row in map(model.encode, given) if len(row) > 1)
        contexts = feature_contexts(model, saes, rows, progress=progress)
        told = {each.feature: each for each in verdicts}
        return cls(model, saes, table, chosen, rows, contexts, told, sweep, known, tuple(curves))

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """The table's columns of numbers, the one that ranks first."""
        names = [name for name in self.table.columns if _is_score(self.table, name) and name != self.by]
        return (self.by, *names)

    def best(self, n: int) -> list[Feature]:
        """The first `n` features, and after them whatever has a verdict."""
        first = [*self.table.top(n, self.by)]
        return [*first, *sorted({*self.verdicts} & {*self.table} - {*first})]

    def depth(self, feature: Feature) -> list[float]:
        """At each layer with an SAE, the highest cosine of a decoder row there with the feature's own."""
        row = decoder_row(sae_at(self.saes, feature), feature.index)
        return [round(float(decoder_cosines(self.saes[layer], row).max()), 3) for layer in sorted(self.saes)]

    def worth(self) -> list[dict[str, Any]]:
        """Of each curve: what each layer is worth, mean over items with its 95% interval, to three digits."""
        found = []
        for curve in self.curves:
            drop = curve.drop[np.isfinite(curve.drop).all(axis=1)]
            each = [mean_interval(column) for column in drop.T]
            values = [[float(f"{end:.3g}") for end in (one.value, one.low, one.high)] for one in each]
            named = {"family": curve.family, "kind": curve.kind, "operator": curve.operator, "n": len(drop)}
            found.append({**named, "layers": list(curve.layers), "values": values})
        return found

    def layers(self) -> list[dict[str, Any]]:
        """Of each layer in the table: how many features, the mean of the best ten, and the best with their values."""
        found = []
        for layer in sorted({int(layer) for layer in self.table["layer"]}):
            best = self.table.at(layer).top(N_BEST, self.by)
            values = best[self.by].astype(float)
            kept = [[int(i), float(v)] for i, v in zip(best["index"], values, strict=True) if np.isfinite(v)]
            mean = float(np.mean([v for _, v in kept[:10]])) if kept else None
            found.append({"layer": layer, "n": len(self.table.at(layer)), "mean": mean, "best": kept})
        return found


def _is_score(table: FeatureTable, name: str) -> bool:
    column = table.columns.get(name)
    return column is not None and name not in ("layer", "index") and np.issubdtype(column.dtype, np.number)
