"""Which features go with a behaviour."""

from .block import Block
from .directions import diff_mean
from .moments import Moments, moments
from .reason_score import load_lexicon, reason_scores
from .search import add_max_t, search

__all__ = ["Block", "Moments", "add_max_t", "diff_mean", "load_lexicon", "moments", "reason_scores", "search"]
