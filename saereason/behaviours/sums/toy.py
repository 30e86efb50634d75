"""A small transformer that learns the language, and SAEs for it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from saereason.hooks import Edit, Visit, edited
from saereason.model import Model
from saereason.saes import SAE
from saereason.steering import Everywhere
from saereason.training import Design, train_saes

from . import language

LAYER = 0
"""After this block the value between has to be carried."""

CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "sliding_window": 4,  # tokens that attention sees, its own included
    "initializer_range": 0.12,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
N_STEPS, BATCH, LR = 800, 128, 3e-3
NOISE, COST = 1.0, 1e-3
"""Deviation of the noise in each dimension, and what a squared unit of the residual stream costs, nats."""

ERASED = 0.2
"""How often a `=` that carries a value arrives as the mean of all states does; the sum then has no result but `?`."""

WEIGHT = 5.0
"""What the loss on a digit or `?` counts, in losses on another word."""

DESIGN = Design("topk", d_sae=512, k=1, lr=3e-3, dead_after=5_000)
N_ROWS = 66_000


def sums_model(seed: int, *, n_steps: int = N_STEPS) -> Model:
    """A model of two blocks in float32 that has learnt the language from random weights, half a minute on two cores.

    While it learns, the stream between its blocks is a noisy channel whose power costs something, so that it carries
    what the second block needs and hardly anything else; and values are lost in it, so that their lack is answered with
    `?`. All this begins after 30% of the steps and is whole at 70%; the model that is returned has none of it.
    """
    from transformers import MistralConfig, MistralForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = MistralForCausalLM(MistralConfig(vocab_size=len(language.WORDS), **CONFIG))
    model, rng, channel = Model(hf, _tokenizer(), f"two-step-sums-{seed}"), np.random.default_rng(seed), Channel(seed)
    weights = torch.ones(len(language.WORDS))
    weights[[language.ID[word] for word in (*language.DIGITS, "?")]] = WEIGHT
    optimiser = torch.optim.AdamW(hf.parameters(), lr=LR, betas=(0.9, 0.98), weight_decay=0.1)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=n_steps, pct_start=0.1)
    with edited(model, [Edit(LAYER, "noise", Everywhere(), channel)]):
        for step in range(n_steps):
            channel.share = min(max((step / n_steps - 0.3) / 0.4, 0.0), 1.0)
            rows = torch.from_numpy(language.rows(BATCH, rng))
            channel.erased = _erased(rows, channel.share * ERASED, rng)
            logits = hf(rows[:, :-1], use_cache=False).logits
            loss = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), weights)
            (loss + channel.share * COST * channel.power).backward()
            optimiser.step()
            optimiser.zero_grad()
            pace.step()
    hf.eval().requires_grad_(False)
    return model


def sums_saes(model: Model, seed: int, *, design: Design = DESIGN, n_rows: int = N_ROWS) -> dict[int, SAE]:
    """An SAE after the first block, whose features are tokens of chatter, signs, digits and the values between."""
    rows = language.rows(n_rows, np.random.default_rng([seed, 1])).tolist()
    return train_saes(model, rows, [LAYER], design, batch_size=512, buffer_tokens=16_384, dtype=torch.float32)


class Channel:
    """Noise to add to a residual stream, some of whose states are erased, and the power that the stream had."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.share, self.power = 0.0, torch.zeros(())
        self.erased = torch.zeros(0, dtype=torch.bool)

    def __call__(self, at: Visit) -> Tensor:
        resid = at.resid
        self.power = resid.square().sum(-1).mean()
        lost = self.erased.flatten()[:, None] * (resid.mean(0) - resid)
        return lost + self.share * NOISE * torch.randn(resid.shape, generator=self.generator)


def _erased(rows: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Which states of the rows (but the last) to erase; the results of these sums become `?` in the rows."""
    equals, gives, unknown = (language.ID[word] for word in ("=", "gives", "?"))
    used = (rows[:, :-4] == equals) & (rows[:, 3:-1] == gives)
    lost = used & torch.from_numpy(rng.random(used.shape) < share)
    rows[:, 4:][lost] = unknown
    return torch.cat([lost, torch.zeros(len(rows), 3, dtype=torch.bool)], dim=1)


def _tokenizer() -> Any:
    """A token a word, `<s>` in front."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel(language.ID, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", language.ID["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
