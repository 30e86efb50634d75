"""Everything that tries to prove a feature wrong."""

from .cues import CueTrial, StrategyEffect, TokenProfile, inject, top_tokens, try_cues
from .ladder import Behaviour, Counterexamples, Rivals, Rung, Sample, Templates, Verdict, challenge
from .random import matched_features, random_directions

__all__ = [
    "Behaviour",
    "Counterexamples",
    "CueTrial",
    "Rivals",
    "Rung",
    "Sample",
    "StrategyEffect",
    "Templates",
    "TokenProfile",
    "Verdict",
    "challenge",
    "inject",
    "matched_features",
    "random_directions",
    "top_tokens",
    "try_cues",
]
