"""What can be done to one layer at a time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from saereason import hooks
from saereason.metrics import Scored, log_probs
from saereason.model import Model, Rendered
from saereason.saes import SAE
from saereason.steering import Intervention, MeanBlock, ScaleBlock, Splice, mean_contributions, steered

ATTENTION, MLP = ("self_attn", "attn", "attention"), ("mlp", "feed_forward")
"""What families of models call the two parts of a block."""

ROWS_OF_A_GRAPH = 8
"""Items whose activations are kept at once for a backward pass."""

Values = Float[Tensor, "item"]


@runtime_checkable
class Operator(Protocol):
    """A change of one layer. Frozen dataclasses, whose fields name results on disk."""

    @property
    def name(self) -> str: ...

    def layers(self, model: Model, saes: Mapping[int, SAE]) -> Sequence[int]:
        """At which layers it can act."""
        ...

    def measure(
        self, model: Model, saes: Mapping[int, SAE], items: Sequence[Scored], layers: Sequence[int]
    ) -> tuple[Values, dict[int, Values]]:
        """The clean metric of each item, and the metric with each of the layers changed."""
        ...


class OneByOne:
    """Operators that change one layer of a pass, and leave what is before it as it was."""

    @property
    def name(self) -> str:
        raise NotImplementedError

    def acting(self, model: Model, saes: Mapping[int, SAE], layer: int) -> AbstractContextManager[Any]:
        """Within the block, the model runs with this layer changed."""
        raise NotImplementedError

    @torch.no_grad()
    def measure(
        self, model: Model, saes: Mapping[int, SAE], items: Sequence[Scored], layers: Sequence[int]
    ) -> tuple[Values, dict[int, Values]]:
        """One clean pass, whose residual streams are kept, and for each layer one that resumes before it."""
        found = {}
        with hooks.reading(model, sorted({layer - 1 for layer in layers} - {-1})) as resid:
            clean = log_probs(model, items)
        for layer in layers:
            start = hooks.resumed(model, layer - 1, resid[layer - 1]) if layer else nullcontext()
            with start, self.acting(model, saes, layer):
                found[layer] = log_probs(model, items)
        return clean, found


class ByIntervention(OneByOne):
    """Operators that are one intervention a layer."""

    def intervention(self, layer: int) -> Intervention:
        raise NotImplementedError

    def layers(self, model: Model, saes: Mapping[int, SAE]) -> Sequence[int]:  # noqa: ARG002
        return range(model.n_layers)

    def acting(self, model: Model, saes: Mapping[int, SAE], layer: int) -> AbstractContextManager[Any]:
        return steered(model, saes, self.intervention(layer))


@dataclass(frozen=True)
class SkipBlock(ByIntervention):
    """The contribution of a block, attention and MLP, is scaled by `factor`; 0 skips it."""

    factor: float = 0.0

    @property
    def name(self) -> str:
        return "skip block" if self.factor == 0 else f"block × {self.factor:g}"

    def intervention(self, layer: int) -> Intervention:
        return ScaleBlock(layer, self.factor)


@dataclass(frozen=True, eq=False)
class MeanOfBlock(ByIntervention):
    """The contribution of a block is replaced by its mean over reference texts."""

    means: Mapping[int, Float[Tensor, "d_model"]]

    @classmethod
    def of(cls, model: Model, texts: Sequence[str | Rendered]) -> "MeanOfBlock":
        """The mean over the tokens of some texts but the first of each."""
        return cls(mean_contributions(model, texts, range(model.n_layers)))

    @property
    def name(self) -> str:
        return "mean of block"

    def layers(self, model: Model, saes: Mapping[int, SAE]) -> Sequence[int]:  # noqa: ARG002
        return sorted(self.means)

    def intervention(self, layer: int) -> Intervention:
        return MeanBlock(layer, self.means[layer])


@dataclass(frozen=True)
class SpliceSAE(ByIntervention):
    """The residual stream after a block is replaced by what the layer's SAE makes of it."""

    @property
    def name(self) -> str:
        return "SAE splice"

    def layers(self, model: Model, saes: Mapping[int, SAE]) -> Sequence[int]:  # noqa: ARG002
        return sorted(saes)

    def intervention(self, layer: int) -> Intervention:
        return Splice(layer)


@dataclass(frozen=True)
class SkipPart(OneByOne):
    """The attention of a block, or its MLP, adds nothing; the other part runs on what is left."""

    part: str

    def __post_init__(self) -> None:
        if self.part not in ("attention", "MLP"):
            raise ValueError(f"part is {self.part!r}; it must be 'attention' or 'MLP'.")

    @property
    def name(self) -> str:
        return f"skip {self.part}"

    def layers(self, model: Model, saes: Mapping[int, SAE]) -> Sequence[int]:  # noqa: ARG002
        return range(model.n_layers)

    @contextmanager
    def acting(self, model: Model, saes: Mapping[int, SAE], layer: int) -> Iterator[None]:  # noqa: ARG002
        with hooks.changed(_part_of(model.blocks[layer], ATTENTION if self.part == "attention" else MLP), _nothing):
            yield


@dataclass(frozen=True)
class SkipByGradient:
    """What skipping each block would cost if the metric were linear in its contribution: one pass forward and back.

    `contribution · ∂metric/∂contribution`, summed over positions: a screen that takes the time of three passes for all
    layers at once, to be checked against `SkipBlock`.
    """

    @property
    def name(self) -> str:
        return "skip block by gradient"

    def layers(self, model: Model, saes: Mapping[int, SAE]) -> Sequence[int]:  # noqa: ARG002
        return range(model.n_layers)

    def measure(
        self,
        model: Model,
        saes: Mapping[int, SAE],  # noqa: ARG002
        items: Sequence[Scored],
        layers: Sequence[int],
    ) -> tuple[Values, dict[int, Values]]:
        """A little more of each contribution, in each row: the derivative by how much is the drop."""
        clean, drops = [], []
        for start in range(0, len(items), ROWS_OF_A_GRAPH):
            part = items[start : start + ROWS_OF_A_GRAPH]
            more = torch.zeros(len(layers), len(part), device=model.device, requires_grad=True)
            edits = [
                hooks.Edit(layer, f"more of L{layer}", lambda at: at.valid, partial(_more, share))
                for layer, share in zip(layers, more, strict=True)
            ]
            with torch.enable_grad(), hooks.edited(model, edits):
                value = log_probs(model, part)
                [drop] = torch.autograd.grad(value.sum(), more)
            clean.append(value.detach())
            drops.append(drop.double().cpu())
        whole, drop = torch.cat(clean), torch.cat(drops, dim=1)
        return whole, {layer: whole - drop[n] for n, layer in enumerate(layers)}


def _more(share: Float[Tensor, "row"], at: hooks.Visit) -> Tensor:
    return share[at.row][:, None] * (at.resid - at.before)


def _part_of(block: nn.Module, names: Sequence[str]) -> nn.Module:
    found = next((getattr(block, name) for name in names if hasattr(block, name)), None)
    if found is None:
        there = sorted(name for name, _ in block.named_children())
        raise ValueError(f"a {type(block).__name__} has none of {list(names)}, only {there}; use another operator.")
    return found


def _nothing(output: Any) -> Any:
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)
