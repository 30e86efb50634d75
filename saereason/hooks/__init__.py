"""Read and edit the residual stream, and resume from it; the only part that registers a hook on a model."""

from .edits import Edit, edited, recorded, spare
from .passes import Resid, check_layers, run
from .positions import PositionClock, Positions, prompts
from .reading import read, reading, traced
from .resuming import resumed

__all__ = [
    "Edit",
    "PositionClock",
    "Positions",
    "Resid",
    "check_layers",
    "edited",
    "prompts",
    "read",
    "reading",
    "recorded",
    "resumed",
    "run",
    "spare",
    "traced",
]
