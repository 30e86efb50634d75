"""Training SAEs: texts, activations, the step, the loop."""

from .design import Design
from .journal import Journal, journal, read_log
from .material import Material
from .memory import Memory, needed
from .sources import Framing, openings, own_rows, read_rows
from .texts import default_rows, mixed, plain_rows, plain_texts, problem_rows, split_rows
from .train import Log, Standing, plan, train_saes

__all__ = [
    "Design",
    "Framing",
    "Journal",
    "Log",
    "Material",
    "Memory",
    "Standing",
    "default_rows",
    "journal",
    "mixed",
    "needed",
    "openings",
    "own_rows",
    "plain_rows",
    "plain_texts",
    "plan",
    "problem_rows",
    "read_log",
    "read_rows",
    "split_rows",
    "train_saes",
]
