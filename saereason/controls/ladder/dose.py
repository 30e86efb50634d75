"""How strongly a candidate is steered with: chosen on discovery alone."""

import numpy as np

from saereason.features import Feature
from saereason.saes import decoder_row, sae_at
from saereason.steering import Add

from .bench import Bench, Candidate


def sized(bench: Bench, feature: Feature) -> Candidate:
    """The candidate at the size that brings the behaviour about most often in rehearsal.

    Sizes are multiples of DiffMean's norm at its layer, which is what the behaviour itself changes there; of those that
    do alike the smallest is taken, and the first of them without a rehearsal. Where the feature is less active with the
    behaviour it is steered down.
    """
    sign = 1 if bench.discovery.table.row(feature)["difference"] >= 0 else -1
    norm = bench.direction(feature.layer).norm() / decoder_row(sae_at(bench.saes, feature), feature.index).norm()
    sizes = [sign * multiple * float(norm) for multiple in sorted(bench.multiples)]
    trial = bench.behaviour.rehearsal
    if trial is None:
        return Candidate(feature, sign, sizes[0], 0)
    shares = [bench.right(trial, Add(feature, size, bench.behaviour.when)).mean() for size in sizes]
    return Candidate(feature, sign, sizes[int(np.argmax(shares))], len(sizes))
