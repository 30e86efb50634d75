"""Do the statistics hold what they promise?

`coverage` is the share of 2,000 simulated data sets of 100 prompts whose nominal 95% interval holds the truth, for
every interval that saereason prints (1,000 for shares over layers; exact for counts); `coverage_compared` is that of
intervals it does not print for a mean, and why. `null_any_discovery` is the share of 1,000 replicates without any
effect, the signs of whole prompts flipped at random, in which max-T reports a discovery at 5%; `_bh` and `_by` are
those of Benjamini-Hochberg and Benjamini-Yekutieli on analytic p-values. `null_ks` is the p-value of the hypothesis
that one fixed feature's p is uniform over replicates, by permutation and by Student's t.

    python -m benchmarks.calibration [--quick] [--differences block.npy]

The block is `[prompt, feature]`, as `saereason.search` writes it; without one, correlated sparse features are made up.
"""

import argparse
import json
from pathlib import Path
from time import perf_counter

import numpy as np
from scipy import stats as scipy_stats

from saereason.stats import benjamini_hochberg, benjamini_yekutieli, max_t, studentised

from ._coverage import Case, compared, covered, covered_exactly, printed

LEVEL = 0.05


def made_up(n_prompts: int = 200, n_features: int = 2000, *, seed: int = 0) -> np.ndarray:
    """Differences of two rectified activations a prompt: correlated over features, mostly sparse, of uneven size."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((20, n_features))
    threshold, size = rng.uniform(-0.5, 2.0, n_features), np.exp(rng.standard_normal(n_features))

    def acts() -> np.ndarray:
        pre = rng.standard_normal((n_prompts, 20)) @ mixing / 20**0.5 + 0.5 * rng.standard_normal(mixing.shape[1])
        return size * np.maximum(pre + 0.5 * rng.standard_normal(pre.shape) - threshold, 0)

    return acts() - acts()


def null(differences: np.ndarray, n_replicates: int, *, n_permutations: int = 199) -> dict[str, float]:
    """What is found in replicates of differences whose prompts have had their signs flipped at random."""
    differences = np.asarray(differences, dtype=np.float64)
    fixed = int((differences != 0).sum(axis=0).argmax())
    n, found, alone = len(differences), {"": 0, "_bh": 0, "_by": 0}, {"permutation": [], "t": []}
    for seed in range(n_replicates):
        signs = 2 * np.random.default_rng((11, seed)).integers(2, size=(n, 1)) - 1
        flipped = signs * differences
        analytic = 2 * scipy_stats.t.sf(np.abs(studentised(flipped)), n - 1)
        adjusted = {
            "": max_t(flipped, n_permutations=n_permutations, seed=seed),
            "_bh": benjamini_hochberg(analytic),
            "_by": benjamini_yekutieli(analytic),
        }
        for name, p in adjusted.items():
            found[name] += bool((p <= LEVEL).any())
        alone["permutation"].append(max_t(flipped[:, [fixed]], n_permutations=n_permutations, seed=seed)[0])
        alone["t"].append(analytic[fixed])
    shares = {f"null_any_discovery{name}": count / n_replicates for name, count in found.items()}
    return {
        **shares,
        **{f"null_ks_{name}": float(scipy_stats.kstest(p, "uniform").pvalue) for name, p in alone.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the data sets and replicates")
    parser.add_argument("--differences", type=Path, help="real differences, [prompt, feature], as .npy")
    asked = parser.parse_args()
    n_sets, n_replicates = (100, 50) if asked.quick else (2000, 1000)
    started = perf_counter()

    def measured(cases: list[Case]) -> dict[str, float]:
        shares = {}
        for case in cases:
            shares[case.name] = covered(case, n_sets)
            print(f"{case.name}: {shares[case.name]:.1%}", flush=True)
        return shares

    exact = dict(covered_exactly())
    print(*(f"{name}: {share:.1%}" for name, share in exact.items()), sep="\n", flush=True)
    coverage, other = {**exact, **measured(list(printed()))}, measured(list(compared()))
    differences = made_up() if asked.differences is None else np.load(asked.differences, mmap_mode="r")
    figures = {
        "coverage": coverage,
        "coverage_compared": other,
        "coverage_range": [min(coverage.values()), max(coverage.values())],
        **null(differences, n_replicates),
        "data_sets": n_sets,
        "replicates": n_replicates,
        "differences": list(differences.shape),
        "seconds": perf_counter() - started,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
