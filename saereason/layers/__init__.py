"""Where in depth a family of items is served, with intervals."""

from .finding import Finding, compare_depth, share_difference, shares
from .localise import Curve, Family, SkipBlock, localise

__all__ = ["Curve", "Family", "Finding", "SkipBlock", "compare_depth", "localise", "share_difference", "shares"]
