"""Interventions, when they act, and the context that puts them in force."""

from .interventions import Add, AddVector, Clamp, Intervention, Scale, ScaleBlock
from .kl import Divergence, at_kl
from .steered import SilentEditError, Steering, steered
from .when import Everywhere, Generated, LastPromptToken, Prompt, Steps, When, parse_when

__all__ = [
    "Add",
    "AddVector",
    "Clamp",
    "Divergence",
    "Everywhere",
    "Generated",
    "Intervention",
    "LastPromptToken",
    "Prompt",
    "Scale",
    "ScaleBlock",
    "SilentEditError",
    "Steering",
    "Steps",
    "When",
    "at_kl",
    "parse_when",
    "steered",
]
