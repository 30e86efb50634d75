"""What every step of the demo needs at hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from saereason.executors import inline, work_unit
from saereason.model import Model
from saereason.prefixes import Prefixes
from saereason.progress import Steps
from saereason.runs import Run
from saereason.saes import SAE, hashes

from .settings import Settings


@dataclass(frozen=True, eq=False)
class Stage:
    """The run, the model under study and its SAEs."""

    settings: Settings
    run: Run
    steps: Steps
    model: Model
    saes: Mapping[int, SAE]
    prefixes: Prefixes = field(default_factory=Prefixes)

    @cached_property
    def hashes(self) -> tuple[tuple[int, str], ...]:
        """Hash of each SAE, by layer."""
        return tuple(hashes(self.saes))

    def table(self, name: str, compute: Callable[[], list[dict[str, Any]]], **arguments: Any) -> Any:
        """The rows of one piece of work as a pandas table, computed or read from the run."""
        unit = replace(work_unit(self.model, name, **arguments), saes=self.hashes)
        [(_, table)] = inline(self.run, [unit], lambda unit: compute())
        return table
