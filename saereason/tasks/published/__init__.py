"""Published benchmarks as tasks, and published texts in pairs, by the format of their files."""

from .benchmarks import load_benchmark
from .pairs import PAIRS, GradedText, TextPair, load_pairs
from .table import BENCHMARKS

__all__ = ["BENCHMARKS", "PAIRS", "GradedText", "TextPair", "load_benchmark", "load_pairs"]
