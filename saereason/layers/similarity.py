"""How alike states under fast and slow prompts are, layer by layer, beside what that figure is for no reason at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from saereason import hooks
from saereason.model import Model, Rendered, pad
from saereason.stats import linear_cka

Prompts = Sequence[str | Rendered]


@dataclass(frozen=True, eq=False)
class Similarity:
    """Linear CKA of the states of the same items under two prompts."""

    name: str
    cka: Float[np.ndarray, "layer"]
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
    quick, late = ([last_states(model, prompts) for prompts in side] for side in (fast, slow))
    order = np.random.default_rng(seed).permutation(len(fast[0]))
    found = [
        _similarity("fast and slow", quick[0], late[0], False),
        _similarity("two fast wordings", quick[0], quick[1], True),
        _similarity("two slow wordings", late[0], late[1], True),
        _similarity("fast and slow, items shuffled", quick[0], late[0][:, order], True),
    ]
    if random_model is not None:
        states = [last_states(random_model, prompts) for prompts in (fast[0], slow[0])]
        found.append(_similarity("fast and slow, random weights", states[0], states[1], True))
    return found


@torch.no_grad()
def last_states(model: Model, prompts: Prompts, *, batch_size: int = 16) -> Float[np.ndarray, "layer item d_model"]:
    """The residual stream at each prompt's last token, after every block."""
    rows, found = [model.encode(prompt) for prompt in prompts], []
    for start in range(0, len(rows), batch_size):
        batch = pad(rows[start : start + batch_size], pad_token=model.pad_token, device=model.device)
        resid = hooks.read(model, batch, range(model.n_layers))
        found.append(torch.stack([resid[layer][:, -1].float().cpu() for layer in range(model.n_layers)]))
    return torch.cat(found, dim=1).double().numpy()


def _similarity(
    name: str, a: Float[np.ndarray, "layer item d_model"], b: Float[np.ndarray, "layer item d_model"], is_null: bool
) -> Similarity:
    values = np.array([linear_cka(x, y) for x, y in zip(a, b, strict=True)])
    return Similarity(name, values, a.shape[1], is_null)
