"""Dashboards of features on disk, in the formats of Neuronpedia, SAEDashboard and Delphi."""

from .building import feature_dashboards, firing_dashboards
from .dashboard import Dashboard, Excerpt, Explanation, Origin
from .delphi import load_delphi, save_delphi
from .firings import Firings, feature_firings
from .neuronpedia import load_neuronpedia_features, save_neuronpedia_features
from .sae_dashboard import load_sae_dashboard, save_sae_dashboard

__all__ = [
    "Dashboard",
    "Excerpt",
    "Explanation",
    "Firings",
    "Origin",
    "feature_dashboards",
    "feature_firings",
    "firing_dashboards",
    "load_delphi",
    "load_neuronpedia_features",
    "load_sae_dashboard",
    "save_delphi",
    "save_neuronpedia_features",
    "save_sae_dashboard",
]
