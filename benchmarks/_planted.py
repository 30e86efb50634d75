"""Small transformers in which it is known where facts and a rule are kept.

A model learns to go on with chatter, in which each word depends on the last but one, with all its blocks; then all is
frozen. One block alone goes on to learn facts (a key calls for a value) with the other planted block off, and that one
a rule in two steps (two digits call for a permuted sum) with the first off. While they learn, a third block is off now
and then, so that they need no other, and they go on with the chatter. In a tie one block learns both.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

import saereason as sr
from saereason.metrics import LogProb, Scored
from saereason.model import Model

WORDS, DIGITS, KEYS, VALUES = 32, 5, 32, 16
N_TOKENS = 2 + WORDS + DIGITS + KEYS + VALUES
FIRST_WORD, FIRST_DIGIT = 2, 2 + WORDS
FIRST_KEY, FIRST_VALUE = FIRST_DIGIT + DIGITS, FIRST_DIGIT + DIGITS + KEYS
N_LAYERS, D_MODEL, LENGTH = 5, 64, 6
BATCH, N_CHATTER, N_PLANTED, MOST = 64, 600, 250, 4
"""Rows of a step, steps of chatter, steps between two looks at a planted block, and looks."""

LOUD = 12.0
"""Times as large as other weights embeddings begin, so that later blocks can still tell tokens apart."""

ENOUGH = 0.95
"""Share right with the other planted block off, below which a model is not kept."""


@dataclass(frozen=True, eq=False)
class Planted:
    """A model, and which of its blocks holds what."""

    model: Model
    blocks: dict[str, int]
    """By family, facts and rule."""

    value_of: np.ndarray
    permuted: np.ndarray

    def rows(self, family: str, n: int, rng: np.random.Generator) -> np.ndarray:
        """Chatter that ends in a question and its answer, `[row, token]`."""
        text = chatter(n, LENGTH, rng)
        if family == "facts":
            key = rng.integers(KEYS, size=n)
            question = [FIRST_KEY + key, FIRST_VALUE + self.value_of[key]]
        else:
            a, b = rng.integers(DIGITS, size=(2, n))
            question = [FIRST_DIGIT + a, FIRST_DIGIT + b, FIRST_DIGIT + self.permuted[(a + b) % DIGITS]]
        return np.concatenate([text, np.stack(question, axis=1)], axis=1)

    def family(self, name: str, n: int, rng: np.random.Generator) -> sr.Family:
        """Items whose answer is scored; "chatter" is the neutral one, scored after its fourth word."""
        if name == "chatter":
            rows, given = chatter(n, LENGTH, rng), 4
        else:
            rows, given = self.rows(name, n, rng), -1
        items = [Scored(tuple(r[:given]), tuple(r[given:]), (True,) * len(r[given:])) for r in rows.tolist()]
        kind: Any = {"facts": "knowledge", "rule": "reasoning", "chatter": "neutral"}[name]
        return sr.Family(name, kind, LogProb(tuple(items), batch_size=256))

    @torch.no_grad()
    def accuracy(self, family: str, off: int | None = None, *, n: int = 512, seed: int = 9) -> float:
        rows = torch.from_numpy(self.rows(family, n, np.random.default_rng(seed)))
        with without(self.model, [] if off is None else [off]):
            likeliest = self.model.hf(rows[:, :-1], use_cache=False).logits[:, -1].argmax(-1)
        return float((likeliest == rows[:, -1]).float().mean())


def base(seed: int) -> Model:
    """A model that goes on with chatter, all its blocks at work."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=N_TOKENS,
        hidden_size=D_MODEL,
        intermediate_size=4 * D_MODEL,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        initializer_range=0.08,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = LlamaForCausalLM(config)
        hf.get_input_embeddings().weight.data *= LOUD
    model, rng = Model(hf, _tokenizer(), f"planted-{seed}"), np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(hf.parameters(), lr=3e-3, weight_decay=0.01)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=N_CHATTER, pct_start=0.1)
    for _ in range(N_CHATTER):
        rows = torch.from_numpy(chatter(BATCH, LENGTH + 3, rng))
        _step(optimiser, _loss(model, rows))
        pace.step()
    hf.eval().requires_grad_(False)
    return model


def planted(model: Model, blocks: dict[str, int], seed: int) -> Planted | None:
    """A copy of the model whose blocks have learnt what they are to hold; None where they have not."""
    import copy

    rng = np.random.default_rng([seed, 5])
    mine = Model(copy.deepcopy(model.hf), model.tokenizer, f"{model.name}/{seed}")
    made = Planted(mine, blocks, rng.integers(VALUES, size=KEYS), rng.permutation(DIGITS))
    if len(set(blocks.values())) == 1:
        return made if _learnt(made, list(blocks), None, rng) else None
    if not _learnt(made, ["facts"], blocks["rule"], rng) or not _learnt(
        made, ["rule"], blocks["facts"], rng, ["facts"]
    ):
        return None
    both = [
        made.accuracy(family, off) for family, o in (("facts", "rule"), ("rule", "facts")) for off in (blocks[o], None)
    ]
    return made if min(both) >= ENOUGH else None


def _learnt(
    made: Planted, families: Sequence[str], off: int | None, rng: np.random.Generator, spared: Sequence[str] = ()
) -> bool:
    """Train the block of some families, with another off half of the time; True once it answers often enough.

    While the other is on, it must go on to answer the families that are spared.
    """
    mine = made.blocks[families[0]]
    weights = list(made.model.blocks[mine].parameters())
    for weight in weights:
        weight.requires_grad_(True)
    others = [n for n in range(N_LAYERS) if n not in (mine, off)]
    for _ in range(MOST):
        optimiser = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.01)
        pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=N_PLANTED, pct_start=0.1)
        for _ in range(N_PLANTED):
            away = [off] if off is not None and rng.random() < 0.5 else []
            asked = [*families, *(spared if not away else [])]
            away += [int(rng.choice(others))] if rng.random() < 0.3 else []
            with without(made.model, away):
                loss = sum(_loss(made.model, torch.from_numpy(made.rows(f, BATCH, rng)), 5.0) for f in asked)
                _step(optimiser, loss)
            pace.step()
        if min(made.accuracy(family, off) for family in families) > 0.98:
            break
    for weight in weights:
        weight.requires_grad_(False)
    return min(made.accuracy(family, off) for family in families) >= ENOUGH


def chatter(n: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Words, each mostly one of two that the last but one calls for; now and then another token, which comes again."""
    words = rng.integers(WORDS, size=(n, length))
    for place in range(2, length):
        called_for = (words[:, place - 2] + rng.integers(1, 3, size=n)) % WORDS
        words[:, place] = np.where(rng.random(n) < 0.85, called_for, words[:, place])
    found = FIRST_WORD + words
    for place in range(length):
        strange = rng.random(n) < 0.08
        found[strange, place] = rng.integers(FIRST_DIGIT, N_TOKENS, size=strange.sum())
        again = (found[:, place - 2] >= FIRST_DIGIT) & (rng.random(n) < 0.6) & (place > 1)
        found[again, place] = found[again, place - 2]
    return found


@contextmanager
def without(model: Model, blocks: Sequence[int]) -> Iterator[None]:
    """Within the block, these blocks add nothing."""

    def skip(module: Any, args: Any, output: Any) -> Any:  # noqa: ARG001
        return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]

    handles = [model.blocks[n].register_forward_hook(skip) for n in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _loss(model: Model, rows: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
    """Cross-entropy of every token but the first, the last one counting more."""
    logits = model.hf(rows[:, :-1], use_cache=False).logits
    each = cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")
    return (each[:, :-1].sum() + weight * each[:, -1].sum()) / len(rows) / (rows.shape[1] - 2 + weight)


def _step(optimiser: Any, loss: Any) -> None:
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def _tokenizer() -> Any:
    """A token a word; the texts here are token ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({f"t{n}": n for n in range(N_TOKENS)}, unk_token="t0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="t0", bos_token="t1", eos_token="t0")
