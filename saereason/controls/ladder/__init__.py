"""The ladder of claims: what a feature has to survive before anything is said of it."""

from .behaviour import Behaviour, Sample
from .bench import Rivals
from .challenge import LADDER, challenge, check_draws
from .counterexamples import Counterexamples, Templates
from .rung import NAMES, Rung
from .verdict import Verdict, standing, verdict_rows

__all__ = [
    "LADDER",
    "NAMES",
    "Behaviour",
    "Counterexamples",
    "Rivals",
    "Rung",
    "Sample",
    "Templates",
    "Verdict",
    "challenge",
    "check_draws",
    "standing",
    "verdict_rows",
]
