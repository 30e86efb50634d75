"""One SAE in training: its step, its state, and what becomes of it."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saereason.model import Model
from saereason.saes import SAE

from .design import Design
from .topk import StepLoss, topk_step


class Trainee:
    """One SAE with its optimiser.

    Inputs are scaled to a mean norm of √d_model while training; the scale is folded into the weights at the end.
    """

    def __init__(self, model: Model, layer: int, design: Design, device: torch.device) -> None:
        self.layer, self.design = layer, design
        self.sae = design.draw(model, layer, device)
        self.learning = [weight for weight in self.sae.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.Adam(self.learning, lr=design.lr, betas=(0.9, 0.999), fused=True)
        self.silent_for = torch.zeros(design.d_sae, dtype=torch.long, device=self.sae.W_dec.device)
        self.facts = torch.ones(2, dtype=torch.float64)
        """The scale, and the variance of the first window's scaled activations."""

        self.loss = self.mse = self.l0 = float("nan")

    @torch.no_grad()
    def look(self, x: Tensor) -> None:
        """Take scale, variance and the decoder's bias from activations, before the first step."""
        wide = x.float()
        scale = x.shape[-1] ** 0.5 / wide.norm(dim=-1).mean().item()
        self.sae.b_dec.copy_(scale * wide.mean(0))
        variance = (scale * wide).var(0).sum().item()
        if not variance > 1e-5 * x.shape[-1]:  # of a power of d_model: what rounding to bfloat16 alone may give
            raise ValueError(f"the activations at layer {self.layer} do not vary; give texts of more than one token.")
        self.facts = torch.tensor([scale, variance], dtype=torch.float64)

    @property
    def explained_variance(self) -> float:
        """Of the last batch, as a share of the variance of the first window."""
        return 1 - self.mse / self.facts[1].item()

    @property
    def dead(self) -> float:
        """Share of features that have not fired for `dead_after` tokens."""
        return (self.silent_for > self.design.dead_after).float().mean().item()

    def step(self, x: Tensor, rate: float, done: float) -> None:
        """One step on a batch, at a share of the design's learning rate; `done` is the share of training done."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.design.lr * rate
        dead = self.silent_for > self.design.dead_after
        scaled = x * self.facts[0].item()
        fast = self.design.by_k
        result = topk_step(self.sae, scaled, dead) if fast else self._lens_step(scaled, dead, done)
        torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.silent_for += len(x)
        self.silent_for[result.fired] = 0
        self.loss, self.mse, self.l0 = result.loss.item(), result.mse.item(), len(result.fired) / len(x)
        if not math.isfinite(self.loss):
            raise ValueError(f"the loss at layer {self.layer} is {self.loss}; train with a smaller learning rate.")

    def _lens_step(self, x: Tensor, dead: Tensor, done: float) -> StepLoss:
        """SAELens's own loss and gradients; the weight of a sparsity penalty rises over the first twentieth."""
        from sae_lens.saes.sae import TrainStepInput

        given = self.sae.get_coefficients()
        coefficients = {name: getattr(c, "value", c) * min(1.0, done / 0.05) for name, c in given.items()}
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=x.dtype == torch.bfloat16):
            out = self.sae.training_forward_pass(TrainStepInput(x.float(), coefficients, dead, 0, False))
        out.loss.backward()
        return StepLoss(out.loss.detach(), out.losses["mse_loss"].detach(), out.feature_acts.detach().nonzero()[:, 1])

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""
        found = {f"weight.{name}": value for name, value in self.sae.state_dict().items()}
        for n, weight in enumerate(self.learning):
            found |= {f"optimiser.{n}.{key}": value for key, value in self.optimiser.state[weight].items()}
        return {**found, "silent_for": self.silent_for, "facts": self.facts}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        device = self.silent_for.device
        self.sae.load_state_dict({name: state[f"weight.{name}"] for name in self.sae.state_dict()})
        for n, weight in enumerate(self.learning):
            start = f"optimiser.{n}."
            self.optimiser.state[weight] = {
                key.removeprefix(start): value.to(device) for key, value in state.items() if key.startswith(start)
            }
        self.silent_for, self.facts = state["silent_for"].to(device), state["facts"]

    @torch.no_grad()
    def finish(self, facts: Mapping[str, Any]) -> SAE:
        """The inference SAE in the residual stream's own units, with decoder rows of norm 1."""
        from sae_lens import SAE as LensSAE

        self.sae.fold_activation_norm_scaling_factor(self.facts[0].item())
        self.sae.fold_W_dec_norm()
        if hasattr(self.sae.cfg, "rescale_acts_by_decoder_norm"):
            self.sae.cfg.rescale_acts_by_decoder_norm = False
        for name, fact in facts.items():
            self.sae.cfg.metadata[name] = fact
        weights = {name: value.clone() for name, value in self.sae.state_dict().items()}
        self.sae.process_state_dict_for_saving_inference(weights)
        with torch.random.fork_rng(devices=[]):  # initial weights again, to be overwritten
            sae = LensSAE.from_dict(self.sae.cfg.get_inference_sae_cfg_dict())
        sae.load_state_dict(weights)
        return sae.eval().requires_grad_(False)
