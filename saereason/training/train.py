"""Train Top-K SAEs on every layer asked for, from one forward pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saereason.hooks import check_layers
from saereason.loading import fast_dtype
from saereason.model import Model
from saereason.saes import SAE

from .buffer import Acts, ShuffleBuffer, activations
from .topk import topk_loss


@dataclass(frozen=True)
class Log:
    """What `train_saes` reports after every step."""

    tokens: int
    n_tokens: int
    mse: Mapping[int, float]
    """Mean squared error by layer, as a share of the variance of the first buffer."""


def train_saes(
    model: Model,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    *,
    d_sae: int = 4608,
    k: int = 32,
    batch_size: int = 512,
    lr: float = 1.5e-3,
    dead_after: int = 40_000,
    buffer_tokens: int = 32_768,
    seed: int = 0,
    progress: Callable[[Log], None] = lambda log: None,
) -> dict[int, SAE]:
    """Top-K SAEs (SAELens's class) of some layers' residual streams, trained on rows of token ids, once through.

    Inputs are scaled to a mean norm of √d_model while training; the scale is folded into the weights at the end, so
    that the SAEs read and write the residual stream's own units with decoder rows of norm 1. Each SAE's metadata
    records the model's hash. Raises ValueError for a bad layer, width or k, or too few tokens.
    """
    check_layers(model, layers)
    _check(rows, layers, d_sae, k, batch_size, buffer_tokens)
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.bfloat16 if fast_dtype(model.device) == torch.bfloat16 else torch.float32
    buffer = ShuffleBuffer(
        activations(model, rows, layers, batch_size=16),
        capacity=buffer_tokens,
        batch_size=batch_size,
        d_model=model.d_model,
        layers=layers,
        dtype=dtype,
        device=model.device,
        generator=generator,
    )
    trainees = {
        layer: _Trainee.start(model, layer, x, d_sae=d_sae, k=k, lr=lr, seed=seed) for layer, x in buffer.sample.items()
    }
    n_tokens = sum(max(0, len(row) - 1) for row in rows)
    n_steps, done = max(1, n_tokens // batch_size), 0
    for batch in buffer.batches():
        for layer, trainee in trainees.items():
            trainee.step(batch[layer], _rate(lr, done, n_steps), dead_after)
        done += 1
        progress(Log(done * batch_size, n_tokens, {layer: t.mse for layer, t in trainees.items()}))
    facts = {"n_tokens": done * batch_size, "seed": seed, "model_name": model.name, "model_hash": model.hash}
    return {layer: trainee.finish(facts) for layer, trainee in sorted(trainees.items())}


class _Trainee:
    """One SAE with its optimiser."""

    def __init__(self, sae: Any, scale: float, variance: float, lr: float) -> None:
        self.sae, self.scale, self.variance = sae, scale, variance
        self.optimiser = torch.optim.Adam(sae.parameters(), lr=lr, betas=(0.9, 0.999), fused=True)
        self.silent_for = torch.zeros(sae.cfg.d_sae, dtype=torch.long, device=sae.W_dec.device)
        self.mse = float("nan")

    @classmethod
    def start(cls, model: Model, layer: int, x: Tensor, *, d_sae: int, k: int, lr: float, seed: int) -> "_Trainee":
        from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.saes.sae import SAEMetadata

        wide = x.float()
        scale = model.d_model**0.5 / wide.norm(dim=-1).mean().item()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1_000 + layer)  # SAELens draws its initial weights from the global generator
            sae = TopKTrainingSAE(
                TopKTrainingSAEConfig(
                    d_in=model.d_model,
                    d_sae=d_sae,
                    k=k,
                    device=str(model.device),
                    metadata=SAEMetadata(hook_name=f"blocks.{layer}.hook_resid_post"),
                )
            )
        sae.b_dec.data = scale * wide.mean(0)
        variance = (scale * wide).var(0).sum().item()
        return cls(sae.train(), scale, variance, lr)

    def step(self, x: Tensor, rate: float, dead_after: int) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        result = topk_loss(self.sae, x * self.scale, self.silent_for > dead_after)
        result.loss.backward()
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.silent_for += len(x)
        self.silent_for[result.fired] = 0
        self.mse = result.mse.item() / self.variance

    @torch.no_grad()
    def finish(self, facts: Mapping[str, Any]) -> SAE:
        """The inference SAE, in the residual stream's units, decoder rows of norm 1."""
        from sae_lens import SAE as LensSAE

        self.sae.fold_activation_norm_scaling_factor(self.scale)
        self.sae.fold_W_dec_norm()
        self.sae.cfg.rescale_acts_by_decoder_norm = False
        for name, fact in facts.items():
            self.sae.cfg.metadata[name] = fact
        with torch.random.fork_rng(devices=[]):  # initial weights again, to be overwritten
            sae = LensSAE.from_dict(self.sae.cfg.get_inference_sae_cfg_dict())
        sae.load_state_dict(self.sae.state_dict())
        return sae.eval().requires_grad_(False)


def _rate(lr: float, step: int, n_steps: int) -> float:
    """Linear warm-up over the first 5% of steps, linear decay to nothing over the last 30%."""
    share = step / n_steps
    return lr * min(1.0, (share + 1 / n_steps) / 0.05, max(0.01, (1 - share) / 0.30))


def _check(
    rows: Sequence[Sequence[int]], layers: Sequence[int], d_sae: int, k: int, batch_size: int, buffer_tokens: int
) -> None:
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers are {list(layers)}; give at least one, each once.")
    if not 0 < k <= d_sae:
        raise ValueError(f"k is {k} and d_sae {d_sae}; k must be from 1 to d_sae.")
    n_tokens = sum(max(0, len(row) - 1) for row in rows)
    if not 0 < batch_size <= buffer_tokens:
        raise ValueError(f"batch_size is {batch_size} and buffer_tokens {buffer_tokens}; the buffer must hold a batch.")
    if n_tokens < batch_size:
        raise ValueError(f"the texts have {n_tokens} tokens and one batch needs {batch_size}; give more text.")


__all__ = ["Acts", "Log", "train_saes"]
