"""What interventions do to what the model says."""

from .answers import accuracy, answers, right, share_of
from .measure import Effect, measure

__all__ = ["Effect", "accuracy", "answers", "measure", "right", "share_of"]
