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

__all__ = [
    "Dashboard",
    "Excerpt",
    "Explanation",
    "Firings",
    "Origin",
    "feature_dashboards",
    "feature_firings",
    "firing_dashboards",
]
