"""Behaviours to try the ladder on: a positive, one that is causal and yet cheap to explain, and a mere cue."""

from .cot import cot_mode
from .steps import step_words
from .sums import sums_model, sums_saes, value_between

__all__ = ["cot_mode", "step_words", "sums_model", "sums_saes", "value_between"]
