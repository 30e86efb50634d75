"""What features do to the next token: how much likelier a little of each makes some words, by gradient and measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saereason import hooks
from saereason.features import Feature, FeatureTable
from saereason.model import Model, Rendered, pad
from saereason.saes import SAE, check_in_units_of_resid, check_saes, decoder_row, decoder_rows, sae_at
from saereason.steering import Add, LastPromptToken, steered

from .moments import Moments, moments
from .written import first_tokens

Prompts = tuple[tuple[int, ...], ...]
"""Prompts that are run together, as token ids."""

SIZE = 0.1
"""A little: this share of the mean norm of the residual stream at the layer."""


def output_slopes(
    model: Model,
    saes: Mapping[int, SAE],
    prompts: Sequence[str | Rendered],
    words: Sequence[str],
    *,
    size: float = SIZE,
    batch_size: int = 16,
) -> FeatureTable:
    """How much likelier `Add` of each feature once, at the last prompt token, would make some words as the next token.

    The linear estimate of what `output_effects` measures, in one backward pass for all layers and features (after
    attribution patching, Nanda 2023). Columns:
    `output_slope`, nats of the words' log-probability (all their first tokens together, with and without a space
    before), mean over prompts; `output_slope_t`, that over its standard error. Raises ValueError without words, for
    fewer than two prompts, and for a size that is not positive.
    """
    check_saes(model, saes)
    check_in_units_of_resid(saes)
    batches, tokens = _batches(model, prompts, batch_size), first_tokens(model, words)
    nudge = Nudge.of(model, sorted(saes), batches, tokens, size)
    found: dict[int, Moments] = {}
    for layer, slopes in nudge.slopes.items():
        rows = decoder_rows(saes[layer]).to(slopes)
        unit = rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        found[layer] = moments((slopes @ unit.T).cpu() * nudge.sizes[layer])
    layer = np.repeat(list(found), [len(each.total) for each in found.values()])
    columns = {
        "output_slope": torch.cat([each.mean for each in found.values()]).numpy(),
        "output_slope_t": torch.cat([each.studentised for each in found.values()]).numpy(),
    }
    index = np.concatenate([np.arange(len(each.total)) for each in found.values()])
    return FeatureTable({"layer": layer, "index": index, **columns})


@torch.no_grad()
def output_effects(
    model: Model,
    saes: Mapping[int, SAE],
    features: Sequence[Feature],
    prompts: Sequence[str | Rendered],
    words: Sequence[str],
    *,
    size: float = SIZE,
    batch_size: int = 16,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureTable:
    """How much likelier `Add` of each of these features once, at the last prompt token, makes some words as the next
    token: measured, a forward pass a feature (Arad et al., arXiv 2505.20063).

    Every feature adds the same length, `size` times the mean norm of the residual stream at its layer. Columns
    `output_effect` (nats, mean over prompts) and `output_effect_t`, as in `output_slopes`, with the same errors.
    """
    wanted = sorted(set(features))
    if not wanted:
        raise ValueError("there are no features to measure; give at least one.")
    directions = {feature: decoder_row(sae_at(saes, feature), feature.index) for feature in wanted}
    check_saes(model, {feature.layer: saes[feature.layer] for feature in wanted})
    batches, tokens = _batches(model, prompts, batch_size), first_tokens(model, words)
    nudge = Nudge.of(model, sorted({feature.layer for feature in wanted}), batches, tokens, size)
    found = []
    for done, (feature, row) in enumerate(directions.items(), 1):
        edit = Add(feature, nudge.sizes[feature.layer] / max(float(row.norm()), 1e-12), LastPromptToken())
        with steered(model, saes, edit):
            likelier = torch.cat([_likelihood(model, rows, tokens) for rows in batches]) - nudge.clean
        found.append(moments(likelier[:, None].cpu()))
        progress(done, len(wanted))
    return FeatureTable(
        {
            "layer": np.array([feature.layer for feature in wanted]),
            "index": np.array([feature.index for feature in wanted]),
            "output_effect": torch.cat([each.mean for each in found]).numpy(),
            "output_effect_t": torch.cat([each.studentised for each in found]).numpy(),
        }
    )


@dataclass(frozen=True, eq=False)
class Nudge:
    """Some tokens' joint log-probability after prompts (nats), and what the streams at their ends do to it."""

    clean: Float[Tensor, "prompt"]
    slopes: Mapping[int, Float[Tensor, "prompt d_model"]]
    """Its gradient, by layer."""

    sizes: Mapping[int, float]
    """The length to add, by layer."""

    @classmethod
    def of(
        cls, model: Model, layers: Sequence[int], batches: Sequence[Prompts], tokens: Sequence[int], share: float
    ) -> "Nudge":
        if sum(map(len, batches)) < 2 or not share > 0:
            raise ValueError(
                f"there are {sum(map(len, batches))} prompts and the size is {share}; give at least two prompts and a "
                "size above 0."
            )
        clean, slopes, norms = [], {layer: [] for layer in layers}, {layer: [] for layer in layers}
        for prompts in batches:
            with hooks.traced(model, layers) as found:
                likely = _likelihood(model, prompts, tokens)
                likely.sum().backward()
            clean.append(likely.detach())
            for layer in layers:
                resid, grad = found[layer].detach(), found[layer].grad
                assert grad is not None
                slopes[layer].append(grad[:, -1].float())
                norms[layer].append(resid[:, -1].float().norm(dim=-1))
        sizes = {layer: share * float(torch.cat(each).mean()) for layer, each in norms.items()}
        return cls(torch.cat(clean), {layer: torch.cat(each) for layer, each in slopes.items()}, sizes)


def _batches(model: Model, prompts: Sequence[str | Rendered], batch_size: int) -> list[Prompts]:
    rows = [tuple(model.encode(prompt)) for prompt in prompts]
    return [tuple(rows[n : n + batch_size]) for n in range(0, len(rows), batch_size)]


def _likelihood(model: Model, prompts: Prompts, tokens: Sequence[int]) -> Float[Tensor, "prompt"]:
    """Log-probability of the next token being one of these, nats."""
    batch = pad(prompts, pad_token=model.pad_token, device=model.device)
    with hooks.prompts(torch.tensor([len(prompt) for prompt in prompts])):
        logits = hooks.run(model, batch, logits_to_keep=1, use_cache=False).logits[:, -1].float()
    return logits.log_softmax(-1)[:, list(tokens)].logsumexp(-1)
