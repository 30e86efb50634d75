"""Behaviours to try the ladder on: one that is causal and yet cheap to explain, and one that is a mere cue."""

from .cot import cot_mode
from .steps import step_words

__all__ = ["cot_mode", "step_words"]
