"""Pairs of texts that are alike but for what is asked of, token by token."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from saereason.metrics import Scored

from .localise import Family, UnsuitedError
from .steps import results_of

POSITIONS = ("question", "numbers or subject", "last prompt token", "steps", "answer")
"""Classes of positions, in the order of the text; without steps, the last prompt token is the answer's too."""

MOST_DIFFERENT = 0.25
"""Share of a prompt's tokens in which the two may differ."""


@dataclass(frozen=True)
class Contrast:
    """Two texts of as many tokens, up to where their right answers part."""

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    n_prompt: int

    answers: tuple[int, int]
    """The token that comes next in the clean text, and in the corrupted one."""

    def classes(self) -> Mapping[str, Bool[np.ndarray, "pos"]]:
        """Which tokens belong to each of `POSITIONS`; `answer` is the one that predicts it."""
        place = np.arange(len(self.clean))
        prompt, last = place < self.n_prompt, place == len(place) - 1
        differs = np.array(self.clean) != np.array(self.corrupted)
        ends = place == self.n_prompt - 1
        found = (prompt & ~differs & ~ends, prompt & differs & ~ends, ends, ~prompt & ~last, last)
        return dict(zip(POSITIONS, found, strict=True))


def contrasts(family: Family, n: int = 60, *, among: Family | None = None, seed: int = 0) -> tuple[Contrast, ...]:
    """For up to `n` items, drawn by the seed, the item most like it that has another answer.

    Partners come from `among`, the family itself unless given, have as many tokens and differ in at most a quarter of
    those of the prompt: the same question about other numbers or another subject. The answers part at the first token
    that is not the same of the last result (scored tokens in a row) that is not. No partner serves twice, and no pair
    is another one turned round. Raises UnsuitedError where fewer than two items have a partner.
    """
    items = family.metric.items
    partners = list(dict.fromkeys((family if among is None else among).metric.items))
    draw, free, found = random.Random(seed), set(range(len(partners))), dict[frozenset[Scored], Contrast]()
    for item in draw.sample(items, len(items)):
        pairs = {
            k: pair
            for k in free
            if frozenset((item, partners[k])) not in found and (pair := _contrast(item, partners[k])) is not None
        }
        if pairs:
            nearest = min(map(_distance, pairs.values()))
            chosen = draw.choice([k for k in sorted(pairs) if _distance(pairs[k]) == nearest])
            free.remove(chosen)
            found[frozenset((item, partners[chosen]))] = pairs[chosen]
        if len(found) == n:
            break
    if len(found) < 2:
        raise UnsuitedError(
            f"{len(found)} of {len(items)} items of {family.name} have a partner among {len(partners)}, of as many "
            f"tokens and different in at most {MOST_DIFFERENT:.0%} of its prompt; there is nothing to patch between."
        )
    return tuple(found.values())


def _contrast(item: Scored, other: Scored) -> Contrast | None:
    """The two up to where the last of their results that is not the same begins to differ, if they are alike enough."""
    if len(item.prompt) != len(other.prompt):
        return None
    if sum(a != b for a, b in zip(item.prompt, other.prompt, strict=True)) > MOST_DIFFERENT * len(item.prompt):
        return None
    both = range(min(len(item.scored), len(other.scored)))
    parts = [n for n in both if item.scored[n] and other.scored[n] and item.continuation[n] != other.continuation[n]]
    if not parts:
        return None
    end = next(n for n in parts if n in next(result for result in results_of(item) if parts[-1] in result))
    clean, corrupted = (each.prompt + each.continuation[:end] for each in (item, other))
    if clean == corrupted:
        return None
    return Contrast(clean, corrupted, len(item.prompt), (item.continuation[end], other.continuation[end]))


def _distance(pair: Contrast) -> int:
    return sum(a != b for a, b in zip(pair.clean, pair.corrupted, strict=True))
