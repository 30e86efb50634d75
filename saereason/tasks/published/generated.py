"""Tasks that reasoning-gym generates without end (Stojanovski et al. 2025), each graded by its generator's own rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from random import Random
from typing import Any

from ..task import Item

PREFIX = "reasoning-gym/"
MOST_TRIES = 20
"""Questions drawn for one that has not been asked yet."""


@dataclass(frozen=True)
class Score:
    """A generator's own score of an answer to one of its questions, from 0 to 1."""

    generator: str
    question: str
    dataset: Any = field(compare=False, repr=False)
    entry: Mapping[str, Any] = field(compare=False, repr=False)

    def __call__(self, answer: str) -> float:
        try:
            return float(self.dataset.score_answer(answer, self.entry))
        except Exception:  # some generators' rules fail on what they cannot read
            return 0.0


def generated_items(name: str, n: int | None, seed: int) -> tuple[Item, ...]:
    """`n` different questions of the generator `reasoning-gym/…`; fewer are among more.

    Raises ValueError for a generator that is not there, for no `n`, and where it has not as many questions.
    """
    if n is None or n < 1:
        raise ValueError(f"{name} is generated without end, and n is {n}; give a number from 1.")
    dataset = _dataset(name, n * MOST_TRIES, seed)
    items: dict[str, Item] = {}
    for k in range(n * MOST_TRIES):
        entry = dataset[k]
        items.setdefault(entry["question"], _item(name, k, entry, dataset))
        if len(items) == n:
            return tuple(items.values())
    raise ValueError(f"{name} gave {len(items)} different questions and {n} were asked for; ask for no more than that.")


def _dataset(name: str, size: int, seed: int) -> Any:
    try:
        from reasoning_gym import create_dataset
        from reasoning_gym.factory import DATASETS
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} needs the package reasoning-gym, which is not there; install it with pip.") from error
    generator, known = name.removeprefix(PREFIX), sorted(set(DATASETS) - {"composite"})
    if generator not in known:
        near = get_close_matches(generator, known, 5, 0.5)
        there = f"near it are {near}" if near else f"there are {known}"
        raise ValueError(f"no generator {generator!r} in reasoning-gym; {there}.")
    # item k of seed s is item k - 1 of seed s + 1 there
    return create_dataset(generator, size=size, seed=Random(seed).getrandbits(31))


def _item(name: str, k: int, entry: Mapping[str, Any], dataset: Any) -> Item:
    """The answer is empty where the generator keeps none and checks what it is given."""
    answer = entry["answer"]
    return Item(
        f"{name.removeprefix(PREFIX)}/{k + 1}",
        entry["question"].strip(),
        answer.strip() if isinstance(answer, str) else "",
        score=Score(name, entry["question"], dataset, entry),
    )
