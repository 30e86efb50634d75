"""What numbers and vectors must be."""

import math

import torch
from torch import Tensor

from saereason.model import Model


def finite(name: str, value: float) -> None:
    """Raises ValueError for a number that is none."""
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; it must be a finite number.")


def check_vector(model: Model, layer: int, vector: Tensor) -> None:
    if vector.shape != (model.d_model,):
        raise ValueError(
            f"the vector for layer {layer} has shape {tuple(vector.shape)}; {model.name} needs [{model.d_model}]."
        )


def check_finite(layer: int, vector: Tensor) -> None:
    if not torch.isfinite(vector).all():
        raise ValueError(f"the vector for layer {layer} has entries that are not finite numbers.")
