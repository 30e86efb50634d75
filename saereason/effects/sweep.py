"""Many interventions on one trial: what each dose does, and the damage it does elsewhere."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saereason.model import Model
from saereason.runs import Run
from saereason.saes import SAE
from saereason.steering import Intervention, When
from saereason.steering.interventions import check_are_interventions

from .answers import against
from .trial import Trial
from .work import Arm, Work, frame, is_done

CLEAN = "clean"
NOT_MEASURED = {"plain_nats": math.nan, "kl": math.nan, "kl_n": 0}


def doses(
    interventions: Sequence[Intervention], sizes: Sequence[float], whens: Sequence[When] | None = None
) -> list[Intervention]:
    """Every intervention in every size (and at every choice of positions)."""
    places: Sequence[When | None] = [None] if whens is None else whens
    return [each.sized(size, when) for each in interventions for when in places for size in sizes]


@dataclass(frozen=True, eq=False)
class Sweep:
    """What became of every item under every arm; the arm "clean" has no intervention."""

    arms: Mapping[str, Arm]

    answers: Any
    """A pandas table with a row for each arm and item, as `answers` gives it, and the column `arm`."""

    damage: Any
    """A row for each arm: `plain_nats`, mean loss on plain texts, and `kl`, nats at the first edited step, over `kl_n`
    prompts: those whose clean answer is long enough for the edit. NaN where that was not asked for, or none is.
    """

    def of(self, arm: str) -> Any:
        """The rows of one arm."""
        return self.answers[self.answers["arm"] == arm]

    def first_tokens(self, arm: str, n: int = 10) -> list[tuple[int, int]]:
        """The most frequent first tokens of an arm's answers, with how many answers they open (-1: an empty answer)."""
        counts = self.of(arm)["first_token"].value_counts(sort=False)
        return sorted(((int(t), int(c)) for t, c in counts.items()), key=lambda pair: (-pair[1], pair[0]))[:n]

    def summary(self) -> Any:
        """A row for each arm, as a pandas table.

        `accuracy` with Wilson's interval; `change` against the clean run with Tango's, paired by item; shares of
        outcomes; mean length in tokens; the share of answers with another first token; perplexity on plain texts; KL at
        the first edited step, and over how many prompts; firings and mean |change| / |residual| of the edits.
        """
        import pandas as pd

        clean = self.of(CLEAN)
        return pd.DataFrame([self._summary(name, arm, clean) for name, arm in self.arms.items()])

    def _summary(self, name: str, arm: Arm, clean: Any) -> dict[str, Any]:
        table, damage = self.of(name), self.damage.set_index("arm").loc[name]
        return {
            "arm": name,
            "target": " + ".join(_target(each) for each in arm) or CLEAN,
            "size": arm[0].size if len(arm) == 1 else math.nan,
            "when": " + ".join(dict.fromkeys(str(each.when) for each in arm)),
            **against(table, clean),
            "other_first_token": float(np.mean(table["first_token"].to_numpy() != clean["first_token"].to_numpy())),
            "perplexity": math.exp(damage["plain_nats"]),
            "kl": damage["kl"],
            "kl_n": int(damage["kl_n"]),
            "firings": int(table["firings"].iloc[0]),
            "relative_size": float(table["relative_size"].iloc[0]),
        }


def sweep(
    model: Model,
    saes: Mapping[int, SAE] | None,
    trial: Trial,
    interventions: Sequence[Intervention | Arm],
    *,
    plain: Sequence[str] = (),
    run: Run | None = None,
    rows_at_once: int = 96,
    may_be_silent: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sweep:
    """Greedy answers to a trial, clean and under each intervention by itself (a tuple acts together).

    Arms share batches, each steered in its own rows beside the others, and the prompts' key-value cache where no edit
    visits the prompt. With `plain` texts the damage is measured too. With a run each arm is kept as it is done, and a
    sweep that was stopped goes on. Edits that differ by row go by the places of the trial's prompts. Raises ValueError
    for an arm that is given twice, and SilentEditError for one that never fired, unless it `may_be_silent` (its answers
    are then the clean ones, and its firings 0).
    """
    if rows_at_once < 1:
        raise ValueError(f"rows_at_once is {rows_at_once}; it must be at least 1.")
    arms = _named(interventions)
    work = Work(model, saes or {}, trial, tuple(plain), run)
    work.check(arms)
    total, tables, damage = len(arms) * (2 if plain else 1), {}, []
    for group in work.groups(arms, max(1, rows_at_once // len(trial))):
        tables |= work.write(group, rows_at_once, may_be_silent=may_be_silent)
        progress(len(tables), total)
    for name, arm in arms.items():
        damage.append({"arm": name, **(work.damage(arm) if plain else NOT_MEASURED)})
        progress(min(len(arms) + len(damage), total), total)
    return Sweep(arms, _stacked({name: tables[name] for name in arms}), frame(damage))


def sweep_units(
    model: Model,
    saes: Mapping[int, SAE] | None,
    trial: Trial,
    interventions: Sequence[Intervention | Arm],
    *,
    plain: Sequence[str] = (),
    run: Run | None = None,
) -> Any:
    """The work units that `sweep` would do, as a pandas table: `arm`, `work`, `unit` and whether it is `done`."""
    arms = _named(interventions)
    work = Work(model, saes or {}, trial, tuple(plain), run)
    units = [(name, "answers", work.answers_unit(arm)) for name, arm in arms.items()]
    units += [(name, "damage", work.damage_unit(arm)) for name, arm in arms.items() if plain]
    return frame([{"arm": a, "work": w, "unit": u.id, "done": is_done(run, u)} for a, w, u in units])


def _named(interventions: Sequence[Intervention | Arm]) -> dict[str, Arm]:
    """Every arm by what it does and where, the clean one first."""
    found: dict[str, Arm] = {}
    for arm in ((), *(each if isinstance(each, tuple) else (each,) for each in interventions)):
        check_are_interventions(arm)
        name = " + ".join(f"{edit} {edit.when}" for edit in arm) or CLEAN
        if name in found:
            raise ValueError(f"{name} is given twice; give every arm once (and vectors names of their own).")
        found[name] = arm
    return found


def _stacked(tables: Mapping[str, Any]) -> Any:
    import pandas as pd

    return pd.concat([table.assign(arm=name) for name, table in tables.items()], ignore_index=True)


def _target(edit: Intervention) -> str:
    """What an edit acts on, whatever its size."""
    return str(edit) if edit.SIZE is None else re.sub(r", 0(, norm kept)?\)$", r"\1)", str(edit.sized(0.0)))
