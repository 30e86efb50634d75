"""Where in depth families of items are served, with intervals."""

from .candidates import CANDIDATES, MATCHED, WithFeatures, WithoutFeatures, beyond, candidate_features
from .contrasts import Contrast, contrasts
from .families import SOURCES, Source, family_of, generated_tasks, plain_family, published_tasks
from .fast_slow import FastSlow, fast_slow
from .finding import Finding, compare_depth, share_difference, shares
from .graded import GradedCurve, graded
from .kinds import KindFinding, compare_kinds, joint_p
from .lens import AnswerDepths, answer_depths
from .localise import Curve, Family, UnsuitedError, localise
from .matching import Match, compare_adjusted, matched, take, unshared
from .nulls import Null, halved, shifted, swapped
from .operators import MeanOfBlock, Operator, SkipBlock, SkipByGradient, SkipPart, SpliceSAE
from .patching import Patching, patching
from .probes import Probed, answer_place, probed
from .similarity import Similarity, similarities
from .steps import StepMap, step_map

__all__ = [
    "CANDIDATES",
    "MATCHED",
    "SOURCES",
    "AnswerDepths",
    "Contrast",
    "Curve",
    "Family",
    "FastSlow",
    "Finding",
    "GradedCurve",
    "KindFinding",
    "Match",
    "MeanOfBlock",
    "Null",
    "Operator",
    "Patching",
    "Probed",
    "Similarity",
    "SkipBlock",
    "SkipByGradient",
    "SkipPart",
    "Source",
    "SpliceSAE",
    "StepMap",
    "UnsuitedError",
    "WithFeatures",
    "WithoutFeatures",
    "answer_depths",
    "answer_place",
    "beyond",
    "candidate_features",
    "compare_adjusted",
    "compare_depth",
    "compare_kinds",
    "contrasts",
    "family_of",
    "fast_slow",
    "generated_tasks",
    "graded",
    "halved",
    "joint_p",
    "localise",
    "matched",
    "patching",
    "plain_family",
    "probed",
    "published_tasks",
    "share_difference",
    "shares",
    "shifted",
    "similarities",
    "step_map",
    "swapped",
    "take",
    "unshared",
]
