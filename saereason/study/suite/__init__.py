"""The comparison of all mechanisms on one model and its sibling: what is chosen, compared, undone and shown."""

from .ground import Ground
from .page import verdict
from .sizes import QUICK, Sizes
from .suite import Compared, run_suite
from .tables import answer_table

__all__ = ["QUICK", "Compared", "Ground", "Sizes", "answer_table", "run_suite", "verdict"]
