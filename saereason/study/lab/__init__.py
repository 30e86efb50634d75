"""The layer lab from end to end: what is asked, what is measured, what it says, and the page."""

from .lab import Lab, conclude, run_lab
from .pace import FEATURE_OPERATORS, estimate
from .page import FINDING_HEADER, finding_rows, page, sentences
from .parts import Parts, feature_operators
from .subjects import FEATURES, PARTS, Sizes, Subject, battery, named, parts_of, subjects_of

__all__ = [
    "FEATURES",
    "FEATURE_OPERATORS",
    "FINDING_HEADER",
    "PARTS",
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
    "parts_of",
    "run_lab",
    "sentences",
    "subjects_of",
]
