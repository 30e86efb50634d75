"""Do the statistics hold what they promise?

`coverage` is the share of 2,000 simulated data sets of 100 prompts whose nominal 95% interval holds the truth, for
every interval that saereason prints (1,000 for shares over layers; exact for counts); `coverage_compared` is that of
intervals it does not print for a mean, and why.

`null_any_discovery` is the share of 1,000 data sets of real activations without any effect, on and off exchanged within
pairs at random, in which max-T reports a discovery at 5%; `_bh` and `_by` are those of Benjamini-Hochberg and
Benjamini-Yekutieli on analytic p-values. `null_ks` is the p-value of the hypothesis that one fixed feature's p is
uniform over data sets, by permutation and by Student's t. `planted_first` and `planted_discovered` are the shares of
100 seeds in which a feature that was given a true effect of d_z = 0.6 in such data is ranked first, and discovered;
`recall` has both against the size of the effect, and the figure shows it; `planted_among_real` is the share discovered
where all other features keep their real differences. See `_family.py`.

`cue_caught` and `context_spared` are the shares of 50 seeds in which `try_cues` condemns a detector of one token, and
does not condemn a feature of context; see `_cues.py`.

    python -m benchmarks.calibration [--quick] [--block folder] [--out figure.html]

The block of real activations is what `search` writes; it is made in the first run, in some minutes, and kept.
"""

import argparse
import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from saereason.runs import write_text

from ._coverage import Case, compared, covered, covered_exactly, printed
from ._cues import judged
from ._family import PLANTED, SIZES, Draw, null, planted, plot_recall, real_block


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the data sets")
    parser.add_argument("--block", type=Path, default=Path("runs/bench/block"), help="folder of real activations")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/calibration.html"), help="file for the figure")
    asked = parser.parse_args()
    share = 20 if asked.quick else 1
    started = perf_counter()
    figures = {
        **intervals(2000 // share),
        **judged(50 // share),
        **family(asked.block, asked.out, n_null=1000 // share, n_planted=100 // share),
        "seconds": perf_counter() - started,
    }
    print(json.dumps(figures))


def intervals(n_sets: int) -> dict[str, object]:
    def measured(cases: Iterable[Case]) -> dict[str, float]:
        shares = {}
        for case in cases:
            shares[case.name] = covered(case, n_sets)
            print(f"{case.name}: {shares[case.name]:.1%}", flush=True)
        return shares

    exact = dict(covered_exactly())
    print(*(f"{name}: {share:.1%}" for name, share in exact.items()), sep="\n", flush=True)
    coverage, other = {**exact, **measured(printed())}, measured(compared())
    return {
        "coverage": coverage,
        "coverage_compared": other,
        "coverage_range": [min(coverage.values()), max(coverage.values())],
        "data_sets": n_sets,
    }


def family(folder: Path, out: Path, *, n_null: int, n_planted: int) -> dict[str, object]:
    """What is found where nothing is, and of what is planted; the figure of the latter goes to `out`."""
    block = real_block(folder)
    with tempfile.TemporaryDirectory() as scratch:
        draw = Draw(block, Path(scratch) / "block", n_pairs=min(200, len(block.values) // 2))
        nothing = null(draw, n_null)
        print(nothing, flush=True)
        recall = []
        for found in planted(draw, n_planted):
            print(found, flush=True)
            recall.append(found)
        [among_real] = planted(draw, n_planted, [PLANTED], real=True)
    least = recall[SIZES.index(PLANTED)]
    n_features = len(block.features)
    said = f"{draw.n_pairs} pairs, a family of {n_features:,} features, max-T at 5%, {n_planted} seeds."
    write_text(out, plot_recall(recall, said).to_html(include_plotlyjs=True))
    return {
        **nothing,
        "planted_first": least.first,
        "planted_discovered": least.discovered,
        "planted_among_real": among_real.discovered,
        "recall": [asdict(found) for found in recall],
        "replicates": n_null,
        "seeds": n_planted,
        "pairs": [draw.n_pairs, len(block.values) // 2],
        "features": n_features,
    }


if __name__ == "__main__":
    main()
