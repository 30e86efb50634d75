"""The whole story on one model, from loading to the report."""

from .settings import Settings, Sizes
from .story import Told, run_demo, run_layers

__all__ = ["Settings", "Sizes", "Told", "run_demo", "run_layers"]
