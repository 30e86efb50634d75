"""The positive: the value between two steps of a sum, which a feature of the toy model really stands for."""

from collections.abc import Sequence

import numpy as np

from saereason.controls import Behaviour, Sample
from saereason.effects import Opens, Trial
from saereason.examples import Examples
from saereason.model import Model
from saereason.steering import Steps

from . import language
from .language import BASE, CHATTER, ID, ROW, Sum

MOST = BASE * len(CHATTER) * 3 // 4
"""Sums that are drawn at most: three quarters of the openings that come to a value."""


def value_between(
    model: Model, value: int, *, n_discovery: int = 96, n_confirmation: int = 96, n_plain: int = 400, seed: int = 0
) -> Behaviour:
    """Sums whose first step comes to `value` against sums with another digit there, compared at the `=`.

    Steering acts once, at the `=` of a sum that lacks its first digit, so that no value is there; the behaviour shows,
    and the task is done, where the sum then ends as if its first step had come to this one. For a model of
    `sums_model`. Raises ValueError for a value that no sum comes to, and for more sums than open differently.
    """
    if not 0 <= value < BASE:
        raise ValueError(f"no first step comes to {value}; give a value from 0 to {BASE - 1}.")
    if n_discovery + n_confirmation > MOST:
        raise ValueError(
            f"{n_discovery} sums for discovery and {n_confirmation} for confirmation are too many to open differently; "
            f"give {MOST} at most in all."
        )
    rng = np.random.default_rng(seed)
    on, others = _sums(n_discovery + n_confirmation, value, rng)
    first, second = slice(0, n_discovery), slice(n_discovery, None)
    absent = _trial(others[second], value, rng, lacking=True)
    return Behaviour(
        name=f"the value {value} between two steps",
        discovery=_sample(model, on[first], _halved(others[first], rng)),
        confirmation=_sample(model, on[second], _halved(others[second], rng)),
        showing=tuple(language.after_chatter([*s.opening.split(), "="], rng) for s in on[first]),
        plain=tuple(language.chatter(n_plain, rng, 2 * ROW)),
        matched=_sample(model, on[second], [s.opening for s in others[second]]),
        paraphrases=tuple(
            language.after_chatter([*s.opening.split(), "=", str(value)], rng)
            for s in on[second][: n_confirmation // 2]
        ),
        rehearsal=_trial(others[first], value, rng, lacking=True),
        absent=absent,
        present=_trial(on[second], value, rng),
        task=absent,
        when=Steps(-3, -3),
    )


def _sums(n: int, value: int, rng: np.random.Generator) -> tuple[list[Sum], list[Sum]]:
    """Sums that come to the value, and as many that do not and differ from them in one digit; no two open alike."""
    on: list[Sum] = []
    others: list[Sum] = []
    opened: set[str] = set()
    while len(on) < n:
        a, c = map(int, rng.integers(BASE, size=2))
        x, y = map(str, rng.choice(CHATTER, size=2))
        one, shift = Sum(a, (value - a) % BASE, c, (x, y)), int(rng.integers(1, BASE))
        digits = ((a + shift) % BASE, one.b) if len(on) % 2 else (a, (one.b + shift) % BASE)
        other = Sum(*digits, c, (x, y))
        if opened.isdisjoint({one.opening, other.opening}):
            opened |= {one.opening, other.opening}
            on.append(one)
            others.append(other)
    return on, others


def _halved(sums: Sequence[Sum], rng: np.random.Generator) -> list[str]:
    """The sums up to their `=`, every sixth without its first digit."""
    return [_beheaded(s.opening, rng) if n % 6 == 0 else s.opening for n, s in enumerate(sums)]


def _beheaded(text: str, rng: np.random.Generator) -> str:
    """The text with a word of chatter in place of its first digit."""
    return " ".join([str(rng.choice(CHATTER)), *text.split()[1:]])


def _sample(model: Model, on: Sequence[Sum], openings: Sequence[str]) -> Sample:
    """Pairs scored at the `=`."""
    equals = [[ID["="]]] * len(on)
    examples = Examples.pair(model, [s.opening for s in on], openings, written=(equals, equals))
    return Sample(examples, tuple(s.question for s in on))


def _trial(sums: Sequence[Sum], value: int, rng: np.random.Generator, *, lacking: bool = False) -> Trial:
    """The sums to be ended, whole or lacking their first digits, as if the value between were this one."""
    wanted = tuple((ID["gives"], ID[str((value + s.c) % BASE)]) for s in sums)
    questions = tuple(_beheaded(s.question, rng) if lacking else s.question for s in sums)
    return Trial(questions, Opens(wanted), tuple(s.question for s in sums), 2)
