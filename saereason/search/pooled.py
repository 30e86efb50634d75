"""One value for each prompt and feature, in one streaming pass over all layers."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saereason.examples import Examples
from saereason.hooks import read
from saereason.model import Model
from saereason.saes import SAE, Active, Encoder

Pool = Literal["mean", "max"]
"""Over the scored tokens of one prompt and label."""


AT_LEAST = 256
"""Tokens that are encoded at once where there are as many: reading the encoders' weights is most of what few cost."""


@dataclass(frozen=True, eq=False)
class Pooled:
    """Observations: one for each group and label, in the order of groups, on before off."""

    label: Bool[Tensor, "observation"]
    values: Mapping[int, Float[Tensor, "observation d_sae"]]
    tokens: Mapping[int, "TokenSums"]


@dataclass(frozen=True, eq=False)
class TokenSums:
    """Sums over tokens, of a label or any number a token, of activations, and of both, in float64."""

    count: Float[Tensor, ""]
    label: Float[Tensor, ""]
    label_square: Float[Tensor, ""]
    total: Float[Tensor, "d_sae"]
    square: Float[Tensor, "d_sae"]
    product: Float[Tensor, "d_sae"]

    def __add__(self, other: "TokenSums") -> "TokenSums":
        return TokenSums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@torch.no_grad()
def pooled(
    model: Model,
    saes: Mapping[int, SAE],
    examples: Examples,
    *,
    pool: Pool = "mean",
    batch_size: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Pooled]:
    """The observations of some batches at a time. The encoder's products run in the model's own precision.

    `progress` is told after each batch how many observations have been read.
    """
    encoders = {layer: Encoder.of(sae, model.dtype) for layer, sae in saes.items()}
    waiting: list[_Read] = []
    done = 0
    for batch in examples.batches(batch_size, model.device):
        waiting.append(_Read.of(batch, read(model, batch.batch, list(encoders), batch.valid)))
        done += len(waiting[-1].label)
        progress(done)
        if sum(map(len, waiting)) >= AT_LEAST:
            yield _encoded(encoders, waiting, pool)
            waiting = []
    if waiting:
        yield _encoded(encoders, waiting, pool)


@dataclass(frozen=True, eq=False)
class _Read:
    """The scored tokens of a batch, not yet encoded."""

    resid: dict[int, Float[Tensor, "token d_model"]]
    of_token: Int[Tensor, "token"]
    told: Float[Tensor, "token"]
    """The label, or what stands in its place."""

    label: Bool[Tensor, "observation"]

    @classmethod
    def of(cls, batch: Examples, resid: dict[int, Tensor]) -> "_Read":
        of_token, label = observed(batch)
        told = batch.label if batch.target is None else batch.target
        return cls(resid, of_token, told[batch.valid].to(_exact(of_token)), label)

    def __len__(self) -> int:
        return len(self.told)


def _encoded(encoders: Mapping[int, Encoder], parts: list[_Read], pool: Pool) -> Pooled:
    """The observations of some batches, one batch's after the other's."""
    before = np.cumsum([0, *(len(part.label) for part in parts)]).tolist()
    of_token = torch.cat([part.of_token + n for part, n in zip(parts, before, strict=False)])
    told, label = (torch.cat([getattr(part, name) for part in parts]) for name in ("told", "label"))
    values, sums = {}, {}
    for layer, encoder in encoders.items():
        active = encoder(torch.cat([part.resid.pop(layer) for part in parts]))
        values[layer] = _pool(active, of_token, len(label), encoder.d_sae, pool)
        sums[layer] = _token_sums(active, told, encoder.d_sae)
    return Pooled(label, values, sums)


def observed(batch: Examples) -> tuple[Int[Tensor, "token"], Bool[Tensor, "observation"]]:
    """The observation that each scored token belongs to, and each observation's label."""
    group = batch.group[:, None].expand_as(batch.valid)[batch.valid]
    label = batch.label[batch.valid]
    keys, of_token = (2 * group + (~label).long()).unique(return_inverse=True)
    return of_token, keys % 2 == 0


def _pool(active: Active, of_token: Tensor, n: int, d_sae: int, pool: Pool) -> Tensor:
    """In float64, in which the mean of equal activations is the same over any number of tokens."""
    flat = torch.zeros(n * d_sae, device=of_token.device, dtype=_exact(of_token))
    place = of_token[active.token] * d_sae + active.index
    acts = active.acts.to(flat.dtype)
    if pool == "max":
        return flat.scatter_reduce_(0, place, acts, "amax").view(n, d_sae).float()
    sizes = of_token.bincount(minlength=n)
    return (flat.index_add_(0, place, acts).view(n, d_sae) / sizes[:, None]).float()


def _token_sums(active: Active, told: Tensor, d_sae: int) -> TokenSums:
    acts = active.acts.to(told.dtype)

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(d_sae, device=told.device, dtype=told.dtype).index_add_(0, active.index, values)

    per_token = (torch.tensor(float(len(told))), told.sum(), told.square().sum())
    per_feature = (summed(acts), summed(acts.square()), summed(acts * told[active.token]))
    return TokenSums(*(each.cpu().double() for each in (*per_token, *per_feature)))


def _exact(like: Tensor) -> torch.dtype:
    """The widest precision that the device sums in."""
    return torch.float32 if like.device.type == "mps" else torch.float64
