"""What interventions do to what the model says."""

from .measure import measure

__all__ = ["measure"]
