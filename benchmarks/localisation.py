"""Does the layer lab find where facts and a rule are kept, where that is known?

    python -m benchmarks.localisation [--quick] [--model folder] [--only orders,apart,tied,null]

In small transformers whose blocks are all at work one block has learnt facts and another a rule (`_planted.py`), at
random depths, in both orders. `found` is the number of twenty in which skipping blocks names both, as those of the
largest share, and `wrong_order` in how many the finding puts the two the wrong way round. `coverage` is the share of
resamples of 100 items of each family whose interval of the centroid difference holds its value on 20,000 other items,
over ten models; `tie_claimed` the share that claims a difference where one block holds both families, over ten more,
and `tie_beyond_zero` the share whose interval is without zero, which a difference far under half a layer has, too.

`null_different` is the share of 1,000 splits of one family's real items into two random halves (SmolLM2, word problems,
effects measured once) that are found to differ, `null_beyond_zero` the share whose interval is without zero.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import saereason as sr
from saereason.layers import family_of, take
from saereason.layers.finding import shares
from saereason.tasks import confirmation_task

from ._planted import N_LAYERS, Planted, base, planted

FAMILIES = ("rule", "facts", "chatter")
PARTS = ("orders", "apart", "tied", "null")
N_ITEMS = 100
"""Items of a family in a resample."""

Curves = dict[str, sr.Curve]


def curves(made: Planted, n: int, seed: int) -> Curves:
    """Skip curves of both families, and of a quarter as much chatter."""
    rng = np.random.default_rng([seed, 77])
    families = [made.family(name, n if name != "chatter" else max(50, n // 40), rng) for name in FAMILIES]
    with tempfile.TemporaryDirectory() as folder:
        found = sr.localise(made.model, None, families, run=sr.Run.open(folder))
    return {curve.family: curve for curve in found}


def named(curve: sr.Curve, neutral: sr.Curve) -> int:
    """The layer of the largest share, of those that chatter can do without."""
    keep = neutral.drop.mean(0) <= 1
    return curve.layers[int(np.where(keep, shares(curve, keep=keep, n_resamples=2).value, -np.inf).argmax())]


def models(n: int, *, tied: bool, seed: int) -> Iterator[tuple[Planted, int]]:
    """`n` models that are kept, blocks drawn anew for each, both orders in turn; and how many were not kept so far."""
    rng, dropped, kept, root = np.random.default_rng([seed, tied]), 0, 0, None
    while kept < n:
        if root is None or (kept + dropped) % 5 == 0:
            root = base(1000 * seed + kept + dropped)
        first, second = np.sort(rng.choice(N_LAYERS, size=2, replace=False)).tolist()
        blocks = {"facts": first, "rule": first if tied else second}
        if kept % 2:
            blocks = {"facts": blocks["rule"], "rule": blocks["facts"]}
        made = planted(root, blocks, seed=10_000 * seed + kept + dropped)
        if made is None:
            dropped += 1
            continue
        kept += 1
        yield made, dropped


def orders(n: int) -> dict[str, Any]:
    """Twenty models: are both blocks named, and in which order?"""
    found = wrong = undecided = dropped = 0
    for made, not_kept in models(n, tied=False, seed=1):
        dropped = not_kept
        at = curves(made, 200, seed=1)
        names = {family: named(at[family], at["chatter"]) for family in ("rule", "facts")}
        finding = sr.compare_depth(at["rule"], at["facts"], neutral=at["chatter"])
        deeper = made.blocks["rule"] > made.blocks["facts"]
        found += names == made.blocks
        wrong += bool(finding.high < 0 if deeper else finding.low > 0)
        undecided += not finding.differ
        print(f"planted {made.blocks}, named {names}: {finding.statement}", flush=True)
    return {"found": found, "wrong_order": wrong, "undecided": undecided, "models": n, "not_kept": dropped}


def resamples(n_models: int, n_resamples: int, n_fresh: int, *, tied: bool) -> list[tuple[bool, bool, bool]]:
    """Of each resample: does its interval hold the value on the fresh items, is a difference claimed, is zero out?"""
    found, pool = [], n_fresh // 2
    for k, (made, _) in enumerate(models(n_models, tied=tied, seed=2)):
        at = curves(made, n_fresh + pool, seed=2)
        fresh = {name: take(at[name], range(n_fresh)) for name in ("rule", "facts")}
        truth = sr.compare_depth(fresh["rule"], fresh["facts"], neutral=at["chatter"]).centroid_difference
        rng = np.random.default_rng([k, 3])
        for draw in range(n_resamples // n_models):
            rows = [n_fresh + rng.choice(pool, size=N_ITEMS, replace=False) for _ in range(2)]
            parts = [take(at[name], chosen.tolist()) for name, chosen in zip(("rule", "facts"), rows, strict=True)]
            told = sr.compare_depth(*parts, neutral=at["chatter"], seed=2 * draw)
            found.append((told.low <= truth <= told.high, told.differ, told.low > 0 or told.high < 0))
        held, claimed, beyond = np.mean(found[-(n_resamples // n_models) :], axis=0)
        figures = f"{truth:+.4f}, held {held:.2f}, claimed {claimed:.2f}, without zero {beyond:.2f}"
        print(f"{'tied' if tied else 'apart'} {made.blocks}: {figures}", flush=True)
    return found


def null(model_name: str, n: int, n_splits: int) -> dict[str, float]:
    """Of splits of real items into random halves: the share found to differ, and that whose interval lacks zero."""
    model = sr.load_model(model_name)
    family = replace(family_of(model, confirmation_task(n=n)), name="word problems")
    with tempfile.TemporaryDirectory() as folder:
        [curve] = sr.localise(model, None, [family], run=sr.Run.open(Path(folder)))
    rng, different, beyond = np.random.default_rng(0), 0, 0
    for split in range(n_splits):
        order = rng.permutation(n).tolist()
        told = sr.compare_depth(take(curve, order[: n // 2]), take(curve, order[n // 2 :]), seed=2 * split)
        different += told.differ
        beyond += told.low > 0 or told.high < 0
    return {"null_different": different / n_splits, "null_beyond_zero": beyond / n_splits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two models at most of each kind, and few items")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    asked = parser.parse_args()
    started, figures = perf_counter(), {}
    sizes = (2, 1, 20, 400, 16, 40) if asked.quick else (20, 10, 500, 20_000, 200, 1000)
    n_orders, n_models, n_resamples, n_fresh, n_items, n_splits = sizes
    parts = asked.only.split(",")
    if "orders" in parts:
        figures |= orders(n_orders)
    if "apart" in parts:
        held, *_ = np.mean(resamples(n_models, n_resamples, n_fresh, tied=False), axis=0)
        figures["coverage"] = float(held)
    if "tied" in parts:
        tied = np.mean(resamples(n_models, 2 * n_resamples, n_fresh, tied=True), axis=0)
        figures |= dict(zip(("tie_coverage", "tie_claimed", "tie_beyond_zero"), map(float, tied), strict=True))
    if "null" in parts:
        figures |= null(asked.model, n_items, n_splits)
    print(json.dumps({**figures, "seconds": perf_counter() - started}))


if __name__ == "__main__":
    main()
