"""Cues: is a feature more than a detector of a few tokens?"""

from .inject import STRATEGIES, Strategy, inject
from .profile import TokenProfile, top_tokens
from .trial import try_cues
from .verdict import RULE, CueTrial, StrategyEffect

__all__ = [
    "RULE",
    "STRATEGIES",
    "CueTrial",
    "Strategy",
    "StrategyEffect",
    "TokenProfile",
    "inject",
    "top_tokens",
    "try_cues",
]
