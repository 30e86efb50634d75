"""What is explored: a table of features with all that can be shown of each."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from saereason.controls import Verdict
from saereason.effects import Sweep
from saereason.features import Feature, FeatureTable
from saereason.layers import Curve
from saereason.model import Model, Rendered
from saereason.saes import SAE, check_saes, decoder_row, sae_at
from saereason.search import Block, Contexts, feature_contexts
from saereason.stats import mean_interval
from saereason.training import plain_texts

from .evidence import check_block, scores

N_TEXTS, ROW = 200, 128
"""Plain texts that are read where none are given, and the tokens of each text that are."""

N_BEST = 24
"""Features of a layer on the layer page."""

AT_ONCE = 64
"""Features that are compared with a layer's decoder rows at once."""

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

        Raises ValueError for an empty table, a feature that is there twice or that the SAEs lack, a column to rank by
        that is not there or has no numbers, verdicts on other features or two on one, and a block of another search.
        """
        check_saes(model, saes)
        ranking = [name for name in ("studentised", *table.columns) if name in scores(table)]
        chosen = next(iter(ranking), "") if by is None else by
        if not len(table) or chosen not in ranking:
            raise ValueError(
                f"the table has {len(table)} features and no numbers to rank them by in {chosen!r}; its columns are "
                f"{sorted(table.columns)}."
            )
        known = None if block is None else Block.open(block)
        _check_features(saes, table, [each.feature for each in verdicts])
        if known is not None:
            check_block(table, known)
        if isinstance(texts, str):
            raise ValueError(f"texts is one text, {texts[:40]!r}; give a list of texts.")
        given = [text for text in plain_texts() if model.fits(text)][:N_TEXTS] if texts is None else texts
        rows = tuple(tuple(row) for row in (model.encode(text, most=ROW) for text in given) if len(row) > 1)
        contexts = feature_contexts(model, saes, rows, progress=progress)
        return cls(
            model,
            saes,
            table,
            chosen,
            rows,
            contexts,
            {each.feature: each for each in verdicts},
            sweep,
            known,
            tuple(curves),
        )

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """The table's columns of numbers, the one that ranks first."""
        return (self.by, *(name for name in scores(self.table) if name != self.by))

    def best(self, n: int, others: Iterable[Feature] = ()) -> list[Feature]:
        """The first `n` features, and after them whatever has a verdict, with some others."""
        first = [*self.table.top(n, self.by)]
        return [*first, *sorted({*self.verdicts, *others} - {*first})]

    def depths(self, features: Sequence[Feature]) -> dict[Feature, list[float]]:
        """Of each feature, at each layer with an SAE, the highest cosine of a decoder row there with its own."""
        found: dict[Feature, list[float]] = {}
        for start in range(0, len(features), AT_ONCE):
            these = features[start : start + AT_ONCE]
            rows = torch.stack([decoder_row(sae_at(self.saes, each), each.index).cpu() for each in these])
            each_layer = [_nearest(self.saes[layer], rows) for layer in sorted(self.saes)]
            found |= {one: [round(float(at[n]), 3) for at in each_layer] for n, one in enumerate(these)}
        return found

    def worth(self) -> list[dict[str, Any]]:
        """Of each curve: what each layer is worth, mean over items with its 95% interval, to three digits.

        Items that lack a layer are left out; the interval is None for a single item, and the mean too without any.
        """
        found = []
        for curve in self.curves:
            drop = curve.drop[np.isfinite(curve.drop).all(axis=1)]
            named = {"family": curve.family, "kind": curve.kind, "operator": curve.operator, "n": len(drop)}
            found.append({**named, "layers": list(curve.layers), "values": [_worth(column) for column in drop.T]})
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


def _nearest(sae: SAE, rows: Float[Tensor, "row d_model"]) -> list[float]:
    """Of each row, its highest cosine with a decoder row."""
    own = sae.W_dec.detach().float()
    return (normalize(rows.to(own), dim=-1) @ normalize(own, dim=-1).T).amax(-1).tolist()


def _worth(drops: Float[np.ndarray, "item"]) -> list[float | None]:
    """Mean and ends of its interval, None for what so few items cannot tell."""
    if len(drops) < 2:
        return [*(float(f"{drop:.3g}") for drop in drops), None, None, None][:3]
    one = mean_interval(drops)
    return [float(f"{end:.3g}") for end in (one.value, one.low, one.high)]


def _check_features(saes: Mapping[int, SAE], table: FeatureTable, judged: Sequence[Feature]) -> None:
    """Raises ValueError for a feature that is in the table twice or that the SAEs lack, and for stray verdicts."""
    features = Counter(table)
    for layer in {feature.layer for feature in features}:
        index = table.at(layer)["index"]
        for end in (index.min(), index.max()):
            sae_at(saes, Feature(layer, int(end)))
    feature, n = features.most_common(1)[0]
    if n > 1:
        raise ValueError(f"{feature} is in the table {n} times; give each feature once.")
    for feature, n in Counter(judged).items():
        if n > 1:
            raise ValueError(f"there are {n} verdicts on {feature}; give one.")
        if feature not in features:
            raise ValueError(
                f"there is a verdict on {feature}, which is not in the table; leave it out, or add its row."
            )
