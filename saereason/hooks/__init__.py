"""Read and edit the residual stream, and resume from it; the only part that registers a hook on a model."""

from .edits import Edit, Visit, edited, in_force, only_edited, recorded, spare
from .passes import Resid, changed, check_layers, hooked, run
from .positions import PositionClock, Positions, prompts
from .reading import read, reading, traced
from .resuming import resumed

__all__ = [
    "Edit",
    "PositionClock",
    "Positions",
    "Resid",
    "Visit",
    "changed",
    "check_layers",
    "edited",
    "hooked",
    "in_force",
    "only_edited",
    "prompts",
    "read",
    "reading",
    "recorded",
    "resumed",
    "run",
    "spare",
    "traced",
]
