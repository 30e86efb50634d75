"""Intervals, tests and corrections for paired items: pure functions over numpy arrays.

The unit is the item (a prompt, a question), never a token. Random draws come from local generators alone.
"""

from .estimate import Estimate
from .families import benjamini_hochberg, benjamini_yekutieli, max_t, max_t_groups, studentised
from .pass_at_k import pass_at_k
from .proportions import mcnemar, paired_difference, wilson
from .ranks import above, auroc_interval, auroc_lead
from .resampling import bootstrap, bootstrap_bands, mean_interval
from .similarity import cka_error, linear_cka
from .sizes import cohens_d, cohens_dz, d_intervals, largest_d

__all__ = [
    "Estimate",
    "above",
    "auroc_interval",
    "auroc_lead",
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "bootstrap",
    "bootstrap_bands",
    "cka_error",
    "cohens_d",
    "cohens_dz",
    "d_intervals",
    "largest_d",
    "linear_cka",
    "max_t",
    "max_t_groups",
    "mcnemar",
    "mean_interval",
    "paired_difference",
    "pass_at_k",
    "studentised",
    "wilson",
]
