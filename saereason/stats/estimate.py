"""A value with its interval, and what all statistics ask of their input."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval, all three in the unit of the value."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:z.3f} [{self.low:z.3f}, {self.high:z.3f}]"


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a probability between 0 and 1, such as 0.95")


def check_draws(n_draws: int) -> None:
    if n_draws < 1:
        raise ValueError(f"asked for {n_draws} random draws; give at least 1")


def paired(*arrays: Shaped[np.ndarray, "..."]) -> tuple[np.ndarray, ...]:
    """The arrays, finite and of the same length, which is at least 1."""
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) != 1:
        raise ValueError(f"paired arrays have {lengths} items; give arrays of one length, at least one array")
    return tuple(finite(array, f"array {i}") for i, array in enumerate(arrays))


def finite(values: Shaped[np.ndarray, "..."], name: str) -> np.ndarray:
    """`values`, neither empty nor infinite, with floating numbers in float64 and other dtypes as they are."""
    if values.size == 0:
        raise ValueError(f"{name} is empty, of shape {values.shape}; give at least one item")
    if values.dtype.kind != "f":
        return values
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ValueError(f"{name} has {bad} values that are not finite; give finite numbers only")
    return values.astype(np.float64, copy=False)
