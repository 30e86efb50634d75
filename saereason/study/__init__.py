"""Studies: many features, every score, and what is left of them."""

from .dose import Planned
from .lab import Lab, run_lab
from .plan import Plan
from .propose import Proposals, propose
from .study import EXPLORED, Study, run_study

__all__ = ["EXPLORED", "Lab", "Plan", "Planned", "Proposals", "Study", "propose", "run_lab", "run_study"]
