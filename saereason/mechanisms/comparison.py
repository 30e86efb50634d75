"""Every mechanism on the same items, in one feature space: do they find the same switch?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from saereason.effects import Gain, Thoughts, Trial, against, right
from saereason.executors import inline, work_unit
from saereason.model import Model
from saereason.runs import Run
from saereason.saes import SAE
from saereason.stats import mean_interval
from saereason.tasks import Task

from .asking import Direct
from .fingerprints import States, states
from .mechanism import Mechanism, Progress, Written, answer_rows, elicit, unseen
from .overlaps import Overlap, overlaps

DIRECT = Direct()


@dataclass(frozen=True, eq=False)
class Comparison:
    """What became of every item under every mechanism, `direct` first."""

    mechanisms: tuple[Mechanism, ...]
    tasks: Mapping[str, Task]

    answers: Any
    """A pandas table with a row for each mechanism, task and item, as `answer_rows` gives it, with these two named."""

    written: Mapping[str, Written]
    """What each mechanism wrote in answer to the first task."""

    gains: Mapping[str, Gain]
    """Of each mechanism's answers to the first task, taken for thoughts; measured on the model as it is."""

    states: Mapping[str, States]
    """Of each mechanism on the first task."""

    overlaps: Mapping[tuple[str, str], Overlap]
    """Of every two mechanisms but the direct one."""

    def of(self, mechanism: str, task: str | None = None) -> Any:
        """The rows of one mechanism, on one task or the first."""
        chosen = next(iter(self.tasks)) if task is None else task
        return self.answers[(self.answers["mechanism"] == mechanism) & (self.answers["task"] == chosen)]

    def summary(self) -> Any:
        """A row for each mechanism and task that it was asked, as a pandas table.

        `accuracy` with Wilson's interval; `change` against the direct prompt with Tango's, paired by item; shares of
        outcomes; mean tokens of the answer and in all; on the first task the gains in nats per answer token, with
        bootstrap intervals over items that fit the context; for a mechanism that checks itself the share of answers
        that pass, and how many of those are right.
        """
        import pandas as pd

        asked = {(name, task) for name, task in zip(self.answers["mechanism"], self.answers["task"], strict=True)}
        pairs = [(mechanism.name, task) for mechanism in self.mechanisms for task in self.tasks]
        rows = [self._row(*pair) for pair in pairs if pair in asked]
        return pd.DataFrame(rows)

    def _row(self, name: str, task: str) -> dict[str, Any]:
        table, clean = self.of(name, task), self.of(DIRECT.name, task)
        return {
            "mechanism": name,
            "task": task,
            **against(table, clean),
            "spent": table["spent"].mean(),
            **self._gains(name, task),
            **_checked(table),
        }

    def _gains(self, name: str, task: str) -> dict[str, float]:
        gain = self.gains.get(name) if task == next(iter(self.tasks)) else None
        found = {}
        for which in ("own", "masked", "other"):
            values = np.zeros(0) if gain is None else getattr(gain, which)
            values = values[np.isfinite(values)]
            each = mean_interval(values) if len(values) > 1 else None
            ends = (np.nan,) * 3 if each is None else (each.value, each.low, each.high)
            found |= dict(zip((f"gain_{which}", f"gain_{which}_low", f"gain_{which}_high"), ends, strict=True))
        return found


def compare(
    model: Model,
    saes: Mapping[int, SAE],
    mechanisms: Sequence[Mechanism],
    tasks: Mapping[str, Task],
    *,
    run: Run,
    fewer: Sequence[Mechanism] = (),
    max_new_tokens: int = 96,
    batch_size: int = 100,
    n_orders: int = 500,
    progress: Progress = unseen,
) -> Comparison:
    """Let every mechanism, and the direct prompt, answer every task, and compare what each changes inside.

    Those of `fewer` too, but of the tasks beyond the first they are asked those of knowledge alone. Answers and gains
    are kept in the run and not computed again. Gains, states and overlaps are of the first task. Raises ValueError for
    two mechanisms of one name, and without a task.
    """
    every = _each_once(mechanisms, fewer, tasks)
    asked = _Asked(model, saes, tasks, run, max_new_tokens, batch_size)
    tables, gains, fingerprints, written = [], {}, {}, {}
    for done, mechanism in enumerate(every, 1):
        name = mechanism.name
        rows, written[name], gains[name] = asked.of(mechanism, some=mechanism in fewer)
        tables += rows
        fingerprints[name] = states(model, saes, mechanism, written[name])
        progress(done, len(every))
    others = {name: found for name, found in fingerprints.items() if name != DIRECT.name}
    alike = overlaps(fingerprints[DIRECT.name], others, n_orders=n_orders) if len(others) > 1 else {}
    import pandas as pd

    answers = pd.concat(tables, ignore_index=True)
    return Comparison(every, dict(tasks), answers, written, gains, fingerprints, alike)


def answer_ahead(
    model: Model,
    saes: Mapping[int, SAE],
    mechanisms: Sequence[Mechanism],
    tasks: Mapping[str, Task],
    *,
    run: Run,
    fewer: Sequence[Mechanism] = (),
    max_new_tokens: int = 96,
    batch_size: int = 100,
    progress: Progress = unseen,
) -> None:
    """Let the mechanisms answer as `compare` does, the last first: what it finds in the run it need not compute.

    For a second worker, with a model and SAEs of its own, beside one that compares the same on the same run.
    """
    every = _each_once(mechanisms, fewer, tasks)
    asked = _Asked(model, saes, tasks, run, max_new_tokens, batch_size)
    for done, mechanism in enumerate(reversed(every), 1):
        asked.of(mechanism, some=mechanism in fewer)
        progress(done, len(every))


def _each_once(
    mechanisms: Sequence[Mechanism], fewer: Sequence[Mechanism], tasks: Mapping[str, Task]
) -> tuple[Mechanism, ...]:
    """All of them, the direct prompt first. Raises ValueError for two of one name, and without a task."""
    every = (DIRECT, *(each for each in (*mechanisms, *fewer) if each != DIRECT))
    names = [each.name for each in every]
    if len(set(names)) < len(names) or not tasks:
        raise ValueError(
            f"the mechanisms are {names} and the tasks {list(tasks)}; give each once, and a task at least."
        )
    return every


@dataclass(frozen=True, eq=False)
class _Asked:
    """Tasks that mechanisms are asked; what was answered is kept in the run."""

    model: Model
    saes: Mapping[int, SAE]
    tasks: Mapping[str, Task]
    run: Run
    max_new_tokens: int
    batch_size: int

    @cached_property
    def first(self) -> str:
        return next(iter(self.tasks))

    @cached_property
    def thoughts(self) -> Thoughts:
        return Thoughts(self.model, self.tasks[self.first], self.tasks[self.first].cot)

    def of(self, mechanism: Mechanism, *, some: bool) -> tuple[list[Any], Written, Gain]:
        """A mechanism's rows, task by task, what it wrote in answer to the first, and what that gains as a thought.

        `some` of the tasks are the first and those of knowledge.
        """
        rows, found = [], None
        tasks = {n: t for n, t in self.tasks.items() if not some or n == self.first or t.kind == "knowledge"}
        for joined, parts in together(tasks):
            options = {"max_new_tokens": self.max_new_tokens, "batch_size": self.batch_size}
            table, written = kept_answers(self.model, self.saes, mechanism, joined, self.run, **options)
            rows += [table[part].assign(mechanism=mechanism.name, task=name) for name, part in parts.items()]
            if self.first in parts:
                found = written.part(parts[self.first])
        assert found is not None
        return rows, found, _kept_gains(self.thoughts, mechanism, found.texts, self.run)


def together(tasks: Mapping[str, Task]) -> list[tuple[Task, dict[str, slice]]]:
    """Tasks that are asked in the same way as one, for one pass over all their items; and each task's part of it."""
    groups: dict[Any, list[str]] = {}
    for name, task in tasks.items():
        groups.setdefault((task.direct, task.cot, task.system, task.chat), []).append(name)
    found = []
    for names in groups.values():
        items = [item for name in names for item in tasks[name].items]
        if len({item.id for item in items}) < len(items):  # an item of two tasks has two answers
            found += [(tasks[name], {name: slice(len(tasks[name]))}) for name in names]
            continue
        ends = np.cumsum([len(tasks[name]) for name in names]).tolist()
        parts = {name: slice(end - len(tasks[name]), end) for name, end in zip(names, ends, strict=True)}
        found.append((replace(tasks[names[0]], name=", ".join(names), items=tuple(items)), parts))
    return found


def kept_answers(
    model: Model,
    saes: Mapping[int, SAE],
    mechanism: Mechanism,
    task: Task,
    run: Run,
    *,
    max_new_tokens: int = 96,
    batch_size: int = 100,
) -> tuple[Any, Written]:
    """A mechanism's answers to a task as `answer_rows` has them, and what it wrote; read from the run once computed."""

    def compute() -> list[dict[str, Any]]:
        found = elicit(model, saes, mechanism, task, max_new_tokens=max_new_tokens, batch_size=batch_size)
        rows = answer_rows(Trial.of(model, task, max_new_tokens=max_new_tokens), found)
        also = zip(found.prompts, found.tokens, found.finished, strict=True)
        return [
            {**row, "prompt": list(prompt), "tokens": list(tokens), "finished": finished}
            for row, (prompt, tokens, finished) in zip(rows, also, strict=True)
        ]

    unit = work_unit(model, "mechanism", saes=saes, mechanism=mechanism, task=task, most=max_new_tokens)
    [(_, table)] = inline(run, [unit], lambda _: compute())
    prompts, tokens = (tuple(tuple(map(int, row)) for row in table[name]) for name in ("prompt", "tokens"))
    checks = tuple(None if check is None else bool(check) for check in table["consistent"].astype(object))
    found = Written(
        prompts,
        tuple(table["text"]),
        tokens,
        tuple(table["finished"]),
        tuple(table["spent"]),
        checks if table["consistent"].notna().any() else None,
    )
    return table.drop(columns=["prompt", "tokens", "finished"]), found


def _kept_gains(scored: Thoughts, mechanism: Mechanism, thoughts: Sequence[str], run: Run) -> Gain:
    """Of a mechanism's answers taken for thoughts, on the model as it is."""

    def compute() -> list[dict[str, float]]:
        gain = scored.gain(thoughts)
        columns = zip(gain.own, gain.masked, gain.other, strict=True)
        return [{"own": own, "masked": masked, "other": other} for own, masked, other in columns]

    unit = work_unit(scored.model, "information gain", mechanism=mechanism, task=scored.task, thoughts=list(thoughts))
    [(_, table)] = inline(run, [unit], lambda _: compute())
    return Gain(*(table[name].to_numpy(dtype=np.float64) for name in ("own", "masked", "other")))


def _checked(table: Any) -> dict[str, float]:
    """Of the answers that a mechanism checked: the share that passed, and how many of these are right."""
    checked = table["consistent"].notna()
    passed = table["consistent"] == True  # noqa: E712
    return {
        "consistent": float(passed[checked].mean()) if checked.any() else np.nan,
        "right_if_consistent": float(right(table[passed]).mean()) if passed.any() else np.nan,
    }
