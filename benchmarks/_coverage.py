"""How often each interval of saereason holds the truth, at n = 100 prompts and a nominal 95%.

A case is a truth that is known by its formula, a way to draw data, and the interval under test. Cases on counts are
summed exactly over all outcomes instead of simulated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from saereason.controls import top_tokens
from saereason.layers import Curve, compare_depth, share_difference
from saereason.stats import (
    Estimate,
    auroc_interval,
    auroc_lead,
    bootstrap,
    bootstrap_bands,
    d_intervals,
    mean_interval,
    paired_difference,
    wilson,
)

N = 100
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
PAIRED = ((0.05, 0.05), (0.2, 0.1), (0.3, 0.05), (0.15, 0.15))
"""Shares of prompts that are right in the one arm alone, and in the other alone."""

BINARY = np.array([0.3, 0.5, 0.8])
"""How often three treatments say yes; the base does as often as the first."""

LAYERS = tuple(range(12))
Ends = tuple[Any, Any]


@dataclass(frozen=True)
class Case:
    """`interval(data, seed)` returns low and high, numbers or arrays; all of them must hold `truth`, unless `each`."""

    name: str
    truth: Any
    draw: Callable[[np.random.Generator], Any]
    interval: Callable[[Any, int], Ends]
    each: bool = False
    every: int = 1
    """Simulate so many times fewer data sets than of other cases: it takes its time."""


def covered(case: Case, n_sets: int) -> float:
    """Share of data sets whose interval holds the truth."""
    hits = []
    for seed in range(n_sets // case.every):
        low, high = case.interval(case.draw(np.random.default_rng((7, seed))), seed)
        held = (np.asarray(low) <= case.truth) & (case.truth <= np.asarray(high))
        hits.append(held.mean() if case.each else held.all())
    return float(np.mean(hits))


def covered_exactly() -> Iterator[tuple[str, float]]:
    """Wilson's and Tango's intervals, by summing over all outcomes."""
    ends = [wilson(k, N) for k in range(N + 1)]
    for share in SHARES:
        held = [e.low <= share <= e.high for e in ends]
        yield f"wilson, share {share}", float(scipy_stats.binom.pmf(np.arange(N + 1), N, share) @ held)
    for only_a, only_b in PAIRED:
        total, weight = 0.0, 0.0
        for a, b in product(range(N + 1), repeat=2):
            chance = scipy_stats.multinomial.pmf([a, b, N - a - b], N, [only_a, only_b, 1 - only_a - only_b])
            if a + b <= N and chance > 1e-7:  # the outcomes left out hold less than 0.1% together
                e = paired_difference(np.arange(N) < a, (np.arange(N) >= a) & (np.arange(N) < a + b))
                total, weight = total + chance * (e.low <= only_a - only_b <= e.high), weight + chance
        yield f"paired shares, {only_a} against {only_b}", float(total / weight)


def ends(estimate: Estimate) -> Ends:
    return estimate.low, estimate.high


def means() -> Iterator[tuple[str, float, Callable[[np.random.Generator], np.ndarray]]]:
    """One value a prompt: its kind, its true mean, and a draw of 100."""
    yield "normal", 0.0, lambda rng: rng.standard_normal(N)
    yield "lognormal", float(np.exp(0.5)), lambda rng: np.exp(rng.standard_normal(N))
    yield "difference of lognormals", 0.0, lambda rng: np.exp(rng.standard_normal(N)) - np.exp(rng.standard_normal(N))
    yield "paired binary", 0.1, lambda rng: rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=N)


def printed() -> Iterator[Case]:
    """The intervals that saereason prints or offers for what it prints."""
    for kind, truth, draw in means():
        yield Case(f"mean, {kind}", truth, draw, lambda x, seed: ends(mean_interval(x, n_resamples=1000, seed=seed)))
    for kind, draw in (("normal", _normal_curve), ("lognormal", _lognormal_curve)):
        yield Case(f"bands, {kind}", np.linspace(0, 1, 12), draw, _bands)
    for kind, draw in (("normal", _normal_arms), ("lognormal", _lognormal_arms), ("paired binary", _binary_arms)):
        yield Case(f"Cohen's d, {kind}", *draw, _d)
    for kind, paired, truth in (("unpaired", False, 0.5**0.5), ("paired", True, 1.25**-0.5 * 0.5**0.5)):
        whole, half = map(float, scipy_stats.norm.cdf([truth, truth / 2]))
        yield Case(f"AUROC, {kind}", whole, _sides(paired), _auroc(paired))
        yield Case(f"lead in AUROC, {kind}", whole - half, _two_scores(paired), _lead(paired))
    yield Case("concentration", 0.5, _masses, _concentration)
    first, second = _profile(7), _profile(4)
    depth = np.array(LAYERS) / (len(LAYERS) - 1)
    yield Case("centroid difference", (first - second) @ depth, _curves, _centroids, every=2)
    yield Case("share differences", first - second, _curves, _share_differences, each=True, every=2)


def compared() -> Iterator[Case]:
    """Percentile and BCa intervals of a mean, which are there for statistics that are not means."""
    for method, (kind, truth, draw) in product(("percentile", "bca"), means()):

        def interval(x: np.ndarray, seed: int, method: Any = method) -> Ends:
            return ends(bootstrap(lambda v: v.sum() / N, x, n_resamples=600, method=method, seed=seed))

        yield Case(f"{method} bootstrap of the mean, {kind}", truth, draw, interval)


def _normal_curve(rng: np.random.Generator) -> np.ndarray:
    return np.linspace(0, 1, 12) + rng.standard_normal((N, 12)) + rng.standard_normal((N, 1))


def _lognormal_curve(rng: np.random.Generator) -> np.ndarray:
    size = np.exp(0.7 * rng.standard_normal((N, 12)) + 0.7 * rng.standard_normal((N, 1)))
    return np.linspace(0, 1, 12) + size - np.exp(0.7**2)


def _bands(values: np.ndarray, seed: int) -> Ends:
    return bootstrap_bands(values, n_resamples=1000, seed=seed)


def _arms_normal(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    text = rng.standard_normal((N, 1))
    base = text + 0.5 * rng.standard_normal((N, 1))
    return text + 0.5 * rng.standard_normal((N, 3)) + np.array([0.0, 0.4, 1.0]), np.repeat(base, 3, axis=1)


_normal_arms = (np.array([0.0, 0.4, 1.0]) / 1.25**0.5, _arms_normal)


def _arms_lognormal(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    text = 0.7 * rng.standard_normal((N, 1))
    base = np.exp(text + 0.3 * rng.standard_normal((N, 1)))
    return np.exp(text + 0.3 * rng.standard_normal((N, 3))) * np.array([1.0, 1.3, 1.8]), np.repeat(base, 3, axis=1)


def _lognormal_truth(factors: np.ndarray) -> np.ndarray:
    """d of a lognormal with variance 0.58 of the logarithm against itself times a factor."""
    mean, variance = np.exp(0.29), (np.exp(0.58) - 1) * np.exp(0.58)
    return (factors - 1) * mean / np.sqrt(variance * (factors**2 + 1) / 2)


_lognormal_arms = (_lognormal_truth(np.array([1.0, 1.3, 1.8])), _arms_lognormal)


def _arms_binary(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Yes or no, whichever side of a threshold a normal value falls that a text's arms share in part."""
    text = 0.7 * rng.standard_normal((N, 1))
    base = text + 0.51**0.5 * rng.standard_normal((N, 1)) < scipy_stats.norm.ppf(BINARY[0])
    treated = text + 0.51**0.5 * rng.standard_normal((N, 3)) < scipy_stats.norm.ppf(BINARY)
    return treated.astype(float), np.repeat(base.astype(float), 3, axis=1)


_binary_arms = (
    (BINARY - BINARY[0]) / np.sqrt((BINARY * (1 - BINARY) + BINARY[0] * (1 - BINARY[0])) / 2),
    _arms_binary,
)


def _d(arms: tuple[np.ndarray, np.ndarray], seed: int) -> Ends:
    found = d_intervals(*arms, n_resamples=400, seed=seed)
    return [e.low for e in found], [e.high for e in found]


def _sides(paired: bool) -> Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    """Normal values, a standard deviation apart; those of a pair share most of what varies."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        shared = rng.standard_normal(N) if paired else 0.0
        off, on = (shared + (0.5 if paired else 1.0) * rng.standard_normal(N) for _ in range(2))
        return on + 1, off

    return draw


def _two_scores(paired: bool) -> Callable[[np.random.Generator], tuple[Any, Any]]:
    """Two scores of the same items, which share half of what varies, a deviation and half of one apart."""
    one = _sides(paired)

    def draw(rng: np.random.Generator) -> tuple[Any, Any]:
        shared, first, second = one(rng), one(rng), one(rng)
        scores = [[(a + b) / 2**0.5 for a, b in zip(shared, own, strict=True)] for own in (first, second)]
        (on, off), (other_on, other_off) = scores  # a shift of 1 in both parts is 2 / √2
        return (on - 2**0.5 + 1, off), (other_on - 2**0.5 + 0.5, other_off)

    return draw


def _lead(paired: bool) -> Callable[[tuple[Any, Any], int], Ends]:
    return lambda scores, seed: ends(auroc_lead(*scores, paired=paired, n_resamples=400, seed=seed))


def _auroc(paired: bool) -> Callable[[tuple[np.ndarray, np.ndarray], int], Ends]:
    return lambda sides, seed: ends(auroc_interval(sides, paired=paired, n_resamples=400, seed=seed))


def _masses(rng: np.random.Generator) -> np.ndarray:
    """Activation on the top token and on another, in each text: half of it on the top token, by and large."""
    return np.exp(0.7 * rng.standard_normal((N, 1))) * rng.gamma(1.0, size=(N, 2))


def _concentration(masses: np.ndarray, seed: int) -> Ends:
    """The other half is spread over 50 tokens, so that no draw takes another for the top one."""
    others = np.arange(N) % 50 + 1
    rows = [[0, int(token)] for token in others]
    return ends(top_tokens(rows, list(masses), n_top=1, seed=seed).concentration)


def _profile(centre: float) -> np.ndarray:
    share = np.exp(-((np.array(LAYERS) - centre) ** 2) / 8) + 0.1
    return share / share.sum()


def _curve(rng: np.random.Generator, centre: float) -> Curve:
    """Effects of layers in proportion to a profile, each prompt with a size of its own, and noise."""
    size, noise = rng.lognormal(-0.125, 0.5, size=(N, 1)), rng.standard_normal((N, len(LAYERS)))
    drop = size * _profile(centre) + 0.1 * noise
    return Curve("family", "reasoning", "skip block", LAYERS, len(LAYERS), drop, np.zeros(N))


def _curves(rng: np.random.Generator) -> tuple[Curve, Curve]:
    return _curve(rng, 7), _curve(rng, 4)


def _centroids(curves: tuple[Curve, Curve], seed: int) -> Ends:
    found = compare_depth(*curves, seed=2 * seed)
    return found.low, found.high


def _share_differences(curves: tuple[Curve, Curve], seed: int) -> Ends:
    _, low, high = share_difference(*curves, seed=2 * seed)
    return low, high
