"""What is known of features, for people to look at, here and in other programs."""

from .exchange import (
    Dashboard,
    Excerpt,
    Explanation,
    Firings,
    Origin,
    feature_dashboards,
    feature_firings,
    firing_dashboards,
)
from .exploration import Exploration
from .page import write_page
from .widget import Explorer, explore

__all__ = [
    "Dashboard",
    "Excerpt",
    "Explanation",
    "Exploration",
    "Explorer",
    "Firings",
    "Origin",
    "explore",
    "feature_dashboards",
    "feature_firings",
    "firing_dashboards",
    "write_page",
]
