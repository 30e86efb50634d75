"""The lab's results as pandas tables: the data of each figure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from saereason.layers import Curve, Patching, Probed
from saereason.layers.contrasts import POSITIONS

from .lab import Lab
from .parts import Parts


def tables(lab: Lab) -> dict[str, Any]:
    """Every result, by the name of its file; what was not asked for has none."""
    found = {"curves": _stacked([_of_curve(curve) for curve in lab.curves]), "findings": finding_table(lab)}
    found["lens"] = _frame(
        {"family": d.family, "kind": d.kind, "item": n, "layer": layer, "share_right": share}
        for d in lab.depths
        for n, (layer, share) in enumerate(zip(d.layer, d.share_right, strict=True))
    )
    return found | {name: table for name, table in _of_parts(lab.parts).items() if len(table)}


def finding_table(lab: Lab) -> Any:
    """A row for each operator and family, with what the operator says of kinds."""
    return _frame(
        {
            "operator": operator,
            "family": family,
            "kind": found.kinds[family],
            "centroid": value,
            "low": low,
            "high": high,
            "difference": found.difference,
            "p": found.p,
            "statement": found.statement,
        }
        for operator, found in lab.kinds.items()
        for family, (value, low, high) in found.centroids.items()
    )


def _of_parts(parts: Parts) -> dict[str, Any]:
    import pandas as pd

    reads = [*((p.family, p) for p in parts.probed), *((s.family, p) for s in parts.steps for p in s.read)]
    thoughts = [(f, kind) for t in parts.thought for f, kind in ((t.whole, "all"), (t.parsed, "parsed")) if f]
    return {
        "patching": _stacked([_of_patching(each) for each in parts.patched]),
        "probes": _stacked([_of_probe(family, each) for family, each in reads]),
        "steps": _stacked([_of_curve(curve) for steps in parts.steps for curve in steps.lost]),
        "fast_slow": pd.json_normalize([{**asdict(f), "items": kind} for f, kind in thoughts], sep="_"),
        "similarity": _frame(
            {"name": s.name, "is_null": s.is_null, "layer": layer, "cka": value, "n": s.n}
            for s in parts.similar
            for layer, value in enumerate(s.cka)
        ),
    }


def _of_curve(curve: Curve) -> Any:
    """A row for each item and layer."""
    clean = np.repeat(curve.clean[:, None], len(curve.layers), axis=1)
    table = _long({"drop": curve.drop, "clean": clean}, {"item": range(len(curve.drop)), "layer": curve.layers})
    return table.assign(family=curve.family, kind=curve.kind, operator=curve.operator)


def _of_patching(found: Patching) -> Any:
    axes = {"item": range(len(found.clean)), "position": POSITIONS, "layer": found.layers}
    values = {"restored": found.restored, "broken": found.broken}
    return _long(values, axes).assign(family=found.family, kind=found.kind)


def _of_probe(family: str, found: Probed) -> Any:
    usual = np.repeat(found.usual[:, None], found.n_layers, axis=1)
    axes = {"item": range(len(found.right)), "layer": range(found.n_layers)}
    values = {"right": found.right, "shuffled": found.shuffled, "usual": usual}
    return _long(values, axes).assign(family=family, what=found.what)


def _long(values: Mapping[str, np.ndarray], axes: Mapping[str, Sequence[Any]]) -> Any:
    """Arrays over the same axes as a table with a row for each cell."""
    import pandas as pd

    index = pd.MultiIndex.from_product(list(axes.values()), names=list(axes))
    return pd.DataFrame({name: value.reshape(-1) for name, value in values.items()}, index=index).reset_index()


def _stacked(tables: Sequence[Any]) -> Any:
    import pandas as pd

    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _frame(rows: Iterable[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(list(rows))
