"""Rung 8: do other SAEs of the same model have the feature?"""

from collections.abc import Mapping

import numpy as np

from saereason.features import Feature
from saereason.saes import SAE, SAME, decoder_cosines, decoder_row, sae_at

from .bench import Bench, Candidate
from .correlates import separation
from .rung import ALPHA, Rung, untried


def recurs(bench: Bench, candidate: Candidate) -> Rung:
    """Passes if every other SAE of the layer has a feature whose decoder row has a cosine of at least 0.7 with the
    feature's and which goes with the behaviour on confirmation: the same sign, and p ≤ 0.05 after correction for the
    number of other SAEs. The figure is the least AUROC of those.
    """
    layer = candidate.feature.layer
    others = [saes for saes in bench.rivals.others if layer in saes]
    if not others:
        return untried(8, "there are no other SAEs of its layer")
    near = [_nearest(bench.saes, saes, candidate.feature) for saes in others]
    passes, said, figures = [], [], []
    for n, (saes, (twin, cosine)) in enumerate(zip(others, near, strict=True)):
        found = bench.found(f"SAE {n} at layer {layer}", {layer: saes[layer]}, bench.behaviour.confirmation)
        figures.append(separation(found.block, twin.index, seed=bench.seed))
        p = float(found.block.max_t(np.array([twin.index]), seed=bench.seed)[0])
        same_way = found.table["difference"][twin.index] * candidate.sign > 0
        passes.append(cosine >= SAME and same_way and p * len(others) <= ALPHA)
        said.append(f"cosine {cosine:.2f} with {twin} of {len(saes[layer].W_dec)} (AUROC {figures[-1]}, p = {p:.2g})")
    cosines = [cosine for _, cosine in near]
    return Rung(
        8,
        all(passes),
        f"{sum(passes)} of {len(others)} other SAEs have it: {'; '.join(said)}",
        min(figures, key=lambda figure: figure.value * candidate.sign),
        "AUROC",
        bench.confirmation.block.n_groups,
        tuple(f"SAE {n}" for n in range(1, len(others) + 1)),
        {"least_cosine": min(cosines)},
    )


def _nearest(saes: Mapping[int, SAE], others: Mapping[int, SAE], feature: Feature) -> tuple[Feature, float]:
    row = decoder_row(sae_at(saes, feature), feature.index)
    cosines = decoder_cosines(others[feature.layer], row)
    best = int(cosines.argmax())
    return Feature(feature.layer, best), float(cosines[best])
