"""How far an edit moves what the model says next."""

from collections.abc import Iterator, Mapping, Sequence
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

from .interventions import Intervention
from .steered import check_fit, steered

ABOVE_ROUNDING = 5.0
"""How many times the KL of rounding alone a KL must be to be told from it."""


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
        model.check_tokens([token for row in said for token in row])
        longest = max(len(a) + len(b) for a, b in zip(asked, said, strict=True))
        if longest > model.n_ctx:
            raise ValueError(
                f"a prompt and what follows it have {longest} tokens and the context of {model.name} is {model.n_ctx}; "
                "shorten them."
            )
        bare = cls(model, asked, said, (), batch_size)
        return cls(model, asked, said, tuple(bare._log_probs(rows) for rows in bare._batches()), batch_size)

    def __call__(self, saes: Mapping[int, SAE] | None, intervention: Intervention) -> Float[np.ndarray, "prompt"]:
        """Mean over the tokens that count, for each prompt."""
        return np.array([float(kl.mean()) for kl in self.by_token(saes, (intervention,))])

    def first(
        self, saes: Mapping[int, SAE] | None, interventions: Sequence[Intervention]
    ) -> Float[np.ndarray, "prompt"]:
        """At the first token that they make differ from the clean run, for each prompt; 0 where there is none.

        Before the first edited position a run is the clean one to the bit. NaN for a prompt where they never fire.
        """
        found, receipt = self._measured(saes, interventions, may_be_silent=True)
        reached = {row for edit in receipt.edits for row in edit.rows}
        first = [next((k for k in kl.tolist() if k != 0), 0.0) for kl in found]
        return np.array([kl if n in reached else np.nan for n, kl in enumerate(first)])

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
                found += self._kl(rows, clean)
        return found, steering.receipt

    @torch.no_grad()
    def least(self, saes: Mapping[int, SAE] | None, intervention: Intervention) -> float:
        """The smallest mean KL that can be told from rounding where an intervention acts, in the model's precision.

        Five times that of a change of the residual stream there by half a unit in its last place, up or down.
        """
        check_fit(self.model, saes or {}, (intervention,))
        where, found = intervention.when.where(self.model, saes or {}), []
        signs = torch.rand(self.model.d_model, generator=torch.Generator().manual_seed(0)).round() - 0.5

        def nudge(at: hooks.Visit) -> Tensor:
            return at.resid * signs.to(at.resid) * torch.finfo(self.model.dtype).eps

        edit = hooks.Edit(
            intervention.layer, "rounding", lambda at: where(at).bool(), nudge, reads=intervention.when.reads
        )
        with hooks.edited(self.model, [edit]):
            for rows, clean in zip(self._batches(), self.clean, strict=True):
                found += [abs(float(kl.mean())) for kl in self._kl(rows, clean)]
        return ABOVE_ROUNDING * max(float(np.mean(found)), torch.finfo(torch.float32).eps)

    def _kl(self, rows: range, clean: Float[Tensor, "batch pos d_vocab"]) -> list[Float[np.ndarray, "token"]]:
        """Of each row as the model now stands, at the tokens that count."""
        edited = self._log_probs(rows)
        kl = (edited.exp() * (edited - clean)).sum(-1).cpu().numpy()
        return [kl[n, -len(self.written[row]) - 1 :] for n, row in enumerate(rows)]

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
        check_fit(self.model, saes or {}, (intervention,))
        where = intervention.when.where(self.model, saes or {})

        def dual(at: hooks.Visit) -> Tensor:
            unit = intervention.delta(saes or {}, at).contiguous()
            return forward_ad.make_dual(size * unit, unit)

        edit = hooks.Edit(intervention.layer, str(intervention), where, dual, reads=intervention.when.reads)
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
        with hooks.prompts(torch.tensor([len(self.prompts[n]) for n in rows]), torch.tensor(rows)):
            return hooks.run(model, batch, logits_to_keep=keep, use_cache=False).logits
