"""The first hundred of ten million features, from the tables of a run and from a table in memory.

    python -m benchmarks.tables [--quick]

A table of layer, index and two scores, as Parquet in a run. `top_sql`: seconds for a query of the hundred highest
through `run.con()`, connecting included; `top_table`: for `FeatureTable.top`; `top_sorted`: for pandas' `nlargest` on
the same columns, the peer. Medians of the rounds, sides in turn.
"""

import argparse
import json
import tempfile
from statistics import median

import numpy as np

import saereason as sr

from . import interleaved

LAYERS = 30


def table(n: int) -> sr.FeatureTable:
    rng = np.random.default_rng(0)
    index = np.arange(n)
    scores = {name: rng.normal(size=n) for name in ("studentised", "cohens_d")}
    return sr.FeatureTable({"layer": index % LAYERS, "index": index // LAYERS, **scores})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ten thousand features")
    n = 10_000 if parser.parse_args().quick else 10_000_000
    whole = table(n)
    frame = whole.to_pandas()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        run = sr.Run.open(folder)
        whole.save(run.folder / "features.parquet")
        query = "SELECT layer, index, studentised FROM features ORDER BY studentised DESC LIMIT 100"
        answers = {
            "top_sql": lambda: [tuple(row[:2]) for row in run.con().sql(query).fetchall()],
            "top_table": lambda: [(f.layer, f.index) for f in whole.top(100, "studentised")],
            "top_sorted": lambda: list(
                frame.nlargest(100, "studentised")[["layer", "index"]].itertuples(index=False, name=None)
            ),
        }
        same = len({tuple(answer()) for answer in answers.values()}) == 1
        rates = interleaved({name: lambda answer=answer: len([answer()]) for name, answer in answers.items()})
    seconds = {name: round(median(1 / rate for rate in each), 4) for name, each in rates.items()}
    for name, value in seconds.items():
        print(f"{name}: {value:.3f} s")
    print(json.dumps({**seconds, "features": n, "same_answers": same}))


if __name__ == "__main__":
    main()
