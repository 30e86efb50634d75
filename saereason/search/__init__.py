"""Which features go with a behaviour."""

from .attribution import attribute
from .baselines import Residuals, diff_mean_scores, probe_scores, residuals
from .block import Block
from .card import FeatureCard, feature_card
from .contexts import Context, Contexts, feature_contexts
from .directions import diff_mean
from .moments import Moments, moments
from .outputs import output_effects, output_slopes
from .reason_score import load_lexicon, reason_scores
from .search import add_max_t, search
from .written import Written, logit_lens, output_scores, written_tokens

__all__ = [
    "Block",
    "Context",
    "Contexts",
    "FeatureCard",
    "Moments",
    "Residuals",
    "Written",
    "add_max_t",
    "attribute",
    "diff_mean",
    "diff_mean_scores",
    "feature_card",
    "feature_contexts",
    "load_lexicon",
    "logit_lens",
    "moments",
    "output_effects",
    "output_scores",
    "output_slopes",
    "probe_scores",
    "reason_scores",
    "residuals",
    "search",
    "written_tokens",
]
