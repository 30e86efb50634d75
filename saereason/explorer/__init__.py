"""What is known of features, for people to look at, here and in other programs."""

from .exploration import Exploration
from .page import write_page
from .widget import Explorer, explore

__all__ = ["Exploration", "Explorer", "explore", "write_page"]
