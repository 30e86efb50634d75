"""An adapter as a mechanism: the model with trained weights merged, asked at once or in steps."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from saereason.model import Model
from saereason.preflight import Fit, preflight
from saereason.saes import SAE
from saereason.tasks import Task

from .mechanism import Mechanism


@dataclass(frozen=True, eq=False)
class Adapted(Mechanism):
    """Another model of the same architecture answers: the base with a PEFT adapter merged, or a checkpoint.

    Load it as any model, such as `load_model("smollm2-135m", adapter="taught")`.
    """

    name: str
    changed: Model
    cot: bool = False

    def describe(self) -> str:
        return f"{self.changed.name} with {self.changed.adapter or 'other weights'}, asked " + (
            "to think step by step." if self.cot else "to answer at once."
        )

    def instruction(self, task: Task) -> str | None:
        return task.cot if self.cot else task.direct or None

    @contextmanager
    def apply(self, model: Model, saes: Mapping[int, SAE] | None) -> Iterator[Model]:  # noqa: ARG002
        if (self.changed.n_layers, self.changed.d_model, self.changed.d_vocab) != (
            model.n_layers,
            model.d_model,
            model.d_vocab,
        ):
            raise ValueError(
                f"{self.name} has {self.changed.n_layers} layers of {self.changed.d_model}; {model.name} has "
                f"{model.n_layers} of {model.d_model}. Give a checkpoint of the same architecture."
            )
        yield self.changed

    def fit(self, saes: Mapping[int, SAE]) -> list[Fit]:
        """How the base's SAEs serve here; warns of those that no longer fit, whose features then mean little."""
        found = preflight(self.changed, saes, strict=False)
        wrong = [each.layer for each in found if not each.fits]
        if wrong:
            warnings.warn(f"the base's SAEs at layers {wrong} no longer fit {self.name}.", UserWarning, stacklevel=2)
        return found
