"""Intervals, tests and corrections for paired items: pure functions over numpy arrays.

The unit is the item (a prompt, a question), never a token. Random draws come from local generators alone.
"""

from .estimate import Estimate
from .families import benjamini_hochberg, benjamini_yekutieli, max_t, studentised
from .proportions import mcnemar, paired_difference, wilson
from .resampling import bootstrap, bootstrap_bands

__all__ = [
    "Estimate",
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "bootstrap",
    "bootstrap_bands",
    "max_t",
    "mcnemar",
    "paired_difference",
    "studentised",
    "wilson",
]
