"""Everything that tries to prove a feature wrong."""

from .cues import CueTrial, StrategyEffect, TokenProfile, inject, top_tokens, try_cues
from .random import matched_features, random_directions

__all__ = [
    "CueTrial",
    "StrategyEffect",
    "TokenProfile",
    "inject",
    "matched_features",
    "random_directions",
    "top_tokens",
    "try_cues",
]
