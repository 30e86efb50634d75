"""Studies: many features, every score, and what is left of them."""

from .propose import Proposals, propose
from .study import Study, run_study

__all__ = ["Proposals", "Study", "propose", "run_study"]
