"""The pieces of work of a sweep."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from saereason.executors import WorkUnit, inline, result_path, work_unit
from saereason.generate import generate
from saereason.metrics import LogProb, Scored
from saereason.model import Model
from saereason.prefixes import Prefixes
from saereason.runs import Run
from saereason.saes import SAE
from saereason.steering import Divergence, Intervention, OnRows, steered

from .answers import judged
from .trial import Trial

KL_PROMPTS, KL_TOKENS = 32, 8
"""Prompts, and tokens of their clean answers, over which KL is measured."""

GIVEN = 8
"""Tokens of a plain text that are its prompt."""

Arm = tuple[Intervention, ...]


@dataclass(frozen=True, eq=False)
class Work:
    """The pieces of work of a sweep, each done once: an arm's answers, and its damage."""

    model: Model
    saes: Mapping[int, SAE]
    trial: Trial
    plain: tuple[str, ...]
    run: Run | None
    prefixes: Prefixes = field(default_factory=Prefixes)

    def answers_unit(self, arm: Arm) -> WorkUnit:
        return work_unit(self.model, "dose", saes=self.saes, trial=self.trial, edits=arm)

    def damage_unit(self, arm: Arm) -> WorkUnit:
        return work_unit(self.model, "damage", saes=self.saes, trial=self.trial, edits=arm, plain=self.plain)

    def groups(self, arms: Mapping[str, Arm], most: int) -> Iterator[dict[str, Arm]]:
        """Arms to be done together: each that is done, or differs by row, by itself, the others as many as may be."""
        waiting: dict[str, Arm] = {}
        for name, arm in arms.items():
            if any(edit.by_row for edit in arm) or self._is_done(arm):
                yield {name: arm}
            else:
                waiting[name] = arm
            if len(waiting) == most:
                yield waiting
                waiting = {}
        if waiting:
            yield waiting

    def write(self, arms: Mapping[str, Arm], batch_size: int, *, may_be_silent: bool) -> dict[str, Any]:
        """The answer table of each arm, all written in one go where they are not in the run."""
        if all(self._is_done(arm) for arm in arms.values()):
            return {name: self._kept(self.answers_unit, arm, list) for name, arm in arms.items()}
        n = len(self.trial)
        rows = [tuple(range(k * n, (k + 1) * n)) for k in range(len(arms))]
        edits = [_in_rows(edit, these) for these, arm in zip(rows, arms.values(), strict=True) for edit in arm]
        with steered(self.model, self.saes, *edits, may_be_silent=may_be_silent) as steering:
            written = generate(
                self.model,
                self.trial.prompts * len(arms),
                max_new_tokens=self.trial.max_new_tokens,
                batch_size=batch_size,
                prefixes=self.prefixes,
            )
        fired, found = iter(steering.receipt.edits), {}
        for k, (name, arm) in enumerate(arms.items()):
            table = judged(self.trial, written, [next(fired) for _ in arm], k * n)
            found[name] = self._kept(self.answers_unit, arm, lambda table=table: table)
        return found

    def damage(self, arm: Arm) -> dict[str, float]:
        """Mean loss on the plain texts, and KL at the first edited step, in nats, over the prompts that it reaches."""

        def compute() -> list[dict[str, Any]]:
            with steered(self.model, self.saes, *arm, may_be_silent=True):
                nats = -float(self._loss(self.model).mean())
            none = np.zeros(len(self.trial.prompts[:KL_PROMPTS]))
            kl = self._divergence.first(self.saes, arm) if arm else none
            kl = kl[~np.isnan(kl)]
            return [{"plain_nats": nats, "kl": float(kl.mean()) if len(kl) else math.nan, "kl_n": len(kl)}]

        return self._kept(self.damage_unit, arm, compute).to_dict("records")[0]

    def check(self, arms: Mapping[str, Arm]) -> None:
        """Raises ValueError for plain texts that cannot be read, or not under an arm, before anything is written."""
        if not self.plain:
            return
        _ = self._loss
        apart = next((edit for arm in arms.values() for edit in arm if edit.by_row), None)
        if apart is not None:
            raise ValueError(f"{apart} differs by the row of a prompt, and plain texts have none; leave `plain` out.")

    def _is_done(self, arm: Arm) -> bool:
        return self.run is not None and is_done(self.run, self.answers_unit(arm))

    def _kept(self, unit: Callable[[Arm], WorkUnit], arm: Arm, compute: Callable[[], list[dict[str, Any]]]) -> Any:
        """The table of an arm's unit: computed where there is no run, else once for the run."""
        if self.run is None:
            return frame(compute())
        [(_, table)] = inline(self.run, [unit(arm)], lambda unit: compute())
        return table

    @cached_property
    def _divergence(self) -> Divergence:
        prompts = self.trial.prompts[:KL_PROMPTS]
        said = generate(self.model, prompts, max_new_tokens=KL_TOKENS, prefixes=self.prefixes)
        return Divergence.over(self.model, prompts, said.tokens)

    @cached_property
    def _loss(self) -> LogProb:
        rows = [self.model.encode(text) for text in self.plain]
        short = [n for n, row in enumerate(rows) if len(row) <= GIVEN]
        if short:
            raise ValueError(f"plain text {short[0]} has {len(rows[short[0]])} tokens; give more than {GIVEN}.")
        items = (Scored(tuple(row[:GIVEN]), tuple(row[GIVEN:]), (True,) * (len(row) - GIVEN)) for row in rows)
        return LogProb(tuple(items))


def is_done(run: Run | None, unit: WorkUnit) -> bool:
    return run is not None and result_path(run, unit).is_file()


def _in_rows(edit: Intervention, rows: tuple[int, ...]) -> Intervention:
    changed: Any = edit
    return replace(changed, when=OnRows(rows, when=edit.when))


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)
