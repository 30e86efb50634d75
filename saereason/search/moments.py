"""Sums over prompts of one value per prompt and feature; they add up, and scores are functions of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, sum and sum of squares over prompts, in float64; `a + b` pools the prompts of both."""

    count: int
    total: Float[Tensor, "d_sae"]
    square: Float[Tensor, "d_sae"]

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.count + other.count, self.total + other.total, self.square + other.square)

    @property
    def deviations(self) -> Float[Tensor, "d_sae"]:
        """Sum of squared deviations from the mean."""
        return self.square - self.count * self.mean.square()

    @property
    def mean(self) -> Float[Tensor, "d_sae"]:
        return self.total / self.count

    @property
    def studentised(self) -> Float[Tensor, "d_sae"]:
        """Mean over its standard error; 0 where all values are 0.

        The deviation counts as at least 1e-9 of the mean's size, so that a constant ranks high but finite.
        """
        if self.count < 2:
            raise ValueError(f"{self.count} prompts have no standard error; give at least two.")
        mean = self.mean
        variance = self.deviations / (self.count - 1)
        error = torch.maximum(variance.clamp(min=0).sqrt(), 1e-9 * mean.abs()) / self.count**0.5
        return torch.where(mean == 0, 0.0, mean / error.clamp(min=torch.finfo(torch.float64).tiny))


def moments(values: Float[Tensor, "prompt d_sae"]) -> Moments:
    values = values.double()
    return Moments(len(values), values.sum(0), values.square().sum(0))
