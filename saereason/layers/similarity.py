"""How alike states under fast and slow prompts are, layer by layer, beside what that figure is for no reason at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from saereason.model import Model, Rendered
from saereason.stats import cka_error, linear_cka

from .states import last_states

Prompts = Sequence[str | Rendered]


@dataclass(frozen=True, eq=False)
class Similarity:
    """Linear CKA of the states of the same items under two prompts."""

    name: str
    cka: Float[np.ndarray, "layer"]
    error: Float[np.ndarray, "layer"]
    """Its standard error over items, by the jackknife."""

    n: int
    is_null: bool
    """True for what the comparison gives where no thinking is compared with none."""


def similarities(
    model: Model,
    fast: tuple[Prompts, Prompts],
    slow: tuple[Prompts, Prompts],
    *,
    random_model: Model | None = None,
    seed: int = 0,
) -> list[Similarity]:
    """Linear CKA at the last prompt token after every block: fast against slow, and its nulls.

    `fast` and `slow` each hold two wordings of one instruction, for the same items in the same order; the first of each
    are compared. Nulls: the two fast wordings, the two slow wordings, fast against slow with the items shuffled (what
    unrelated items give), and fast against slow in a model with random weights (what the prompts' tokens alone give).
    """
    sizes = {len(prompts) for prompts in (*fast, *slow)}
    if len(sizes) != 1 or max(sizes) < 2:
        raise ValueError(f"the prompts are {sorted(sizes)}; give two wordings of each, for the same items.")
    quick, late = ([_ends(model, prompts) for prompts in side] for side in (fast, slow))
    order = np.random.default_rng(seed).permutation(len(fast[0]))
    found = [
        _similarity("fast and slow", quick[0], late[0], False),
        _similarity("two fast wordings", quick[0], quick[1], True),
        _similarity("two slow wordings", late[0], late[1], True),
        _similarity("fast and slow, items shuffled", quick[0], late[0][:, order], True),
    ]
    if random_model is not None:
        states = [_ends(random_model, prompts) for prompts in (fast[0], slow[0])]
        found.append(_similarity("fast and slow, random weights", states[0], states[1], True))
    return found


def _ends(model: Model, prompts: Prompts) -> Float[np.ndarray, "layer item d_model"]:
    return last_states(model, [model.encode(prompt) for prompt in prompts])


def _similarity(
    name: str, a: Float[np.ndarray, "layer item d_model"], b: Float[np.ndarray, "layer item d_model"], is_null: bool
) -> Similarity:
    values, errors = (np.array([of(x, y) for x, y in zip(a, b, strict=True)]) for of in (linear_cka, cka_error))
    return Similarity(name, values, errors, a.shape[1], is_null)
