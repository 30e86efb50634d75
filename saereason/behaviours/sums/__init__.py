"""Two-step sums, whose value between the steps is known: a positive that the ladder must let pass."""

from .behaviour import value_between
from .toy import sums_model, sums_saes

__all__ = ["sums_model", "sums_saes", "value_between"]
