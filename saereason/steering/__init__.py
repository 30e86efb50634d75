"""Interventions, when they act, and the context that puts them in force."""

from .blocks import MeanBlock, Patch, ScaleBlock, Splice, mean_contributions
from .budget import asc_size, at_kl, fisher_size
from .directions import AddVector, ScaleProjection
from .interventions import Intervention, per_row
from .kl import Divergence
from .narrowed import Decay, OnRows, While, WhileAlong
from .on_features import Add, Boost, Clamp, Scale, SetProjection
from .sizes import largest_acts, mean_norms
from .steered import SilentEditError, Steering, steered
from .units import UNITS, moving, short, unit_sizes
from .when import After, Everywhere, Generated, LastPromptToken, Prompt, Steps, When, parse_when

__all__ = [
    "UNITS",
    "Add",
    "AddVector",
    "After",
    "Boost",
    "Clamp",
    "Decay",
    "Divergence",
    "Everywhere",
    "Generated",
    "Intervention",
    "LastPromptToken",
    "MeanBlock",
    "OnRows",
    "Patch",
    "Prompt",
    "Scale",
    "ScaleBlock",
    "ScaleProjection",
    "SetProjection",
    "SilentEditError",
    "Splice",
    "Steering",
    "Steps",
    "When",
    "While",
    "WhileAlong",
    "asc_size",
    "at_kl",
    "fisher_size",
    "largest_acts",
    "mean_contributions",
    "mean_norms",
    "moving",
    "parse_when",
    "per_row",
    "short",
    "steered",
    "unit_sizes",
]
