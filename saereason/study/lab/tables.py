"""The lab's results as pandas tables: the data of each figure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from saereason.layers import Curve, FastSlow, Patching, Probed
from saereason.layers.contrasts import POSITIONS
from saereason.stats import Estimate

from .lab import Lab
from .parts import Parts

NOWHERE = (float("nan"),) * 3

_NO_SHARE = asdict(Estimate(*NOWHERE))

OF_A_CURVE = ["operator", "family", "kind", "unit", "n_layers"]


def load_curves(path: str | Path) -> list[Curve]:
    """The curves that `saereason layers` has written into a folder (its `curves.parquet`), or those of such a file, as
    `steps.parquet`: for `compare_kinds`, `compare_depth` and the plots.

    Raises ValueError for a file that holds no curves.
    """
    import pandas as pd

    file = Path(path) / "curves.parquet" if Path(path).is_dir() else Path(path)
    table: Any = pd.read_parquet(file)
    if missing := {*OF_A_CURVE, "item", "layer", "drop", "clean"} - {*table.columns}:
        raise ValueError(f"{file} has no column {min(missing)!r}; give a folder that `saereason layers` has written.")
    found = []
    for (operator, family, kind, unit, n_layers), rows in table.groupby(OF_A_CURVE, sort=False):
        drop = rows.pivot(index="item", columns="layer", values="drop")
        clean = rows.groupby("item")["clean"].first().to_numpy()
        layers = tuple(map(int, drop.columns))
        found.append(Curve(family, kind, operator, layers, int(n_layers), drop.to_numpy(), clean, unit))
    return found


def tables(lab: Lab) -> dict[str, Any]:
    """Every result, by the name of its file; what was not asked for has none."""
    curves = {(curve.family, curve.operator): curve for curve in (*lab.curves, *([lab.neutral] if lab.neutral else []))}
    found = {"curves": _stacked([_of_curve(curve) for curve in curves.values()])}
    found["findings"], found["pairs"] = finding_table(lab), pair_table(lab)
    found["nulls"] = null_table(lab)
    found["lens"] = _frame(
        {"family": d.family, "kind": d.kind, "item": n, "layer": layer, "share_right": share}
        for d in lab.depths
        for n, (layer, share) in enumerate(zip(d.layer, d.share_right, strict=True))
    )
    return {name: table for name, table in (found | _of_parts(lab.parts)).items() if len(table)}


def finding_table(lab: Lab) -> Any:
    """A row for each operator and family, without some layers and with all, with what the operator says of kinds; and
    why, where the family does not count.
    """
    kind_of = {curve.family: curve.kind for curve in lab.curves}
    return _frame(
        {
            "operator": operator,
            "layers": layers,
            "family": family,
            "kind": kind_of[family],
            "centroid": value,
            "low": low,
            "high": high,
            "not_counted_because": found.families_left_out.get(family, ""),
            "difference": found.difference,
            "difference_low": found.low,
            "difference_high": found.high,
            "p": found.p,
            "p_all_operators": joint.get(operator, np.nan),
            "layers_left_out": ", ".join(map(str, found.layers_left_out)),
            "statement": found.statement,
        }
        for layers, findings, joint in (
            ("without vital", lab.kinds, lab.joint),
            ("all", lab.all_layers, lab.joint_all_layers),
        )
        for operator, found in findings.items()
        for family in (*found.centroids, *found.families_left_out)
        for value, low, high in [found.centroids.get(family, NOWHERE)]
    )


def pair_table(lab: Lab) -> Any:
    """A row for each operator: one reasoning family against one knowledge family; and with covariates taken out."""
    ways = [(operator, "as they are", found) for operator, found in lab.pairs.items()]
    if lab.alike is not None:
        first = next(iter(lab.pairs))
        more = (("covariates taken out", lab.alike.adjusted), ("items that are alike", lab.alike.matched))
        ways += [(first, way, found) for way, found in more if found is not None]
    return _frame(
        {"operator": operator, "way": way, **{name: _plain(value) for name, value in asdict(found).items()}}
        for operator, way, found in ways
    )


def null_table(lab: Lab) -> Any:
    """A row for each null of the first operator's pair of families."""
    if lab.alike is None:
        return _frame([])
    first, second = lab.alike.as_they_are.families
    pair = {"operator": next(iter(lab.pairs)), "first": first, "second": second}
    return _frame(
        {**pair, "null": name, "value": null.value, "usual": null.usual, "reached": null.reached}
        for name, null in lab.alike.nulls.items()
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _of_parts(parts: Parts) -> dict[str, Any]:
    import pandas as pd

    reads = [(steps, *each) for steps in parts.steps for each in zip(steps.names, steps.read, strict=True)]
    thoughts = [(f, kind) for t in parts.thought for f, kind in ((t.whole, "all"), (t.parsed, "parsed")) if f]
    return {
        "patching": _stacked([_of_patching(each) for each in parts.patched]),
        "probes": _stacked([_of_probe(p).assign(family=p.family) for p in parts.probed]),
        "steps": _stacked([_of_curve(curve) for steps in parts.steps for curve in steps.lost]),
        "step_probes": _stacked(
            [_of_probe(p).assign(family=s.family, result=result, place=place) for s, (result, place), p in reads]
        ),
        "no_answer": _frame(
            {"family": each.curve.family, "layer": layer, "share": share, "clean": each.no_answer_clean}
            for each in parts.graded
            for layer, share in zip(each.curve.layers, each.no_answer, strict=True)
        ),
        "fast_slow": pd.json_normalize([_of_thought(f) | {"items": kind} for f, kind in thoughts], sep="_"),
        "similarity": _frame(
            {"name": s.name, "is_null": s.is_null, "layer": layer, "cka": value, "error": error, "n": s.n}
            for s in parts.similar
            for layer, (value, error) in enumerate(zip(s.cka, s.error, strict=True))
        ),
    }


def _of_curve(curve: Curve) -> Any:
    """A row for each item and layer."""
    clean = np.repeat(curve.clean[:, None], len(curve.layers), axis=1)
    table = _long({"drop": curve.drop, "clean": clean}, {"item": range(len(curve.drop)), "layer": curve.layers})
    return table.assign(**{name: getattr(curve, name) for name in OF_A_CURVE})


def _of_thought(found: FastSlow) -> dict[str, Any]:
    """A share of nothing is not a number."""
    return {name: _NO_SHARE if value is None else value for name, value in asdict(found).items()}


def _of_patching(found: Patching) -> Any:
    axes = {"item": range(len(found.clean)), "position": POSITIONS, "layer": found.layers}
    values = {"restored": found.restored, "broken": found.broken}
    return _long(values, axes).assign(family=found.family, kind=found.kind)


def _of_probe(found: Probed) -> Any:
    usual = np.repeat(found.usual[:, None], found.n_layers, axis=1)
    axes = {"item": range(len(found.right)), "layer": range(found.n_layers)}
    values = {"right": found.right, "shuffled": found.shuffled, "usual": usual}
    return _long(values, axes).assign(what=found.what)


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
