"""What interventions do to what the model says."""

from .answers import accuracy, answers, right, share_of
from .harness import harness_model
from .measure import Effect, measure
from .sweep import Sweep, doses, sweep, sweep_units
from .trial import Grades, Judge, Opens, Shows, Trial

__all__ = [
    "Effect",
    "Grades",
    "Judge",
    "Opens",
    "Shows",
    "Sweep",
    "Trial",
    "accuracy",
    "answers",
    "doses",
    "harness_model",
    "measure",
    "right",
    "share_of",
    "sweep",
    "sweep_units",
]
