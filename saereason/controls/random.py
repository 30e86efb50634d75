"""Chance: features and directions that share all but the meaning with the one under test."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saereason.features import Feature, FeatureTable
from saereason.saes import SAE, copies


def matched_features(
    table: FeatureTable,
    saes: Mapping[int, SAE],
    feature: Feature,
    n: int,
    *,
    seed: int = 0,
    near: int = 10,
    besides: Sequence[Feature] = (),
) -> list[Feature]:
    """`n` random features of the same layer whose firing rate on plain and problem text is near the feature's.

    Drawn from the `near · n` features closest in the table's column `firing_rate` that fire at all, or from the closest
    quarter of them where that is fewer, so that a small dictionary's draws are near too; decoder rows are of one norm
    in every SAE that saereason trains. Not drawn are those in `besides`, nor copies, of the feature or of those: where
    an SAE has split a feature, its other part is not chance. Raises ValueError where the layer has too few.
    """
    rates, rate = table["firing_rate"], table.row(feature)["firing_rate"]
    known = [feature, *(other for other in besides if other.layer == feature.layer)]
    taken = [each.index for one in known for each in (one, *copies(saes, one))]
    rows = table.where((table["layer"] == feature.layer) & ~np.isin(table["index"], taken) & (rates > 0))
    if len(rows) < n:
        raise ValueError(
            f"layer {feature.layer} has {len(rows)} other features that fire and are no copies; {n} random ones were "
            "asked for."
        )
    closest = np.argsort(np.abs(np.log(rows["firing_rate"]) - np.log(max(rate, 1e-12))), kind="stable")
    pool = closest[: max(n, min(near * n, len(rows) // 4))]
    chosen = np.random.default_rng(seed).choice(pool, size=n, replace=False)
    return list(rows.where(chosen))


def random_directions(d_model: int, n: int, *, norm: float, seed: int = 0) -> list[Float[Tensor, "d_model"]]:
    """`n` directions drawn uniformly from the sphere, each of the given norm."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(n, d_model, generator=generator)
    return list(norm * drawn / drawn.norm(dim=-1, keepdim=True))
