"""How far an edit moves what the model says next, and edits of another kind that move it as far."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saereason import hooks
from saereason.model import Model, Rendered, pad
from saereason.saes import SAE

from .interventions import Intervention
from .steered import steered


@dataclass(frozen=True, eq=False)
class Divergence:
    """KL(edited ‖ clean) of the next token in nats, over texts whose clean distributions are kept.

    Memory: prompts × tokens × `d_vocab` numbers.
    """

    model: Model
    prompts: tuple[tuple[int, ...], ...]
    written: tuple[tuple[int, ...], ...]
    """What follows each prompt; the distributions after the last prompt token and after each of these count."""

    clean: tuple[Float[Tensor, "_ _ d_vocab"], ...]
    batch_size: int

    @classmethod
    def over(
        cls,
        model: Model,
        prompts: Sequence[str | Rendered],
        written: Sequence[Sequence[int]] | None = None,
        *,
        batch_size: int = 16,
    ) -> "Divergence":
        """Of these prompts and what follows them (nothing, if it is not given), as the model now stands."""
        asked = tuple(tuple(model.encode(prompt)) for prompt in prompts)
        said = tuple(tuple(row) for row in written) if written is not None else ((),) * len(asked)
        if not asked or len(said) != len(asked):
            raise ValueError(f"{len(said)} texts follow {len(asked)} prompts; give one for each, at least one.")
        bare = cls(model, asked, said, (), batch_size)
        return cls(model, asked, said, tuple(bare._log_probs(rows) for rows in bare._batches()), batch_size)

    @torch.no_grad()
    def __call__(self, saes: Mapping[int, SAE] | None, intervention: Intervention) -> Float[np.ndarray, "prompt"]:
        """Mean over the tokens that count, for each prompt."""
        found = []
        with steered(self.model, saes, intervention):
            for rows, clean in zip(self._batches(), self.clean, strict=True):
                edited = self._log_probs(rows)
                kl = (edited.exp() * (edited - clean)).sum(-1)
                found += [float(kl[n, -len(self.written[row]) - 1 :].mean()) for n, row in enumerate(rows)]
        return np.array(found)

    def _batches(self) -> list[range]:
        n = len(self.prompts)
        return [range(start, min(start + self.batch_size, n)) for start in range(0, n, self.batch_size)]

    @torch.no_grad()
    def _log_probs(self, rows: range) -> Float[Tensor, "batch pos d_vocab"]:
        model = self.model
        batch = pad([self.prompts[n] + self.written[n] for n in rows], pad_token=model.pad_token, device=model.device)
        keep = 1 + max(len(self.written[n]) for n in rows)
        with hooks.prompts(torch.tensor([len(self.prompts[n]) for n in rows])):
            logits = hooks.run(model, batch, logits_to_keep=keep, use_cache=False).logits
        return logits.float().log_softmax(-1)


def at_kl(
    divergence: Divergence,
    saes: Mapping[int, SAE] | None,
    sized: Callable[[float], Intervention],
    target: float,
    *,
    start: float = 1.0,
    tolerance: float = 0.1,
    most: int = 12,
) -> tuple[Intervention, float]:
    """An intervention of the size at which its mean KL is within `tolerance` of the target, and that KL.

    Secant steps in logarithms from `start` (KL grows with the square of a small size), the best of `most` tries; where
    no size gets there, the nearest, so look at the KL. Raises ValueError unless target and start are positive.
    """
    if not target > 0 or not start > 0:
        raise ValueError(f"the target is {target} nats and the first size {start}; both must be positive.")
    tried: list[tuple[float, float]] = []
    size = start
    for _ in range(most):
        kl = max(float(divergence(saes, sized(size)).mean()), 1e-12)
        tried.append((math.log(size), math.log(kl)))
        if abs(kl / target - 1) <= tolerance:
            break
        size = math.exp(_next(tried, math.log(target)))
    best = min(tried, key=lambda pair: abs(pair[1] - math.log(target)))
    return sized(math.exp(best[0])), math.exp(best[1])


def _next(tried: Sequence[tuple[float, float]], wanted: float) -> float:
    """Where to try next, in logarithms; between the nearest on either side once there are both."""
    size, kl = tried[-1]
    slope = 2.0
    if len(tried) > 1 and tried[-2][0] != size:
        slope = min(max((kl - tried[-2][1]) / (size - tried[-2][0]), 0.5), 8.0)
    guess = size + min(max((wanted - kl) / slope, -3.0), 3.0)
    below = max((s for s, k in tried if k < wanted), default=-math.inf)
    above = min((s for s, k in tried if k > wanted), default=math.inf)
    if below < above and not below < guess < above:
        return (below + above) / 2 if math.isfinite(below + above) else guess
    return guess
