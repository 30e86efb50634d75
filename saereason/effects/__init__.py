"""What interventions do to what the model says."""

from .answers import accuracy, answers, right, share_of
from .measure import Effect, measure
from .trial import Grades, Judge, Opens, Shows, Trial

__all__ = [
    "Effect",
    "Grades",
    "Judge",
    "Opens",
    "Shows",
    "Trial",
    "accuracy",
    "answers",
    "measure",
    "right",
    "share_of",
]
