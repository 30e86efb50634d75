"""The ladder on features that deserve to pass: the value between two steps, in small models that add.

    python -m benchmarks.positive [--quick] [--seeds 20] [--first 0]

For each seed a model is trained on the language of two-step sums, an SAE on the model, search ranks the SAE's features
on discovery, and the first of them is challenged, sizes of 1, 1.5, 2 and 3 times DiffMean's norm tried on rehearsal.
`positive_passed`: on how many seeds it passes all of rungs 1 to 7; the rungs on which others stop stand beside.
"""

import argparse
import json
from collections import Counter
from time import perf_counter

import torch

import saereason as sr
from saereason.behaviours import sums_model, sums_saes, value_between

VALUE = 1
MULTIPLES = (1.0, 1.5, 2.0, 3.0)


def climbed(seed: int, n_steps: int | None) -> sr.Verdict:
    """The verdict on the feature that search ranks first."""
    model = sums_model(seed, **({} if n_steps is None else {"n_steps": n_steps}))
    saes = sums_saes(model, seed)
    behaviour = value_between(model, VALUE, seed=seed)
    [feature] = sr.search(model, saes, behaviour.discovery.examples).top(1, "studentised")
    [verdict] = sr.challenge(model, saes, [feature], behaviour, multiples=MULTIPLES, seed=seed)
    return verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two seeds, hardly trained")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    seeds, start = 2 if asked.quick else asked.seeds, perf_counter()
    stopped: Counter[str] = Counter()
    for seed in range(asked.first, asked.first + seeds):
        verdict = climbed(seed, 20 if asked.quick else None)
        failed = [rung for rung in verdict.rungs[:7] if not rung.passed]
        stopped[", ".join(rung.name for rung in failed) or "passed"] += 1
        print(f"seed {seed}: {verdict}", flush=True)
    print(
        json.dumps(
            {
                "positive_passed": stopped["passed"],
                "seeds": seeds,
                "first": asked.first,
                "failed": {rungs: n for rungs, n in stopped.items() if rungs != "passed"},
                "seconds_a_seed": round((perf_counter() - start) / seeds, 1),
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
