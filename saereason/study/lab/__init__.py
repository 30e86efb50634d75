"""The layer lab from end to end: what is asked, what is measured, what it says, and the page."""

from .lab import Lab, conclude, estimate, run_lab
from .page import FINDING_HEADER, finding_rows, page, sentences
from .parts import Parts, feature_operators
from .subjects import FEATURE_OPERATORS, Sizes, Subject, battery, named, subjects_of

__all__ = [
    "FEATURE_OPERATORS",
    "FINDING_HEADER",
    "Lab",
    "Parts",
    "Sizes",
    "Subject",
    "battery",
    "conclude",
    "estimate",
    "feature_operators",
    "finding_rows",
    "named",
    "page",
    "run_lab",
    "sentences",
    "subjects_of",
]
