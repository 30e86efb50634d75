"""What interventions do to what the model says."""

from .answers import accuracy, against, answers, right, share_of
from .harness import harness_model
from .measure import Effect, measure
from .sweep import Sweep, doses, sweep, sweep_units
from .thoughts import Gain, Thoughts, answer_log_probs, information_gain
from .trial import Grades, Judge, Opens, Shows, Trial

__all__ = [
    "Effect",
    "Gain",
    "Grades",
    "Judge",
    "Opens",
    "Shows",
    "Sweep",
    "Thoughts",
    "Trial",
    "accuracy",
    "against",
    "answer_log_probs",
    "answers",
    "doses",
    "harness_model",
    "information_gain",
    "measure",
    "right",
    "share_of",
    "sweep",
    "sweep_units",
]
