"""Rung 4: does steering with the feature do more than steering with anything else of its size?"""

from collections.abc import Mapping

import numpy as np

from saereason.controls.random import random_directions
from saereason.features import Feature
from saereason.saes import SAE, copies, decoder_row, sae_at
from saereason.stats import mean_interval, paired_difference
from saereason.steering import Add, AddVector, Intervention

from .bench import Bench, Candidate
from .rung import Rung, untried


def beats_chance(bench: Bench, candidate: Candidate) -> Rung:
    """Passes if steering brings the behaviour about on more prompts than every one of the random draws does (matched
    features and directions of one norm, `n_draws` of each), the interval of its lead over their mean is above 0, and
    so are those of its lead over the best features of frozen-decoder and untrained SAEs, where there are any. Copies of
    the feature, at a decoder cosine of 0.7 or more, are not drawn, and how many there are is said.
    """
    trial = bench.behaviour.absent
    if trial is None:
        return untried(4, "the behaviour has no prompts to steer on")
    steered = bench.right(trial, steering(bench, candidate))
    try:
        features = random_features(bench, candidate)
    except ValueError as error:  # too few that fire
        return untried(4, str(error))
    kinds = {"features": features, "directions": _directions(bench, candidate)}
    draws = {kind: [bench.right(trial, edit) for edit in edits] for kind, edits in kinds.items()}
    every = np.stack([drawn for drawn_of in draws.values() for drawn in drawn_of])
    lead = mean_interval(steered - every.mean(axis=0), seed=bench.seed)
    largest = every.mean(axis=1).max()
    passed = bool(lead.low > 0 and steered.mean() > largest)
    said = [
        f"steering brings it about on {steered.mean():.0%} of {len(steered)} prompts, {len(every)} random features "
        f"and directions on {every.mean():.0%}, the best of them on {largest:.0%}"
    ]
    if same := copies(bench.saes, candidate.feature):
        said.append(f"copies of it not drawn: {len(same)}")
    less = _trained_less(bench, candidate)
    for name, other in less.items():
        figure = paired_difference(steered, bench.right(trial, other))
        passed &= figure.low > 0
        said.append(f"{figure} more than {name}")
    details = {"clean": float(bench.right(trial).mean()), "steered": float(steered.mean())} | {
        f"random_{kind}": float(np.mean([d.mean() for d in drawn])) for kind, drawn in draws.items()
    }
    against = (f"{bench.n_draws} matched random features", f"{bench.n_draws} random directions", *less)
    return Rung(4, passed, "; ".join(said), lead, "share of prompts", len(steered), against, details)


def steering(bench: Bench, candidate: Candidate) -> Add:
    return Add(candidate.feature, candidate.coefficient, bench.behaviour.when)


def random_features(bench: Bench, candidate: Candidate) -> list[Intervention]:
    """Matched features, added at the candidate's size."""
    size = _size(bench, candidate)
    return [
        Add(other, candidate.sign * size / _norm(bench.saes, other), bench.behaviour.when)
        for other in bench.random_features(candidate.feature, bench.seed)
    ]


def _directions(bench: Bench, candidate: Candidate) -> list[Intervention]:
    layer, when, size = candidate.feature.layer, bench.behaviour.when, _size(bench, candidate)
    drawn = random_directions(bench.model.d_model, bench.n_draws, norm=size, seed=bench.seed)
    return [AddVector(layer, vector, 1.0, when, f"random {n}") for n, vector in enumerate(drawn)]


def _trained_less(bench: Bench, candidate: Candidate) -> dict[str, Intervention]:
    """The best feature, by discovery's examples, of SAEs that learnt less, as a direction of the candidate's size."""
    rivals, layer = bench.rivals, candidate.feature.layer
    sources = {"the best feature of a frozen decoder": (bench.model, rivals.frozen)}
    if rivals.untrained is not None:
        sources["the best feature of an untrained model"] = rivals.untrained
    found: dict[str, Intervention] = {}
    for name, (model, saes) in sources.items():
        if saes is not None and layer in saes:
            table = bench.found(
                f"{name} at layer {layer}", {layer: saes[layer]}, bench.behaviour.discovery, model
            ).table
            [best] = table.top(1, "studentised")
            row = decoder_row(saes[layer], best.index)
            vector = row / row.norm() * _size(bench, candidate)
            found[name] = AddVector(layer, vector, 1.0, bench.behaviour.when, name)
    return found


def _size(bench: Bench, candidate: Candidate) -> float:
    return abs(candidate.coefficient) * _norm(bench.saes, candidate.feature)


def _norm(saes: Mapping[int, SAE], feature: Feature) -> float:
    return float(decoder_row(sae_at(saes, feature), feature.index).norm())
