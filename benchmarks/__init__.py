"""Programs that measure saereason against its peers: the same work, in one run, the two sides interleaved."""

import json
from collections.abc import Callable
from statistics import median
from time import perf_counter

ROUNDS = 5


def interleaved(
    sides: dict[str, Callable[[], int]], *, rounds: int = ROUNDS, warm: bool = True
) -> dict[str, list[float]]:
    """Run every side once to warm up (unless a round is long) and then in turn; units per second of each round.

    Each round begins with another side, so that none always follows the same one.
    """
    if warm:
        for side in sides.values():
            side()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for n in range(rounds):
        names = list(sides)
        for name in names[n % len(names) :] + names[: n % len(names)]:
            start = perf_counter()
            done = sides[name]()
            rates[name].append(done / (perf_counter() - start))
    return rates


def report(rates: dict[str, list[float]], ratios: dict[str, tuple[str, str]], **facts: object) -> None:
    """Print the median figure of each side, and last one JSON line with the median of the rounds' ratios."""
    for name, figures in rates.items():
        print(f"{name}: {median(figures):.1f} a second ({min(figures):.1f} to {max(figures):.1f})")
    found = {
        name: round(median(a / b for a, b in zip(rates[first], rates[second], strict=True)), 3)
        for name, (first, second) in ratios.items()
    }
    print(json.dumps({**found, "rates": {n: [round(x, 1) for x in r] for n, r in rates.items()}, **facts}))
