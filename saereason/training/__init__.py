"""Training SAEs: texts, activations, the step, the loop."""

from .design import Design
from .texts import default_rows, mixed, plain_rows, plain_texts, problem_rows, split_rows, text_rows
from .train import Log, train_saes

__all__ = [
    "Design",
    "Log",
    "default_rows",
    "mixed",
    "plain_rows",
    "plain_texts",
    "problem_rows",
    "split_rows",
    "text_rows",
    "train_saes",
]
