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
Tables = Mapping[str, Table]
"""Of one model, by the name of its file."""

Cells = Mapping[str, str]
"""By the name of the column."""

MODELS = ("base", "taught")
SIDE_BY_SIDE = ("skip block", "skip attention", "skip MLP")
NEEDED = ("curves", "findings", "steps", "step_probes", "fast_slow", "no_answer")
STEPS = "word problems"
N_DIGITS = 10
GRADED = "skip block, graded answers"
KEPT = "without vital"
"""How findings.parquet calls those without the layers that plain text cannot do without."""


def main(runs: Path, docs: Path, formats: Sequence[str] = ("png",)) -> None:
    """Writes `layers_tables.md` and `images/`."""
    needed = [runs / model / f"{name}.parquet" for model in MODELS for name in NEEDED]
    if lacking := [str(path) for path in needed if not path.exists()]:
        sys.exit(f"there is no {', '.join(lacking)}; run `make layers` with the operators and families that it has.")
    found = {model: {name: pd.read_parquet(runs / model / f"{name}.parquet") for name in NEEDED} for model in MODELS}
    for model, of in found.items():
        if lacking := sorted({*SIDE_BY_SIDE, GRADED} - {*of["curves"]["operator"]}):
            sys.exit(f"the run of the {model} model has no {', '.join(lacking)}; run `make layers` with its operators.")
    tables = {
        "families": family_cells,
        "fast and slow": fast_cells,
        "graded": graded_cells,
    }
    (docs / "images").mkdir(parents=True, exist_ok=True)
    told = ["<!-- operators -->\n", *operator_table(found), ""]
    for name, cells in tables.items():
        told += [f"<!-- {name} -->\n", *beside({model: dict(cells(of)) for model, of in found.items()}), ""]
    (docs / "layers_tables.md").write_text("\n".join([*told, "<!-- end -->", ""]), encoding="utf8")
    curves = {model: sr.load_curves(runs / model) for model in MODELS}
    lost = sr.load_curves(runs / "taught" / "steps.parquet")
    figures = {
        "layers": forest([(f"skip block, {model} model", "skip block", curves[model]) for model in MODELS]),
        "operators": forest([(operator, operator, curves["base"]) for operator in SIDE_BY_SIDE]),
        "steps": plot_steps(step_map(lost, found["taught"]["step_probes"])),
    }
    sr.save_figures(figures, docs / "images", formats)


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


def beside(rows: Mapping[str, Mapping[str, Cells]]) -> Iterator[str]:
    """By model and family; a family that a model has not leaves its cells empty."""
    families = dict.fromkeys(family for of in rows.values() for family in of)
    names = {model: [*next(iter(of.values()))] for model, of in rows.items()}
    yield from _header(["family"], [f"{model}: {name}" for model, of in names.items() for name in of])
    for family in families:
        cells = (rows[model].get(family, {}).get(name, "") for model, of in names.items() for name in of)
        yield _row([family, *cells])


def family_cells(tables: Tables) -> Iterator[tuple[str, Cells]]:
    """Of each family with a block skipped: the clean model, what all layers are worth, and where."""
    for family, rows, depth in _families(tables, "skip block"):
        yield family, {"clean": _number(rows.groupby("item")["clean"].first().mean()), **depth}


def graded_cells(tables: Tables) -> Iterator[tuple[str, Cells]]:
    """Of each family: answers that are right, and that are none, and where right answers are lost, if anything is."""
    none = tables["no_answer"].groupby("family")["clean"].first()
    for family, rows, depth in _families(tables, GRADED):
        right = rows.groupby("item")["clean"].first()
        yield (
            family,
            {"right": f"{right.sum():.0f} of {len(right)}", "no answer": f"{none[family] * len(right):.0f}", **depth},
        )


def _families(tables: Tables, operator: str) -> Iterator[tuple[str, Table, Cells]]:
    """Of each family under an operator: its rows, and what its layers are worth together, and where."""
    findings, curves = (tables[name][tables[name]["operator"] == operator] for name in ("findings", "curves"))
    findings = findings[findings["layers"] == KEPT].set_index("family")
    for family, rows in curves.groupby("family", sort=False):
        if family not in findings.index:
            continue  # plain text
        told = findings.loc[family]
        out = {int(layer) for layer in told["layers_left_out"].split(", ") if layer}
        effect = rows[~rows["layer"].isin(out)].groupby("item")["drop"].sum().mean()
        depth = _interval(told["centroid"], told["low"], told["high"]) or "none"
        yield family, rows, {"effect of all layers": _number(effect, 1), "depth": depth}


def operator_table(found: Mapping[str, Tables]) -> Iterator[str]:
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


def fast_cells(tables: Tables) -> Iterator[tuple[str, Cells]]:
    """Of each domain: right at once and after thinking, and the difference; of items parsed in both, too."""
    for domain, told in tables["fast_slow"].groupby("domain", sort=False):
        whole, parsed = (told[told["items"] == items] for items in ("all", "parsed"))
        one = whole.iloc[0]
        yield (
            domain,
            {
                "fast, slow": _pair(one),
                "δ": _signed(one["delta_value"], one["delta_low"], one["delta_high"], 2),
                "parsed in both: n, fast, slow": "".join(f"{row['n']}: {_pair(row)}" for _, row in parsed.iterrows())
                or "none",
            },
        )


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
