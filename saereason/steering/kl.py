"""How far an edit moves what the model says next, and edits of another kind that move it as far."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from saereason import hooks
from saereason.model import Model, Rendered, pad
from saereason.receipts import Receipt
from saereason.saes import SAE

from .directions import AddVector
from .interventions import Intervention
from .on_features import Add
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

    def __call__(self, saes: Mapping[int, SAE] | None, intervention: Intervention) -> Float[np.ndarray, "prompt"]:
        """Mean over the tokens that count, for each prompt."""
        return np.array([float(kl.mean()) for kl in self.by_token(saes, (intervention,))])

    def first(
        self, saes: Mapping[int, SAE] | None, interventions: Sequence[Intervention]
    ) -> Float[np.ndarray, "prompt"]:
        """At the first token that they make differ from the clean run, for each prompt; 0 where there is none.

        Before the first edited position a run is the clean one to the bit. NaN where they never fire in these texts.
        """
        found, receipt = self._measured(saes, interventions, may_be_silent=True)
        if not receipt.firings:
            return np.full(len(found), np.nan)
        return np.array([next((k for k in kl.tolist() if k != 0), 0.0) for kl in found])

    def by_token(
        self, saes: Mapping[int, SAE] | None, interventions: Sequence[Intervention]
    ) -> list[Float[np.ndarray, "token"]]:
        """At each of the tokens that count, for each prompt."""
        return self._measured(saes, interventions)[0]

    @torch.no_grad()
    def _measured(
        self, saes: Mapping[int, SAE] | None, interventions: Sequence[Intervention], *, may_be_silent: bool = False
    ) -> tuple[list[Float[np.ndarray, "token"]], Receipt]:
        found = []
        with steered(self.model, saes, *interventions, may_be_silent=may_be_silent) as steering:
            for rows, clean in zip(self._batches(), self.clean, strict=True):
                edited = self._log_probs(rows)
                kl = (edited.exp() * (edited - clean)).sum(-1).cpu().numpy()
                found += [kl[n, -len(self.written[row]) - 1 :] for n, row in enumerate(rows)]
        return found, steering.receipt

    def _batches(self) -> list[range]:
        n = len(self.prompts)
        return [range(start, min(start + self.batch_size, n)) for start in range(0, n, self.batch_size)]

    def fisher(self, saes: Mapping[int, SAE] | None, intervention: Intervention) -> Float[np.ndarray, "prompt"]:
        """`Var_p(Jv)`, where `Jv` is how fast the logits move with the size of an additive intervention.

        Under the clean distribution p, mean over the tokens that count. KL is half of it times the squared size, to
        second order.
        """
        found = []
        for rows, clean, speed in zip(self._batches(), self.clean, self._speeds(saes, intervention), strict=True):
            p = clean.exp()
            variance = (p * speed.square()).sum(-1) - (p * speed).sum(-1).square()
            found += self._means(variance, rows)
        return np.array(found)

    def curvature(
        self, saes: Mapping[int, SAE] | None, intervention: Intervention, *, step: float
    ) -> tuple[Float[np.ndarray, "prompt"], Float[np.ndarray, "prompt"]]:
        """`‖Jv‖`, and how fast `Jv` itself moves with the size, as a norm, over a step of it."""
        speeds, curves = [], []
        bent = self._speeds(saes, intervention, size=step)
        for rows, still, moved in zip(self._batches(), self._speeds(saes, intervention), bent, strict=True):
            speeds += self._means(still.norm(dim=-1), rows)
            curves += self._means((moved - still).norm(dim=-1) / step, rows)
        return np.array(speeds), np.array(curves)

    def _means(self, values: Float[Tensor, "batch pos"], rows: range) -> list[float]:
        """Of each row, over the tokens that count."""
        return [float(values[n, -len(self.written[row]) - 1 :].mean()) for n, row in enumerate(rows)]

    def _speeds(
        self, saes: Mapping[int, SAE] | None, intervention: Intervention, *, size: float = 0.0
    ) -> Iterator[Float[Tensor, "batch pos d_vocab"]]:
        """How fast the logits move with the size of an intervention, at some size of it: forward-mode derivatives."""
        where = intervention.when.where(self.model, saes or {})

        def dual(at: hooks.Visit) -> Tensor:
            unit = intervention.change(saes or {}, at).contiguous()
            return forward_ad.make_dual(size * unit, unit)

        edit = hooks.Edit(intervention.layer, str(intervention), where, dual, intervention.when.reads)
        for rows in self._batches():
            with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), hooks.edited(self.model, [edit]):
                speed = forward_ad.unpack_dual(self._logits(rows)).tangent
            if speed is None:
                raise ValueError(f"{intervention} moves no logit: no token that counts comes after an edited one.")
            yield speed.float()

    def _log_probs(self, rows: range) -> Float[Tensor, "batch pos d_vocab"]:
        return self._logits(rows).float().log_softmax(-1)

    @torch.no_grad()
    def _logits(self, rows: range) -> Float[Tensor, "batch pos d_vocab"]:
        model = self.model
        batch = pad([self.prompts[n] + self.written[n] for n in rows], pad_token=model.pad_token, device=model.device)
        keep = 1 + max(len(self.written[n]) for n in rows)
        with hooks.prompts(torch.tensor([len(self.prompts[n]) for n in rows])):
            return hooks.run(model, batch, logits_to_keep=keep, use_cache=False).logits


def at_kl(
    divergence: Divergence,
    saes: Mapping[int, SAE] | None,
    sized: Callable[[float], Intervention],
    target: float,
    *,
    start: float | None = None,
    tolerance: float = 0.1,
    most: int = 12,
) -> tuple[Intervention, float]:
    """An intervention of the size at which its mean KL is within `tolerance` of the target, and that KL.

    Secant steps in logarithms from `start`, the best of `most` tries; where no size gets there, the nearest, so look at
    the KL. Without a start it is `fisher_size`, which is for what adds. Raises ValueError unless target and start are
    positive.
    """
    if not target > 0 or not (start is None or start > 0):
        raise ValueError(f"the target is {target} nats and the first size {start}; both must be positive.")
    tried: list[tuple[float, float]] = []
    size = fisher_size(divergence, saes, sized(1.0), target) if start is None else start
    for _ in range(most):
        kl = max(float(divergence(saes, sized(size)).mean()), 1e-12)
        tried.append((math.log(size), math.log(kl)))
        if abs(kl / target - 1) <= tolerance:
            break
        size = math.exp(_next(tried, math.log(target)))
    best = min(tried, key=lambda pair: abs(pair[1] - math.log(target)))
    return sized(math.exp(best[0])), math.exp(best[1])


def fisher_size(
    divergence: Divergence, saes: Mapping[int, SAE] | None, intervention: Intervention, target: float
) -> float:
    """By what to multiply an additive intervention for a mean KL of `target` nats: `√(2 · target / mean Var_p(Jv))`.

    To second order in the size. Raises ValueError for an intervention that does not add, and where no size would do.
    """
    _check_adds(intervention)
    variance = float(divergence.fisher(saes, intervention).mean())
    if not variance > 0:
        raise ValueError(f"{intervention} does not move what the model says next; there is no size for it.")
    return math.sqrt(2 * target / variance)


def asc_size(
    divergence: Divergence,
    saes: Mapping[int, SAE] | None,
    intervention: Intervention,
    target: float,
    *,
    step: float = 1.0,
) -> float:
    """ASC's bound, for comparison: the size s at which `¼(a·s + ½L·s²)²` is the target (arXiv 2507.04742).

    That is `(√(a² + 4L√target) − a) / L`; `a = ‖Jv‖` and L, the curvature over a `step` of the size, are means over the
    prompts. It takes norms over the whole vocabulary where KL weighs tokens by probability, so it allows far less than
    the target. Raises ValueError for an intervention that does not add.
    """
    _check_adds(intervention)
    speeds, curves = divergence.curvature(saes, intervention, step=step)
    a, bend = float(speeds.mean()), float(curves.mean())
    if bend == 0:
        return 2 * math.sqrt(target) / a
    return (math.sqrt(a * a + 4 * bend * math.sqrt(target)) - a) / bend


def _check_adds(intervention: Intervention) -> None:
    if not isinstance(intervention, Add | AddVector) or intervention.keep_norm:
        raise ValueError(f"{intervention} does not add; give an Add or an AddVector, or a first size for `at_kl`.")


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
