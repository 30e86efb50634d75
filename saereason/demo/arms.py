"""The arms of the steering experiment, each measured on the same confirmation problems."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saereason.controls import matched_features, random_directions
from saereason.effects import Trial, accuracy, answers, right, share_of
from saereason.steering import Add, AddVector, Intervention, LastPromptToken
from saereason.tasks import Outcome, Task

from .choose import Choice
from .stage import Stage


@dataclass(frozen=True)
class Arm:
    """One way of asking."""

    name: str
    instruction: str
    interventions: tuple[Intervention, ...] = ()
    forced: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, eq=False)
class Arms:
    """Answer tables by arm; the random arms have one a draw."""

    tables: dict[str, Any]
    draws: dict[str, list[Any]]
    prefix: int
    """Token id of the forced prefix: discovery's most frequent first token under steering."""

    prefix_text: str
    crossed: dict[tuple[bool, str], Any] = field(default_factory=dict)
    """The 2×2: edit on or off × first token forced to the clean or to the steered one.

    Items with an empty answer, clean or steered, have no first token to force and are left out of all four.
    """

    def accuracies(self) -> dict[str, float]:
        """Share of right answers by arm, the mean over draws for the random ones."""
        single = {name: accuracy(table).value for name, table in self.tables.items()}
        return single | {name: float(np.mean([right(t).mean() for t in tables])) for name, tables in self.draws.items()}


def measure_arms(stage: Stage, discovery: Task, task: Task, choice: Choice) -> Arms:
    """Direct, CoT, the feature, its random controls, DiffMean of the same norm, the forced prefix, and the 2×2."""
    model, edit, size = stage.model, choice.intervention, abs(choice.coefficient)
    once = LastPromptToken()
    n, seed = stage.settings.sizes.n_draws, stage.settings.seed
    prefix = _most_frequent_opening(stage, discovery, edit)
    unit = choice.direction / choice.direction.norm()
    singles = [
        Arm("direct", task.direct),
        Arm("cot", task.cot),
        Arm("feature", task.direct, (edit,)),
        Arm("diffmean", task.direct, (AddVector(edit.layer, size * unit, 1.0, once, "DiffMean"),)),
        Arm("forced_prefix", task.direct, forced=((prefix,),) * len(task)),
    ]
    chance = {
        "random_feature": [
            Arm(str(f), task.direct, (Add(f, choice.coefficient, once),))
            for f in matched_features(choice.table, stage.saes, choice.feature, n, seed=seed)
        ],
        "random_direction": [
            Arm(f"direction {k}", task.direct, (AddVector(edit.layer, v, 1.0, once, f"random {k}"),))
            for k, v in enumerate(random_directions(model.d_model, n, norm=size, seed=seed))
        ],
    }
    total = len(singles) + 2 * n + 2
    with stage.steps.step("steer and measure the arms") as show:
        done = 0

        def run(arm: Arm) -> Any:
            nonlocal done
            table = _measure(stage, task, arm)
            show(done := done + 1, total)
            return table

        tables = {arm.name: run(arm) for arm in singles}
        crossed = {
            (False, "clean"): tables["direct"],
            (True, "steered"): tables["feature"],
            (False, "steered"): run(Arm("off, steered token", task.direct, (), _opening(tables["feature"]))),
            (True, "clean"): run(Arm("on, clean token", task.direct, (edit,), _opening(tables["direct"]))),
        }
        there = (tables["direct"]["first_token"] >= 0) & (tables["feature"]["first_token"] >= 0)
        crossed = {cell: table[there] for cell, table in crossed.items()}
        draws = {name: [run(arm) for arm in arms] for name, arms in chance.items()}
    return Arms(tables, draws, prefix, model.tokenizer.decode([prefix]), crossed)


def failures(table: Any) -> dict[str, float]:
    """Shares of the outcomes that are neither right nor wrong."""
    return {o.value: share_of(table, o) for o in (Outcome.UNPARSABLE, Outcome.TRUNCATED, Outcome.LOOPING)}


def _measure(stage: Stage, task: Task, arm: Arm) -> Any:
    size = stage.settings.sizes.max_new_tokens

    def compute() -> list[dict[str, Any]]:
        return answers(
            stage.model,
            stage.saes,
            Trial.of(stage.model, task, arm.instruction, max_new_tokens=size),
            interventions=arm.interventions,
            forced=arm.forced,
            prefixes=stage.prefixes,
        )

    return stage.table(
        "arm", compute, task=task, asked=arm.instruction, edits=arm.interventions, forced=arm.forced, tokens=size
    )


def _opening(table: Any) -> tuple[tuple[int, ...], ...]:
    """Each row's first token, to be forced elsewhere; none where the answer was empty."""
    return tuple((int(token),) if token >= 0 else () for token in table["first_token"])


def _most_frequent_opening(stage: Stage, discovery: Task, edit: Intervention) -> int:
    def compute() -> list[dict[str, Any]]:
        trial = Trial.of(stage.model, discovery, discovery.direct, max_new_tokens=1)
        return answers(stage.model, stage.saes, trial, interventions=[edit])

    table = stage.table("opening", compute, task=discovery, edit=edit)
    return most_frequent([int(token) for token in table["first_token"] if token >= 0])


def most_frequent(tokens: Sequence[int]) -> int:
    """The commonest token, the first to appear among equals."""
    if not tokens:
        raise ValueError("no steered answer on the discovery split has a first token; choose a smaller coefficient.")
    return Counter(tokens).most_common(1)[0][0]
