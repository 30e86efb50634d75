"""What a model writes in a trial under interventions, judged item by item."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from saereason.generate import Generation, generate
from saereason.model import Model
from saereason.prefixes import Prefixes
from saereason.receipts import Firing
from saereason.saes import SAE
from saereason.stats import Estimate, paired_difference, wilson
from saereason.steering import Intervention, steered
from saereason.tasks import Outcome

from .trial import Trial


def answers(
    model: Model,
    saes: Mapping[int, SAE] | None,
    trial: Trial,
    *,
    interventions: Sequence[Intervention] = (),
    forced: Sequence[Sequence[int]] | None = None,
    batch_size: int = 100,
    prefixes: Prefixes | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Greedy answers, a row an item: `item`, `text`, `outcome`, `n_tokens`, `first_token`, and of the edits `firings`
    (all rows together) and `relative_size`.
    """
    with steered(model, saes, *interventions):
        written = generate(
            model,
            trial.prompts,
            max_new_tokens=trial.max_new_tokens,
            forced=forced,
            batch_size=batch_size,
            prefixes=prefixes,
            progress=progress,
        )
    return judged(trial, written, written.receipt.edits)


def judged(trial: Trial, written: Generation, edits: Sequence[Firing], start: int = 0) -> list[dict[str, Any]]:
    """The rows of a trial's answer table; its answers begin at number `start` of what was written."""
    these = slice(start, start + len(trial))
    firings, size = sum(edit.firings for edit in edits), max((edit.relative_size for edit in edits), default=0.0)
    return [
        {
            "item": id_,
            "text": text,
            "outcome": trial.judge(n, text, tokens, finished=finished).value,
            "n_tokens": len(tokens),
            "first_token": tokens[0] if tokens else -1,
            "firings": firings,
            "relative_size": size,
        }
        for n, (id_, text, tokens, finished) in enumerate(
            zip(trial.ids, written.texts[these], written.tokens[these], written.finished[these], strict=True)
        )
    ]


def right(table: Any) -> np.ndarray:
    """Which rows of an answer table are right, as booleans."""
    return (table["outcome"] == Outcome.RIGHT.value).to_numpy()


def accuracy(table: Any) -> Estimate:
    """Share of right answers with its Wilson interval; every other outcome counts against it."""
    return wilson(int(right(table).sum()), len(table))


def share_of(table: Any, *outcomes: Outcome) -> float:
    """Share of rows with one of some outcomes."""
    return float(table["outcome"].isin([outcome.value for outcome in outcomes]).mean())


def against(table: Any, clean: Any) -> dict[str, Any]:
    """What became of one arm's answers, as columns of a summary.

    `n`; `accuracy` with Wilson's interval; `change` against the clean arm's answers to the same items in order,
    with Tango's; shares of the other outcomes; mean `tokens`.
    """
    share, change = accuracy(table), paired_difference(right(table), right(clean))
    return {
        "n": len(table),
        "accuracy": share.value,
        "accuracy_low": share.low,
        "accuracy_high": share.high,
        "change": change.value,
        "change_low": change.low,
        "change_high": change.high,
        **{outcome.value: share_of(table, outcome) for outcome in Outcome if outcome is not Outcome.RIGHT},
        "tokens": float(table["n_tokens"].mean()),
    }
