"""The comparison of all mechanisms on one model and its sibling: what is chosen, compared, undone and shown."""

from .ground import Ground
from .page import ANSWERS, answer_rows, verdict
from .sizes import QUICK, Sizes
from .suite import Compared, run_suite

__all__ = ["ANSWERS", "QUICK", "Compared", "Ground", "Sizes", "answer_rows", "run_suite", "verdict"]
