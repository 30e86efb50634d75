"""What interventions do to what the model says."""

from .answers import accuracy, answers, right, share_of
from .measure import measure

__all__ = ["accuracy", "answers", "measure", "right", "share_of"]
