"""How good an SAE is on the model it is asked to serve."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from . import hooks
from .model import Batch, Model, pad
from .saes import SAE, Encoder, check_saes


@dataclass(frozen=True, eq=False)
class Quality:
    """Measured over tokens that are neither padding nor the first of their text (its residual norm is enormous)."""

    layer: int

    explained_variance: float
    """1 − Σ|x − x̂|² / Σ|x − mean x|²."""

    l0: float
    """Mean number of active features a token."""

    dead: float
    """Share of features that fired on none of these tokens."""

    loss_clean: float
    """Cross-entropy of the next token, nats per token, as the model stands."""

    loss_spliced: float
    """The same with the SAE's output in place of the residual stream (a text's first token is left)."""

    loss_mean_ablated: float
    """The same with the mean of these tokens in its place."""

    loss_recovered: float
    """(loss with the mean − loss with the SAE's output) / (loss with the mean − clean loss)."""

    mean_norm: float
    """Mean |x|."""

    n_tokens: int
    firing_rate: np.ndarray
    """Share of tokens on which each feature fires, `[d_sae]`."""


def carded(saes: Mapping[int, SAE], qualities: Sequence[Quality]) -> Mapping[int, SAE]:
    """The same SAEs, with their quality noted in their metadata, where `preflight` and `publishable` look for it."""
    for quality in qualities:
        noted = {name: value for name, value in vars(quality).items() if name not in ("layer", "firing_rate")}
        saes[quality.layer].cfg.metadata["quality"] = noted
    return saes


@torch.no_grad()
def evaluate_saes(
    model: Model,
    saes: Mapping[int, SAE],
    rows: Sequence[Sequence[int]],
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Quality]:
    """Quality of every SAE on rows of token ids.

    One forward pass for the statistics of all layers and the clean loss; each layer's other two losses resume after it.
    Raises ValueError for rows without two tokens to measure, in all.
    """
    check_saes(model, saes)
    if sum(max(0, len(row) - 1) for row in rows) < 2:
        raise ValueError(f"{len(rows)} rows have no tokens to measure (the first of each is left out); give more text.")
    sums = {layer: Sums.empty(saes[layer]) for layer in sorted(saes)}
    batches = [
        pad(rows[n : n + batch_size], pad_token=0, side="right", device=model.device)
        for n in range(0, len(rows), batch_size)
    ]
    firsts: list[dict[int, Tensor]] = []
    total = len(batches) * (1 + 2 * len(sums))
    done, clean, spliced, ablated = 0, 0.0, dict.fromkeys(sums, 0.0), dict.fromkeys(sums, 0.0)
    for batch in batches:
        with hooks.reading(model, list(sums)) as read:
            clean += _loss(model, batch)
        firsts.append({layer: resid[:, :1].clone() for layer, resid in read.items()})
        progress(done := done + 1, total)
        for layer in sums:
            resid, at = read.pop(layer), scored(batch)
            seen, rebuilt = observe(saes[layer], resid[at].float())
            sums[layer] += seen
            resid[at] = rebuilt.to(resid)
            spliced[layer] += _loss_from(model, batch, layer, resid)
            progress(done := done + 1, total)
    for batch, first in zip(batches, firsts, strict=True):
        for layer, seen in sums.items():
            mean = (seen.x / seen.n).to(first[layer]).expand(len(batch.tokens), batch.tokens.shape[1] - 1, -1)
            ablated[layer] += _loss_from(model, batch, layer, torch.cat([first[layer], mean], dim=1))
            progress(done := done + 1, total)
    return [_quality(layer, seen, clean, spliced[layer], ablated[layer]) for layer, seen in sums.items()]


@torch.no_grad()
def firing_rates(
    model: Model, saes: Mapping[int, SAE], rows: Sequence[Sequence[int]], *, batch_size: int = 16
) -> dict[int, Float[np.ndarray, "d_sae"]]:
    """Share of tokens, each row's first left out, on which each feature of each SAE fires; one pass over the rows."""
    check_saes(model, saes)
    encoders = {layer: Encoder.of(sae, model.dtype) for layer, sae in saes.items()}
    fired, n = {layer: torch.zeros(len(sae.W_dec), dtype=torch.long) for layer, sae in saes.items()}, 0
    for start in range(0, len(rows), batch_size):
        batch = pad(rows[start : start + batch_size], pad_token=0, side="right", device=model.device)
        at, resid = scored(batch), hooks.read(model, batch, list(saes))
        n += int(at.sum())
        for layer, encoder in encoders.items():
            fired[layer] += encoder(resid[layer][at]).index.bincount(minlength=encoder.d_sae).cpu()
    if not n:
        raise ValueError(f"{len(rows)} rows have no tokens to measure (the first of each is left out); give more text.")
    return {layer: (counts / n).double().numpy() for layer, counts in fired.items()}


@dataclass(frozen=True, eq=False)
class Sums:
    """What the statistics of an SAE on some tokens are made of; adds up over batches."""

    n: int
    x: Tensor
    x_square: float
    error: float
    norm: float
    fired: Tensor
    """Tokens on which each feature fired."""

    @classmethod
    def empty(cls, sae: SAE) -> "Sums":
        d_sae, d_model = sae.W_dec.shape
        x, fired = torch.zeros(d_model, dtype=torch.float64), torch.zeros(d_sae, dtype=torch.float64)
        return cls(0, x, 0.0, 0.0, 0.0, fired)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def explained_variance(self) -> float:
        return 1 - _ratio(self.error, self.x_square - (self.x.square().sum() / self.n).item())

    @property
    def l0(self) -> float:
        return (self.fired.sum() / self.n).item()

    @property
    def mean_norm(self) -> float:
        return self.norm / self.n


def observe(sae: SAE, x: Float[Tensor, "row d_model"]) -> tuple[Sums, Float[Tensor, "row d_model"]]:
    """What an SAE does with some tokens, and its reconstruction of them."""
    acts = sae.encode(x)
    rebuilt = sae.decode(acts)
    error = (x - rebuilt).cpu().double().square().sum().item()  # not every device has float64
    wide = x.cpu().double()
    fired = (acts > 0).sum(0).cpu().double()
    norm = wide.norm(dim=-1).sum().item()
    return Sums(len(x), wide.sum(0), wide.square().sum().item(), error, norm, fired), rebuilt


def scored(batch: Batch) -> Bool[Tensor, "batch pos"]:
    """The tokens that are neither padding nor the first of their row, where that stands on the left."""
    at = batch.mask.clone()
    at[:, 0] = False
    return at


def _quality(layer: int, seen: Sums, clean: float, spliced: float, ablated: float) -> Quality:
    return Quality(
        layer=layer,
        explained_variance=seen.explained_variance,
        l0=seen.l0,
        dead=(seen.fired == 0).double().mean().item(),
        loss_clean=clean / seen.n,
        loss_spliced=spliced / seen.n,
        loss_mean_ablated=ablated / seen.n,
        loss_recovered=_ratio(ablated - spliced, ablated - clean),
        mean_norm=seen.mean_norm,
        n_tokens=seen.n,
        firing_rate=(seen.fired / seen.n).numpy(),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _loss_from(model: Model, batch: Batch, layer: int, resid: hooks.Resid) -> float:
    with hooks.resumed(model, layer, resid):
        return _loss(model, batch)


def _loss(model: Model, batch: Batch) -> float:
    """Sum over tokens of the next-token cross-entropy, nats; a row at a time, which is several times as fast."""
    logits = hooks.run(model, batch, use_cache=False).logits[:, :-1]
    targets = batch.tokens[:, 1:].masked_fill(~batch.mask[:, 1:], -100)  # which torch leaves out
    rows = zip(logits, targets, strict=True)
    return sum(cross_entropy(row.float(), said, reduction="none").cpu().double().sum().item() for row, said in rows)
