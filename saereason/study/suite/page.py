"""The suite as one page and as figures to read by program."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from saereason.mechanisms.comparison import DIRECT
from saereason.plots import plot_overlaps, plot_pass_at_k, plot_through_steps, plot_weights
from saereason.report import Figure, Page, Section, Text

from .ground import KNOWN, PROBLEMS
from .parts import COT, WINDOWS
from .suite import Compared
from .tables import (
    answer_table,
    cost_table,
    fast_table,
    fit_table,
    followed_table,
    form_table,
    gain_table,
    length_table,
    opening_table,
    overlap_table,
    shared_table,
    shorter_table,
    undone_table,
    with_cot,
)

ALPHA = 0.05
RANDOM = "random "
"""How the names of controls begin."""

OVERLAP_NOTE = (
    "Cosine of the changes of features, each measured on another half of the items; chance: features of about the same "
    "activation change places. Random features and directions show what any edit shares."
)


def summary(found: Sequence[Compared]) -> dict[str, Any]:
    """`mechanisms` and `overlap` by "model: mechanism"."""
    mechanisms, overlap = {}, {}
    for each in found:
        table = each.comparison.summary().set_index(["mechanism", "task"])
        for mechanism in each.comparison.mechanisms:
            row = table.loc[(mechanism.name, PROBLEMS)]
            mechanisms[f"{each.ground.name}: {mechanism.name}"] = {
                "accuracy": float(row["accuracy"]),
                "low": float(row["accuracy_low"]),
                "high": float(row["accuracy_high"]),
                "tokens": float(row["tokens"]),
                "unparsed": float(row["unparsable"] + row["truncated"] + row["looping"]),
                "information_gain": _number(row["gain_own"]),
                "information_gain_masked": _number(row["gain_masked"]),
                "knowledge": float(table.loc[(mechanism.name, KNOWN)]["accuracy"]),
            }
        for names, alike in each.comparison.overlaps.items():
            overlap[f"{each.ground.name}: {names[0]} | {names[1]}"] = {k: _number(v) for k, v in vars(alike).items()}
    left_out = {f"{each.ground.name}: {name}": why for each in found for name, why in each.left_out.items()}
    return {"mechanisms": mechanisms, "overlap": overlap, "left_out": left_out, "verdict": verdict(found)}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def verdict(found: Sequence[Compared]) -> str:
    """The answer to the question, in a sentence for each model, and what its answers were too short for."""
    return " ".join(sentence for each in found for sentence in (_answer(each), _cut_off(each)) if sentence)


def _cut_off(each: Compared) -> str:
    """Of how many mechanisms most answers were not finished, if of any: a limit is no inability."""
    table = each.comparison.summary().set_index(["mechanism", "task"])
    names = [mechanism.name for mechanism in each.comparison.mechanisms]
    cut = sum(table.loc[(name, PROBLEMS)]["truncated"] > 0.5 for name in names)
    if not cut:
        return ""
    return (
        f"({each.ground.name}: under {cut} of {len(names)} mechanisms over half of the answers were cut off at "
        f"{each.ground.sizes.most} tokens and count as wrong, so nothing is said of longer ones.)"
    )


def _answer(each: Compared) -> str:
    name = each.ground.name
    table = each.comparison.summary().set_index(["mechanism", "task"])
    helps = [
        m.name
        for m in each.comparison.mechanisms
        if m != DIRECT and m.name != COT.name and table.loc[(m.name, PROBLEMS)]["change_low"] > 0
    ]
    alike = with_cot(each)
    beyond = [other for other in helps if alike[other][1] <= ALPHA]
    chance = [alike[other][0].cosine for other in alike if other.startswith(RANDOM)]
    floor = f"random edits {min(chance):.2f} to {max(chance):.2f}" if chance else "no random edits"
    undone = [u for u in each.parts.undone if u.beyond.low > 0]
    if not helps:
        return f"{name}: no mechanism but the CoT prompt raises accuracy for certain, so there is no switch to compare."
    cosines = [alike[other][0].cosine for other in helps]
    return (
        f"{name}: of {len(helps)} mechanisms beside the CoT prompt that raise accuracy for certain, {len(beyond)} "
        "change features as the CoT prompt does, beyond chance "
        f"(cosine {min(cosines):.2f} to {max(cosines):.2f}; {floor}); "
        f"without the features they share, {len(undone)} of {len(each.parts.undone)} lose more right answers than "
        "without matched ones."
    )


def page(found: Sequence[Compared]) -> Page:
    """All of it, one model after the other."""
    sections: list[Section] = []
    for each in found:
        sections += _sections(each)
    return Page("Do different ways of making a model reason find the same switch?", verdict(found), tuple(sections))


def _sections(each: Compared) -> Iterator[Section]:
    of, parts, n = each.ground.name, each.parts, each.ground.sizes.n
    followed = min(n, each.ground.sizes.n_followed)
    rows = each.comparison.summary().set_index(["mechanism", "task"])
    yield answer_table(each, rows)
    yield cost_table(each, rows)
    yield shorter_table(each)
    yield gain_table(each, rows)
    yield Figure(f"{of}: the same switch?", plot_overlaps(each.comparison.overlaps, n=n), OVERLAP_NOTE)
    yield overlap_table(each)
    yield shared_table(each)
    yield undone_table(each)
    yield opening_table(each)
    through = plot_through_steps(parts.steps, WINDOWS, sorted(each.ground.saes), n=followed)
    yield Figure(f"{of}: when and where", through)
    if parts.weights is not None and parts.moved is not None:
        yield Figure(f"{of}: what the adapter changed", plot_weights(parts.weights, parts.moved, n=n))
    yield form_table(each)
    yield followed_table(each)
    yield length_table(each)
    yield fast_table(each)
    if parts.samples:
        yield Figure(f"{of}: one of k samples", plot_pass_at_k(parts.samples, n=n))
    yield fit_table(each)
    told = tuple(f"{m.name}: {m.describe()}" for m in each.comparison.mechanisms)
    yield Text(f"{of}: the mechanisms", told)
    if each.left_out:
        yield Text(f"{of}: left out", tuple(f"{name}: {why}" for name, why in each.left_out.items()))
