"""Answers at once against answers after thinking, item by item (arXiv 2507.18178)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from saereason.stats import Estimate, paired_difference, wilson
from saereason.tasks import Outcome

PARSED = (Outcome.RIGHT, Outcome.WRONG)


@dataclass(frozen=True)
class FastSlow:
    """How thinking changes answers: `delta = corrected - overthought`, exactly."""

    domain: str
    n: int
    fast: Estimate
    """Accuracy at once, with Wilson's interval."""

    slow: Estimate
    delta: Estimate
    """`slow - fast`, with Tango's interval, paired by item."""

    corrected: Estimate
    """δ_c: share of items that are wrong at once and right after thinking."""

    overthought: Estimate
    """δ_o: share of items that are right at once and wrong after thinking."""

    corrects: Estimate | None
    """r_c: share right after thinking among those wrong at once; None where none is."""

    overthinks: Estimate | None
    """r_o: share wrong after thinking among those right at once; None where none is."""


def fast_slow(
    domain: str, fast: Sequence[Outcome | str], slow: Sequence[Outcome | str], *, parsed_only: bool = False
) -> FastSlow:
    """The decomposition for one domain, from the outcomes of the same items in the same order.

    Whatever is not right counts as wrong; with `parsed_only`, items that are unparsable, truncated or looping in either
    are left out. Raises ValueError for other lengths, and where no item is left.
    """
    if len(fast) != len(slow):
        raise ValueError(
            f"there are {len(fast)} fast and {len(slow)} slow outcomes of {domain}; give one each an item."
        )
    pairs = [(Outcome(a), Outcome(b)) for a, b in zip(fast, slow, strict=True)]
    if parsed_only:
        pairs = [(a, b) for a, b in pairs if a in PARSED and b in PARSED]
    if not pairs:
        raise ValueError(f"{domain} has no items{' that are parsed in both' if parsed_only else ''}.")
    quick, late = (np.array([pair[n] is Outcome.RIGHT for pair in pairs]) for n in (0, 1))
    n = len(pairs)
    gained, lost = int((late & ~quick).sum()), int((quick & ~late).sum())
    found = FastSlow(
        domain,
        n,
        wilson(int(quick.sum()), n),
        wilson(int(late.sum()), n),
        paired_difference(late, quick),
        wilson(gained, n),
        wilson(lost, n),
        wilson(gained, int((~quick).sum())) if (~quick).any() else None,
        wilson(lost, int(quick.sum())) if quick.any() else None,
    )
    if round(found.delta.value * n) != gained - lost:
        raise AssertionError(f"δ = δ_c − δ_o does not hold for {domain}: {found}")
    return found
