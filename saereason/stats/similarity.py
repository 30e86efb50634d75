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


def cka_error(a: Float[np.ndarray, "item d_a"], b: Float[np.ndarray, "item d_b"]) -> float:
    """Standard error of `linear_cka` over items, by the jackknife (Efron and Stein 1981).

    A bootstrap would draw items twice, and items that are equal make any two sets of states more alike. NaN where the
    alignment is; needs three items.
    """
    a, b = paired(a, b)
    kernels = [x @ x.T for x in (y.astype(np.float64) - y.mean(0, dtype=np.float64) for y in (a, b))]
    n, values = len(a), []
    for out in range(n):
        kept = np.delete(np.arange(n), out)
        one, other = (_centred(kernel[np.ix_(kept, kept)]) for kernel in kernels)
        size = np.linalg.norm(one) * np.linalg.norm(other)
        values.append((one * other).sum() / size if size > 0 else np.nan)
    return float(np.sqrt((n - 1) * np.var(values)))


def _centred(kernel: Float[np.ndarray, "item item"]) -> Float[np.ndarray, "item item"]:
    return kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
