"""The figures and tables of layers.md, from the runs of `make layers`: `python docs/layers_study.py runs/lab docs`.

The figures are PNG, for which there must be Chrome or Chromium.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from plotly.graph_objects import Figure

import saereason as sr
from saereason.layers import Curve, Probed, StepMap
from saereason.plots import plot_centroids, plot_steps

Table = pd.DataFrame
Found = Mapping[str, Mapping[str, Table]]
"""By model and by the name of its file."""

MODELS = ("base", "taught")
SIDE_BY_SIDE = ("skip block", "skip attention", "skip MLP")
NEEDED = ("curves", "findings", "steps", "step_probes", "fast_slow", "no_answer")
STEPS = "word problems"
N_DIGITS = 10
GRADED = "skip block, graded answers"
KEPT = "without vital"
"""How findings.parquet calls those without the layers that plain text cannot do without."""


def main(runs: Path, docs: Path, formats: Sequence[str] = ("png",)) -> None:
    """Writes `images/` and `layers_tables.md`."""
    found = {model: {path.stem: pd.read_parquet(path) for path in (runs / model).glob("*.parquet")} for model in MODELS}
    if lacking := [f"{model}/{name}.parquet" for model in MODELS for name in NEEDED if name not in found[model]]:
        sys.exit(f"{runs} lacks {', '.join(lacking)}; run `make layers` with the operators that it has.")
    curves = {model: sr.load_curves(runs / model / "curves.parquet") for model in MODELS}
    lost = sr.load_curves(runs / "taught" / "steps.parquet")
    figures = {
        "layers": forest([(f"skip block, {model} model", "skip block", curves[model]) for model in MODELS]),
        "operators": forest([(operator, operator, curves["base"]) for operator in SIDE_BY_SIDE]),
        "steps": plot_steps(step_map(lost, found["taught"]["step_probes"])),
    }
    sr.save_figures(figures, docs / "images", formats)
    tables = {
        "families": family_table,
        "operators": operator_table,
        "fast and slow": fast_table,
        "graded": graded_table,
    }
    told = "\n".join(line for name, table in tables.items() for line in (f"<!-- {name} -->\n", *table(found), ""))
    (docs / "layers_tables.md").write_text(f"{told}\n<!-- end -->\n", encoding="utf8")


def forest(panels: Sequence[tuple[str, str, Sequence[Curve]]]) -> Figure:
    """A panel for each name, operator and curves, without the layers that plain text cannot do without."""
    kinds, counts = [], {}
    for name, operator, curves in panels:
        neutral = next(curve for curve in curves if (curve.kind, curve.operator) == ("neutral", "skip block"))
        chosen = [replace(curve, operator=name) for curve in curves if curve.operator == operator]
        kinds.append(sr.compare_kinds(chosen, neutral=neutral))
        counts |= {(name, curve.family): len(curve.drop) for curve in chosen}
    return plot_centroids(kinds, n_items=counts)


def step_map(lost: Sequence[Curve], probes: Table) -> StepMap:
    of = [curve for curve in lost if curve.family.startswith(f"{STEPS}, ")]
    read, names = [], []
    for (what, *name), rows in probes[probes["family"] == STEPS].groupby(["what", "result", "place"], sort=False):
        values = rows.pivot(index="item", columns="layer", values=["right", "usual", "shuffled"])
        right, usual, shuffled = (values[column].to_numpy() for column in ("right", "usual", "shuffled"))
        read.append(Probed(STEPS, "reasoning", what, of[0].n_layers, N_DIGITS, right, usual[:, 0], shuffled))
        names.append((int(name[0]), int(name[1])))
    return StepMap(STEPS, of[0].n_layers, of, read, names, ())


def family_table(found: Found) -> Iterator[str]:
    """Of each family with a block skipped: the clean model, what all layers are worth, and where."""
    cells = ("clean", "effect of all layers", "depth")
    yield from _header(["family"], [f"{model}: {cell}" for model in found for cell in cells])
    rows: dict[str, list[str]] = {}
    for tables in found.values():
        findings = tables["findings"].query("operator == 'skip block' and layers == @KEPT").set_index("family")
        curves = tables["curves"].query("operator == 'skip block' and kind != 'neutral'")
        for family, rows_of in curves.groupby("family", sort=False):
            told = findings.loc[family]
            out = {int(layer) for layer in told["layers_left_out"].split(", ") if layer}
            effect = rows_of[~rows_of["layer"].isin(out)].groupby("item")["drop"].sum().mean()
            depth = _interval(told["centroid"], told["low"], told["high"]) or "none"
            told = [_number(rows_of.groupby("item")["clean"].first().mean()), _number(effect, 1), depth]
            rows.setdefault(family, []).extend(told)
    yield from (_row([family, *cells]) for family, cells in rows.items())


def operator_table(found: Found) -> Iterator[str]:
    """Of each operator: what it says of kinds, without some layers and with all, and of how many families."""
    cells = ["reasoning less knowledge", "p", "p, all operators", "with all layers", "p", "families"]
    yield from _header(["model", "operator"], cells)
    for model, tables in found.items():
        for operator, rows in tables["findings"].groupby("operator", sort=False):
            told = []
            for layers in (KEPT, "all"):
                of = rows[rows["layers"] == layers]
                one, counted = of.iloc[0], of[of["centroid"].notna()]["kind"].value_counts()
                told.append((one, f"{counted.get('reasoning', 0)} + {counted.get('knowledge', 0)}"))
            (kept, n_kept), (whole, n_whole) = told
            ends = [_signed(*(one[f"difference{end}"] for end in ("", "_low", "_high"))) for one, _ in told]
            p, joint, p_whole = (_number(value) for value in (kept["p"], kept["p_all_operators"], whole["p"]))
            counts = n_kept if n_kept == n_whole else f"{n_kept}; {n_whole} with all"
            yield _row(
                [model, operator, ends[0] or "inconclusive", p, joint, ends[1] or "inconclusive", p_whole, counts]
            )


def fast_table(found: Found) -> Iterator[str]:
    """Of each domain: right at once and after thinking, and the difference; of all items and of those parsed twice."""
    cells = ("fast, slow", "δ", "parsed in both: n, fast, slow")
    yield from _header(["domain"], [f"{model}: {cell}" for model in found for cell in cells])
    rows: dict[str, list[str]] = {}
    for tables in found.values():
        of = tables["fast_slow"]
        for domain, told in of.groupby("domain", sort=False):
            whole = told[told["items"] == "all"].iloc[0]
            cells = [_pair(whole), _signed(whole["delta_value"], whole["delta_low"], whole["delta_high"], 2)]
            parsed = [f"{row['n']}: {_pair(row)}" for _, row in told[told["items"] == "parsed"].iterrows()]
            rows.setdefault(domain, []).extend([*cells, *(parsed or ["none"])])
    yield from (_row([domain, *cells]) for domain, cells in rows.items())


def graded_table(found: Found) -> Iterator[str]:
    """Of each family: answers that are right, and that are none, and where right answers are lost, if anything is."""
    cells = ("right", "no answer", "effect of all layers", "depth")
    yield from _header(["family"], [f"{model}: {cell}" for model in found for cell in cells])
    rows: dict[str, list[str]] = {}
    for tables in found.values():
        told = tables["findings"].query("operator == @GRADED and layers == 'all'").set_index("family")
        none = tables["no_answer"].groupby("family")["clean"].first()
        for family, of in tables["curves"].query("operator == @GRADED").groupby("family", sort=False):
            right, n = of.groupby("item")["clean"].first(), of["item"].nunique()
            depth = _interval(*told.loc[family, ["centroid", "low", "high"]]) or "none"
            effect = _number(of.groupby("item")["drop"].sum().mean(), 1)
            counts = [f"{right.sum():.0f} of {n}", f"{none[family] * n:.0f}", effect, depth]
            rows.setdefault(family, []).extend(counts)
    yield from (_row([family, *cells]) for family, cells in rows.items())


def _pair(row: "pd.Series[float]") -> str:
    return f"{_number(row['fast_value'])}, {_number(row['slow_value'])}"


def _header(names: Sequence[str], cells: Sequence[str]) -> Iterator[str]:
    yield _row([*names, *cells])
    yield _row(["---"] * (len(names) + len(cells)))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float, digits: int = 2) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}".replace("-", "−")


def _interval(value: float, low: float, high: float) -> str:
    return f"{_number(value)} [{_number(low)}, {_number(high)}]" if np.isfinite(value) else ""


def _signed(value: float, low: float, high: float, digits: int = 3) -> str:
    ends = f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
    return ends.replace("-", "−") if np.isfinite(value) else ""


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
