"""Where in depth families of items are served, with intervals."""

from .families import SOURCES, Source, family_of, generated_families, plain_family, published_families
from .fast_slow import FastSlow, fast_slow
from .finding import Finding, compare_depth, share_difference, shares
from .graded import GradedCurve, graded
from .kinds import KindFinding, compare_kinds
from .lens import AnswerDepths, answer_depths
from .localise import Curve, Family, localise
from .matching import Match, adjusted, matched, take
from .operators import MeanOfBlock, Operator, SkipBlock, SkipByGradient, SkipPart, SpliceSAE
from .similarity import Similarity, similarities

__all__ = [
    "SOURCES",
    "AnswerDepths",
    "Curve",
    "Family",
    "FastSlow",
    "Finding",
    "GradedCurve",
    "KindFinding",
    "Match",
    "MeanOfBlock",
    "Operator",
    "Similarity",
    "SkipBlock",
    "SkipByGradient",
    "SkipPart",
    "Source",
    "SpliceSAE",
    "adjusted",
    "answer_depths",
    "compare_depth",
    "compare_kinds",
    "family_of",
    "fast_slow",
    "generated_families",
    "graded",
    "localise",
    "matched",
    "plain_family",
    "published_families",
    "share_difference",
    "shares",
    "similarities",
    "take",
]
