"""A model under study, with what all parts of the suite are done on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from saereason.executors import inline, work_unit
from saereason.mechanisms import Mechanism, Written, kept_answers
from saereason.model import Model
from saereason.progress import Steps
from saereason.runs import Run
from saereason.saes import SAE
from saereason.tasks import (
    HELD_OUT,
    LONGER,
    OTHER_OPERATIONS,
    TAUGHT,
    Task,
    country_facts,
    discovery_task,
    problems,
    word_problems,
)

from .sizes import Sizes

PROBLEMS, FORMS, LONG, OTHER, KNOWN = "problems", "other stories", "longer chains", "other operations", "capitals"
STORIES = {PROBLEMS: TAUGHT, FORMS: HELD_OUT, LONG: LONGER, OTHER: OTHER_OPERATIONS}
CITY = "Answer with only the name of the city."


@dataclass(frozen=True, eq=False)
class Ground:
    """One model, its SAEs, and the run that keeps what was computed."""

    name: str
    model: Model
    saes: Mapping[int, SAE]
    run: Run
    bars: Steps
    sizes: Sizes
    seed: int = 0

    changed: Model | None = None
    """The same model with an adapter, as one more mechanism."""

    @cached_property
    def discovery(self) -> Task:
        """Problems to choose on; none is among those that are reported on."""
        return discovery_task(None, n=self.sizes.n_discovery, seed=self.seed)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """What is reported on: problems as training may have seen them, three kinds beyond that, and facts."""
        n, seed = self.sizes.n, self.seed
        found = {
            name: word_problems(problems(n, seed=seed, split="confirmation", templates=stories), name=name)
            for name, stories in STORIES.items()
        }
        facts = country_facts("capital")
        spread = tuple(facts.items[place * len(facts) // n] for place in range(n))
        return {**found, KNOWN: replace(facts, items=spread, direct=CITY)}

    def answers(self, mechanism: Mechanism, task: Task) -> tuple[Any, Written]:
        """A mechanism's answers to a task, computed or read from the run."""
        return kept_answers(self.model, self.saes, mechanism, task, self.run, max_new_tokens=self.sizes.most)

    def kept(self, name: str, compute: Callable[[], list[dict[str, Any]]], **arguments: Any) -> Any:
        """The rows of one piece of work as a pandas table, computed or read from the run."""
        unit = work_unit(self.model, name, saes=self.saes, **arguments)
        [(_, table)] = inline(self.run, [unit], lambda _: compute())
        return table
