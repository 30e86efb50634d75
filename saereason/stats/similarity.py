"""How alike two sets of states of the same items are."""

import numpy as np
from jaxtyping import Float

from .estimate import paired


def linear_cka(a: Float[np.ndarray, "item d_a"], b: Float[np.ndarray, "item d_b"]) -> float:
    """Linear centred kernel alignment, `‖BᵀA‖² / (‖AᵀA‖ ‖BᵀB‖)` of centred states (Kornblith et al. 2019, eq. 5).

    1 for states that are equal up to rotation and scale. With fewer items than dimensions it is large for unrelated
    states too, so look at its nulls. NaN where the states of one side are all alike. Raises ValueError for other
    numbers of items, or one.
    """
    a, b = paired(a, b)
    if len(a) < 2:
        raise ValueError("one item has no alignment; give at least two")
    a, b = (x - x.mean(0) for x in (a.astype(np.float64), b.astype(np.float64)))
    own = np.linalg.norm(a.T @ a), np.linalg.norm(b.T @ b)
    if min(own) == 0:
        return float("nan")
    return float(np.linalg.norm(b.T @ a) ** 2 / (own[0] * own[1]))
