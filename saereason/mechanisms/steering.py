"""Mechanisms that steer: any interventions, in force while the model answers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saereason import hooks
from saereason.model import Model, pad
from saereason.saes import SAE
from saereason.steering import AddVector, Divergence, Generated, Intervention, at_kl, steered
from saereason.tasks import Task

from .mechanism import Mechanism, Prompt

COMPRESSED = "compression vector"


@dataclass(frozen=True, eq=False)
class Steered(Mechanism):
    """Interventions in force during the answer to the direct prompt, or (`cot`) to the CoT prompt."""

    name: str
    interventions: tuple[Intervention, ...]
    cot: bool = False

    def __post_init__(self) -> None:
        if not self.interventions:
            raise ValueError(f"{self.name} has no interventions; give at least one.")

    def describe(self) -> str:
        told = ", ".join(f"{each} at {each.when}" for each in self.interventions)
        return f"Asked to {'think step by step' if self.cot else 'answer at once'}, with {told}."

    def instruction(self, task: Task) -> str | None:
        return task.cot if self.cot else task.direct or None

    @contextmanager
    def apply(self, model: Model, saes: Mapping[int, SAE] | None) -> Iterator[Model]:
        with steered(model, saes, *self.interventions):
            yield model


def compression_vector(
    model: Model, short: Sequence[Prompt], long: Sequence[Prompt], layer: int, *, batch_size: int = 16
) -> Float[Tensor, "d_model"]:
    """ASC's direction (arXiv 2507.04742): the mean over pairs of the residual stream at the last token of the short CoT
    less that of the long one, float32.

    Each text is a question with a worked answer. Raises ValueError for lists of different lengths.
    """
    if len(short) != len(long) or not short:
        raise ValueError(f"there are {len(short)} short and {len(long)} long texts; give one of each for every pair.")
    means = [_last(model, texts, layer, batch_size).mean(0) for texts in (short, long)]
    return (means[0] - means[1]).float()


def compression(
    vector: Float[Tensor, "d_model"], layer: int, budget: Divergence, *, nats: float = 0.01
) -> tuple[Steered, float]:
    """ASC as a mechanism: the vector added at decoding steps alone, of the size that moves the next token by `nats`.

    Returns it with the KL measured.
    """
    unit = vector / vector.norm()
    edit, kl = at_kl(budget, {}, lambda size: AddVector(layer, unit, size, Generated(), "compression"), nats)
    return Steered(COMPRESSED, (edit,), cot=True), kl


@torch.no_grad()
def _last(model: Model, texts: Sequence[Prompt], layer: int, batch_size: int) -> Float[Tensor, "text d_model"]:
    """The residual stream at the last token of each text."""
    rows = [model.encode(text) for text in texts]
    found = []
    for start in range(0, len(rows), batch_size):
        batch = pad(rows[start : start + batch_size], pad_token=model.pad_token, device=model.device)
        found.append(hooks.read(model, batch, [layer])[layer][:, -1].double())
    return torch.cat(found)
