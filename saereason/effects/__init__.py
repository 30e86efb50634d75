"""What interventions do to what the model says."""

from .answers import accuracy, answers, right, share_of
from .measure import Effect, measure
from .sweep import Sweep, doses, sweep
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
    "measure",
    "right",
    "share_of",
    "sweep",
]
