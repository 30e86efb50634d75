"""Read and edit the residual stream, and resume from it; the only part that registers a hook on a model."""

from .edits import Edit, edited, recorded, spare
from .passes import Resid, check_layers, lean_head, run
from .positions import PositionClock, Positions, Prompts, prompts
from .reading import read, reading, traced
from .resuming import resumed

__all__ = [
    "Edit",
    "PositionClock",
    "Positions",
    "Prompts",
    "Resid",
    "check_layers",
    "edited",
    "lean_head",
    "prompts",
    "read",
    "reading",
    "recorded",
    "resumed",
    "run",
    "spare",
    "traced",
]
