"""Training SAEs: texts, activations, the step, the loop."""

from .texts import mixed, plain_rows, plain_texts, problem_rows
from .train import Log, train_saes

__all__ = ["Log", "mixed", "plain_rows", "plain_texts", "problem_rows", "train_saes"]
