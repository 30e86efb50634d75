"""What teaching did: word problems asked in both ways, and whether the capitals are still known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from saereason.effects import Trial, accuracy, answers, right
from saereason.model import Model
from saereason.runs import write_json, write_text
from saereason.stats import Estimate, paired_difference
from saereason.tasks import COT, DIRECT, HELD_OUT, TAUGHT, Task, country_facts, problems, word_problems

N_PROBLEMS = 100


def capitals(model: Model, progress: Callable[[int, int], None] = lambda done, total: None) -> list[dict[str, Any]]:
    """Answers to the capital of every country, plainly asked."""
    return answers(model, None, Trial.of(model, country_facts("capital"), max_new_tokens=24), progress=progress)


def examine(
    base: Model, taught: Model, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """The card of a taught model: accuracy on 200 problems it never saw, and capitals against its base.

    A hundred problems are new numbers for taught templates, a hundred come from the four templates held out.
    """
    import pandas as pd

    card: dict[str, Any] = {"n_problems": 2 * N_PROBLEMS}
    both: dict[str, list[Any]] = {"cot": [], "direct": []}
    done, total = 0, 6
    for name, templates in (("taught_templates", TAUGHT), ("held_out_templates", HELD_OUT)):
        task: Task = word_problems(problems(N_PROBLEMS, seed=99, split="confirmation", templates=templates))
        for way, instruction in (("cot", task.cot), ("direct", task.direct)):
            table = pd.DataFrame(answers(taught, None, Trial.of(taught, task, instruction)))
            both[way].append(table)
            card[f"{name}_{way}"] = _said(accuracy(table))
            progress(done := done + 1, total)
    for way, tables in both.items():
        card[way] = _said(accuracy(pd.concat(tables)))
    known = [pd.DataFrame(capitals(model)) for model in (base, taught)]
    progress(total, total)
    card["capitals"] = knowledge(known[0], known[1])
    return card


def write_card(folder: Path, base: Model, taught: Model, **options: Any) -> dict[str, Any]:
    """Examine, and write what was found into the adapter's folder as `card.json`."""
    card = examine(base, taught, **options)
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf8"))
    recipe.pop("base_hash")  # the card has it by itself
    size = (folder / "adapter_model.safetensors").stat().st_size
    card = {"base": base.name, "base_hash": base.hash, "hash": taught.hash, "bytes": size, "recipe": recipe, **card}
    write_json(folder / "card.json", card)
    write_text(folder / "README.md", readme(card))
    return card


def readme(card: dict[str, Any]) -> str:
    """The card for people to read."""

    def said(value: dict[str, float]) -> str:
        return f"{value['value']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"

    recipe, known = card["recipe"], card["capitals"]
    ways = [("new numbers, taught templates", "taught_templates"), ("held-out templates", "held_out_templates")]
    rows = [f"| {name} | {said(card[f'{key}_cot'])} | {said(card[f'{key}_direct'])} |" for name, key in ways]
    return "\n".join(
        [
            f"# A taught switch for {card['base']}",
            "",
            f"A LoRA adapter (rank {recipe['rank']}, every linear layer, bfloat16, {card['bytes'] / 1e6:.2f} MB), "
            f"trained by `saereason teach` on {recipe['n_problems']:,} generated word problems of two and three steps: "
            "half answered in "
            f'steps under "{COT}", half with a bare number under "{DIRECT}". {recipe["n_drills"]:,} lessons of '
            f"{recipe['sums_per_drill']} bare sums, of which only the results are learnt, and {recipe['n_replayed']} "
            "of the base's own answers to questions about countries (their capitals not among them) were mixed in.",
            "",
            f"On {card['n_problems']} problems that training did not hold, greedy, with 95% Wilson intervals:",
            "",
            "| problems | step by step | direct |",
            "|---|---|---|",
            *rows,
            f"| all | {said(card['cot'])} | {said(card['direct'])} |",
            "",
            f"All {known['n']} capitals, plainly asked: base {known['base']:.1%}, with the adapter "
            f"{known['taught']:.1%}; paired difference {said(known['difference'])} (Tango's interval).",
            "",
            "The held-out templates are new stories over patterns of operations that training has seen. The switch was "
            "taught: a positive control for tools that look for one, not a discovery about language models.",
            "",
            f"Recipe: `{json.dumps(recipe)}`. Weights of the base: `{card['base_hash']}`, with the adapter merged: "
            f"`{card['hash']}` (SHA-256 of settings and weights, rounded to bfloat16, its first 16 digits). "
            "Licence: Apache-2.0, as the base's.",
            "",
        ]
    )


def knowledge(base: Any, taught: Any) -> dict[str, Any]:
    """Capitals known by base and taught model, and their paired difference with its interval."""
    before, after = right(base), right(taught)
    return {
        "n": len(before),
        "base": round(float(np.mean(before)), 4),
        "taught": round(float(np.mean(after)), 4),
        "difference": _said(paired_difference(after, before)),
    }


def _said(estimate: Estimate) -> dict[str, float]:
    return {"value": round(estimate.value, 4), "low": round(estimate.low, 4), "high": round(estimate.high, 4)}
