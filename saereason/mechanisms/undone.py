"""The causal test of a shared feature: does taking it out undo the mechanism, more than taking out others like it?"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from saereason.features import Feature
from saereason.model import Model
from saereason.saes import SAE
from saereason.steering import Clamp, steered
from saereason.tasks import Task

from .mechanism import Mechanism, Progress, Written


@dataclass(frozen=True, eq=False)
class Without(Mechanism):
    """A mechanism with some features held at zero everywhere."""

    mechanism: Mechanism
    features: tuple[Feature, ...]
    what: str = ""

    def __post_init__(self) -> None:
        if not self.features:
            raise ValueError(f"no features are to be taken out of {self.mechanism.name}; give at least one.")

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return f"{self.mechanism.name} without {self.what or ', '.join(map(str, self.features))}"

    def describe(self) -> str:
        return f"{self.mechanism.describe()} Held at zero: {', '.join(map(str, self.features))}."

    def instruction(self, task: Task) -> str | None:
        return self.mechanism.instruction(task)

    @contextmanager
    def apply(self, model: Model, saes: Mapping[int, SAE] | None) -> Iterator[Model]:
        clamps = [Clamp(feature, 0.0) for feature in self.features]
        with self.mechanism.apply(model, saes) as changed, steered(changed, saes, *clamps):
            yield changed

    def write(self, model: Model, task: Task, *, max_new_tokens: int, batch_size: int, progress: Progress) -> Written:
        return self.mechanism.write(
            model, task, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress
        )
