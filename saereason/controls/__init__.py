"""Everything that tries to prove a feature wrong."""

from .random import matched_features, random_directions

__all__ = ["matched_features", "random_directions"]
