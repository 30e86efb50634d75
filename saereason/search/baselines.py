"""What tells prompts apart without an SAE: DiffMean and a logistic probe, which every feature must be held against."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from saereason.examples import Examples
from saereason.hooks import read
from saereason.model import Model

from .pooled import observed

COSTS = tuple(10.0**power for power in range(-5, 2))
"""Inverse strengths of the probe's penalty that are tried."""


@dataclass(frozen=True, eq=False)
class Residuals:
    """The mean residual of each observation (a prompt's scored tokens of one label) after one block."""

    values: Float[np.ndarray, "observation d_model"]
    label: Bool[np.ndarray, "observation"]
    group: Int[np.ndarray, "observation"]


@torch.no_grad()
def residuals(model: Model, examples: Examples, layers: Sequence[int], *, batch_size: int = 32) -> dict[int, Residuals]:
    """Residuals of the observations that `search` scores, in its order."""
    parts: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    for batch in examples.batches(batch_size, model.device):
        resid, (of_token, label) = read(model, batch.batch, layers), observed(batch)
        sizes = of_token.bincount(minlength=len(label))
        for layer in layers:
            tokens = resid[layer][batch.valid].float()
            total = torch.zeros(len(label), tokens.shape[1], device=tokens.device).index_add_(0, of_token, tokens)
            parts[layer].append((total / sizes[:, None]).cpu().numpy())
    rows = examples.observations()
    return {layer: Residuals(np.concatenate(parts[layer]), rows[:, 1] == 1, rows[:, 0]) for layer in layers}


def diff_mean_scores(train: Residuals, test: Residuals) -> Float[np.ndarray, "observation"]:
    """How far each residual of `test` lies along the difference of the two means of `train` (arXiv 2501.17148)."""
    direction = train.values[train.label].mean(0) - train.values[~train.label].mean(0)
    return test.values.astype(np.float64) @ direction.astype(np.float64)


def probe_scores(
    train: Residuals, test: Residuals, *, n_folds: int = 5, seed: int = 0
) -> Float[np.ndarray, "observation"]:
    """The log odds that a logistic probe gives each residual of `test` (AxBench, arXiv 2501.17148).

    On standardised residuals, with an L2 penalty whose strength has the best log loss over folds of `train`, which
    never part a prompt's observations. Raises ValueError for too few prompts.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    prompts = min(len(np.unique(train.group[train.label == which])) for which in (True, False))
    if prompts < 2:
        raise ValueError(f"{prompts} prompts of one label are too few to train a probe on; give at least two of each.")
    probe = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        {"logisticregression__C": COSTS},
        scoring="neg_log_loss",
        cv=StratifiedGroupKFold(min(n_folds, prompts), shuffle=True, random_state=seed),
    )
    probe.fit(train.values, train.label, groups=train.group)
    return probe.decision_function(test.values)
