"""What a mechanism changes inside the model, against the direct prompt on the same items: its fingerprint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saereason import hooks
from saereason.model import Model, pad
from saereason.prefixes import begun
from saereason.saes import SAE, Encoder

from .mechanism import Mechanism, Progress, Written, unseen

Items = Float[np.ndarray, "_ _"]


@dataclass(frozen=True, eq=False)
class States:
    """Means over the positions that predict an item's answer: the prompt's last, and all of the answer but its last.

    By layer, `[item, ·]`: the residual stream, and the activation of every feature.
    """

    resid: Mapping[int, Items]
    acts: Mapping[int, Items]

    def part(self, items: slice) -> "States":
        """Of some of the items."""
        return States({n: x[items] for n, x in self.resid.items()}, {n: x[items] for n, x in self.acts.items()})

    def less(self, other: "States") -> "States":
        """The difference, item by item."""
        return States(
            {layer: self.resid[layer] - other.resid[layer] for layer in self.resid},
            {layer: self.acts[layer] - other.acts[layer] for layer in self.acts},
        )


def states(
    model: Model,
    saes: Mapping[int, SAE],
    mechanism: Mechanism,
    found: Written,
    *,
    batch_size: int = 16,
    progress: Progress = unseen,
) -> States:
    """The states in which the answers were written, the mechanism in force, at every layer with an SAE.

    What a mechanism spends on other calls or paths is not looked at.
    """
    [whole] = states_at(model, saes, mechanism, found, [(-1, model.n_ctx)], batch_size=batch_size, progress=progress)
    return whole


@torch.no_grad()
def states_at(
    model: Model,
    saes: Mapping[int, SAE],
    mechanism: Mechanism,
    found: Written,
    windows: Sequence[tuple[int, int]],
    *,
    batch_size: int = 16,
    progress: Progress = unseen,
) -> list[States]:
    """The same over windows of decoding steps, each from its first to its last, of which -1 is the prompt's last token.

    NaN for an item that has no step in a window. One pass over the answers.
    """
    layers, n = sorted(saes), len(found.prompts)
    whole = sorted({*layers, model.n_layers - 1})  # to the end, where a mechanism may act after the last SAE
    left = max(1, *(-first for first, _ in windows)) if windows else 1  # of a prompt, to be looked at
    order = sorted(range(n), key=lambda place: len(found.prompts[place]) + len(found.tokens[place]))
    with mechanism.apply(model, saes) as changed:
        encoders = {layer: Encoder.of(saes[layer], changed.dtype) for layer in layers}
        made = [_empty(n, changed.d_model, encoders) for _ in windows]
        for start in range(0, n, batch_size):
            these = order[start : start + batch_size]
            texts = [[*found.prompts[place], *found.tokens[place][:-1]] for place in these]
            batch = pad(texts, pad_token=changed.pad_token, device=changed.device)
            lengths, items = torch.tensor([len(found.prompts[place]) for place in these]), torch.tensor(these)
            rest, cache, n_read = begun(changed, batch, lengths, items, left=left)
            with hooks.prompts(lengths, items, rest.tokens):
                read = hooks.read(changed, rest, whole, cache=cache)
            valid = rest.mask[:, n_read:].cpu()
            step = (rest.mask.cumsum(-1)[:, n_read:] - 1).cpu() - lengths[:, None]
            for (first, last), into in zip(windows, made, strict=True):
                counts = valid & (step >= first) & (step <= last)
                there = counts.any(1).numpy()
                rows = np.array(these)[there]
                for layer in layers if len(rows) else ():
                    into.resid[layer][rows] = _means(read[layer], counts)[there]
                    into.acts[layer][rows] = _mean_acts(encoders[layer], read[layer], counts)[there]
            progress(min(start + batch_size, n), n)
    return made


def _empty(n: int, d_model: int, encoders: Mapping[int, Encoder]) -> States:
    return States(
        {layer: np.full((n, d_model), np.nan, dtype=np.float32) for layer in encoders},
        {layer: np.full((n, encoder.d_sae), np.nan, dtype=np.float32) for layer, encoder in encoders.items()},
    )


def _means(values: Tensor, counts: Tensor) -> np.ndarray:
    at = counts.to(values.device)[..., None]
    return ((values.float() * at).sum(1) / at.sum(1).clamp(min=1)).cpu().numpy()


def _mean_acts(encoder: Encoder, resid: Tensor, counts: Tensor) -> np.ndarray:
    at = counts.to(resid.device)
    active, row = encoder(resid[at]), at.nonzero()[:, 0]
    totals = torch.zeros(len(resid), encoder.d_sae, device=resid.device)
    totals.index_put_((row[active.token], active.index), active.acts, accumulate=True)
    return (totals / at.sum(1, keepdim=True).clamp(min=1)).cpu().numpy()


def along(change: States, target: States) -> Float[np.ndarray, "layer"]:
    """The cosine of two mean changes of the features at each layer, over the items that have both; NaN where none has.

    With the CoT prompt's change over a whole answer for a target, and another's at one decoding step: is the one on the
    way to the other there, and at which layer?
    """
    found = []
    for layer in change.acts:
        there = np.isfinite(change.acts[layer][:, 0]) & np.isfinite(target.acts[layer][:, 0])
        if not there.any():
            found.append(np.nan)
            continue
        a, b = change.acts[layer][there].mean(0), target.acts[layer][there].mean(0)
        size = float(np.linalg.norm(a) * np.linalg.norm(b))
        found.append(float(a @ b) / size if size else 0.0)
    return np.array(found)
