"""The whole story on one model, from loading to the report."""

from .settings import Settings, Sizes
from .story import Told, run_demo

__all__ = ["Settings", "Sizes", "Told", "run_demo"]
