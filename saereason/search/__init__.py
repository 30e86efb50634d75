"""Which features go with a behaviour."""

from .attribution import attribute
from .block import Block
from .directions import diff_mean
from .moments import Moments, moments
from .reason_score import load_lexicon, reason_scores
from .search import add_max_t, search
from .written import Written, logit_lens, output_scores, written_tokens

__all__ = [
    "Block",
    "Moments",
    "Written",
    "add_max_t",
    "attribute",
    "diff_mean",
    "load_lexicon",
    "logit_lens",
    "moments",
    "output_scores",
    "reason_scores",
    "search",
    "written_tokens",
]
