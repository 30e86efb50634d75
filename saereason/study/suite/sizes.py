"""How much of each part of a suite."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The demo's sizes, for under an hour on two cores."""

    n: int = 40
    """Items of each task that is reported on."""

    n_discovery: int = 48
    """Problems on which features, directions, sizes and openings are chosen."""

    n_scored: int = 8
    """Of these, those on which candidates are scored."""

    n_per_layer: int = 2
    """Candidate features a layer."""

    most: int = 72
    """Longest answer, in tokens."""

    paths: int = 10
    """First tokens that CoT-decoding follows."""

    n_lessons: int = 64
    """Worked problems that vectors are trained on."""

    n_pairs: int = 50
    """Short and long answers behind the compression vector, at most."""

    nats: float = 0.01
    """How far the compression vector moves the next token."""

    n_random: int = 2
    """Random features, and random directions."""

    n_shared: int = 8
    """Features that a mechanism shares with the CoT prompt and that are taken out of it."""

    n_draws: int = 2
    """Matched sets of features that are taken out in their place."""

    n_undone: int = 3
    """Mechanisms that features are taken out of, those that help most."""

    n_examples: int = 2
    """Worked examples of each form."""

    samples: int = 16
    """Sampled answers an item, for pass@k."""

    n_followed: int = 16
    """Items on which mechanisms are followed step by step."""

    n_orders: int = 200
    """Orders of the features that chance is of."""


QUICK = Sizes(
    n=8,
    n_discovery=16,
    n_scored=4,
    n_per_layer=1,
    most=48,
    paths=3,
    n_lessons=16,
    n_pairs=8,
    n_random=1,
    n_shared=2,
    n_draws=1,
    n_undone=1,
    samples=2,
    n_orders=50,
)
"""A look at how it works, not at what it finds."""
