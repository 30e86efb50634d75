"""Two- and three-step word problems whose intermediate results are known.

A template is a story with slots and a small program over them. Which split a problem belongs to is a function of
its numbers alone (`split_of`), so that no problem can be in two splits, whatever seed drew it.
"""

import hashlib
import operator
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .templates import TAUGHT, Template

Split = Literal["train", "discovery", "confirmation"]

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}
NAMES = ("Tom", "Anna", "Ben", "Maria", "Sam", "Lucy", "Omar", "Nina", "Paul", "Ivy", "Leo", "Rosa")
THINGS = ("apples", "books", "coins", "marbles", "pens", "shells", "stamps", "cards", "beads", "stones")
LARGEST_RESULT = 99
MOST_DRAWS, MOST_REPEATS = 20_000, 10_000
"""Draws for one problem, and problems drawn again in a row, after which the templates count as exhausted."""


@dataclass(frozen=True)
class Step:
    """One line of working: `left sign right = result`."""

    left: int
    sign: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right} = {self.result}"

    @property
    def is_even(self) -> bool:
        """False for a division with a remainder."""
        return self.sign != "/" or self.result * self.right == self.left


@dataclass(frozen=True)
class Problem:
    """A word problem with its gold working; `template` and `numbers` identify it."""

    template: str
    numbers: tuple[int, ...]
    question: str
    steps: tuple[Step, ...]

    @property
    def answer(self) -> str:
        return str(self.steps[-1].result)

    @property
    def solution(self) -> str:
        """The working in steps, closed by the answer."""
        return f"{working(self.steps)[0]}The answer is {self.answer}."

    def result_spans(self) -> list[tuple[int, int]]:
        """Character ranges, within `solution`, of each *computed* result: what stands right after an equals sign."""
        return working(self.steps)[1]


def working(steps: Sequence[Step]) -> tuple[str, list[tuple[int, int]]]:
    """Steps as text, a line each, and where in it each result stands."""
    text, spans = "", []
    for n, step in enumerate(steps, 1):
        text += f"Step {n}: {step}"
        spans.append((len(text) - len(str(step.result)), len(text)))
        text += ".\n"
    return text, spans


def sums(n: int, rng: random.Random) -> list[Step]:
    """Bare sums of the sizes that the problems have; two in five add, two subtract, one multiplies."""
    found: list[Step] = []
    while len(found) < n:
        sign = rng.choice("++--*")
        pair = [rng.randint(2, 9 if sign == "*" else LARGEST_RESULT), rng.randint(2, LARGEST_RESULT)]
        left, right = rng.sample(pair, 2)
        result = OPERATIONS[sign](left, right)
        if 1 < result <= LARGEST_RESULT:
            found.append(Step(left, sign, right, result))
    return found


def split_of(template: str, numbers: Sequence[int]) -> Split:
    """The split a problem belongs to, from its numbers alone: 70% train, 15% discovery, 15% confirmation."""
    digest = hashlib.sha256(f"{template} {list(numbers)}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    return "train" if share < 0.70 else "discovery" if share < 0.85 else "confirmation"


def problems(n: int, *, seed: int, split: Split, templates: Sequence[Template] = TAUGHT) -> tuple[Problem, ...]:
    """`n` different problems of one split, templates in turn; the same seed draws the same problems.

    Raises ValueError for templates that do not yield as many.
    """
    if n < 0:
        raise ValueError(f"{n} problems were asked for; give a number from 0.")
    found: dict[tuple[str, tuple[int, ...]], Problem] = {}
    rng, repeats = random.Random(f"{seed} {split}"), 0
    for template in _in_turn(templates):
        if len(found) == n:
            break
        problem = _draw(template, rng, split)
        key = (problem.template, problem.numbers)
        repeats = repeats + 1 if key in found else 0
        if repeats == MOST_REPEATS:
            raise ValueError(
                f"the templates yield about {len(found)} different problems for {split} and {n} were asked for; "
                "ask for fewer, or give more templates."
            )
        found.setdefault(key, problem)
    return tuple(found.values())


def _in_turn(templates: Sequence[Template]) -> Iterator[Template]:
    if not templates:
        raise ValueError("no templates to draw problems from; give at least one.")
    while True:
        yield from templates


def _draw(template: Template, rng: random.Random, split: Split) -> Problem:
    for _ in range(MOST_DRAWS):
        numbers = {x: rng.randint(2, 9 if x in template.small else 99) for x in template.letters}
        if split_of(template.key, list(numbers.values())) != split:
            continue
        steps = _work(template, numbers)
        if all(step.is_even and 1 < step.result <= LARGEST_RESULT for step in steps):
            name, other = rng.sample(NAMES, 2)
            question = template.story.format(name=name, other=other, things=rng.choice(THINGS), **numbers)
            return Problem(template.key, tuple(numbers.values()), question, steps)
    raise ValueError(
        f"the template {template.key} gave no problem for {split} in {MOST_DRAWS:,} draws; every result must be from 2 "
        f"to {LARGEST_RESULT}, and some numbers must fall into that split."
    )


def _work(template: Template, numbers: dict[str, int]) -> tuple[Step, ...]:
    values, steps = dict(numbers), []
    for n, line in enumerate(template.working, 1):
        left, sign, right = line.split()
        result = OPERATIONS[sign](values[left], values[right])
        values[str(n)] = result
        steps.append(Step(values[left], sign, values[right], result))
    return tuple(steps)
