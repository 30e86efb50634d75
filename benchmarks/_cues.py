"""A cue detector and a feature of context, planted by hand in tiny models, and what `try_cues` says of each."""

import dataclasses

import numpy as np
import torch

from saereason import SAE, CueTrial, Feature, Model, try_cues
from tests.conftest import tiny_model, tiny_sae

LETTERS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SIZE = 2.0
"""What the hand-made model's channels hold where they say yes."""


def texts(seed: int, n: int = 40, length: int = 24, often: str = "", rare: float = 0.0, without: str = "") -> list[str]:
    """Random letters; of `often`, every text has each letter at least once; `rare` is the share of texts with "Q"."""
    rng = np.random.default_rng(seed)
    letters = [c for c in LETTERS if c not in "QZ" + without]
    rows = []
    for _ in range(n):
        row = list(rng.choice(letters, size=length))
        for c in often:
            row[rng.integers(12, length)] = c
        if rng.random() < rare:
            row[rng.integers(4, 9)] = "Q"
        rows.append("".join(row))
    return rows


def counting_model(seed: int = 0) -> Model:
    """A block whose attention is even, and writes the share of "Q" (channel 0) among the tokens so far to channel 2;
    channel 1 says "Z", channel 3 says the special token at the front, and channel 4 holds its share so far."""
    model = tiny_model(seed=seed, n_layers=1)
    ids = {c: model.encode(c)[0] for c in "QZ"}
    block, generator = model.hf.model.layers[0], torch.Generator().manual_seed(seed)
    rows = torch.randn(model.d_vocab, 32, generator=generator)
    rows[:, :5] = 0
    rows *= 32**0.5 / rows.norm(dim=-1, keepdim=True)
    for channel, token in ((0, ids["Q"]), (1, ids["Z"]), (3, model.tokenizer.bos_token_id)):
        rows[token] *= (1 - SIZE**2 / 32) ** 0.5
        rows[token, channel] = SIZE  # every row has the norm that the block's own normalisation leaves alone
    model.hf.model.embed_tokens.weight.data = rows
    for weight in (*block.self_attn.parameters(), *block.mlp.parameters()):
        weight.data.zero_()
    for n, (reads, writes) in enumerate(((0, 2), (3, 4))):
        block.self_attn.v_proj.weight.data[n, reads] = 1
        block.self_attn.o_proj.weight.data[writes, n] = 1
    return dataclasses.replace(model, name=f"counting-{seed}")


def hand_made_saes() -> dict[int, SAE]:
    """Features of the counting model: 0 "Z"; 1 "Z" if some "Q" came before; 2 any token, more so late in the text."""
    sae = tiny_sae("standard", 0, d_sae=3)
    for weight in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec):
        weight.data.zero_()
    sae.W_enc.data[1, 0], sae.b_enc.data[0] = 1, -SIZE / 2
    sae.W_enc.data[1, 1], sae.W_enc.data[2, 1], sae.b_enc.data[1] = 1, 4, -SIZE
    sae.W_enc.data[4, 2], sae.b_enc.data[2] = -1, SIZE
    return {0: sae}


CUE, CONTEXT, LENGTH = (Feature(0, index) for index in range(3))


def cue_trial(seed: int) -> CueTrial:
    """A pure detector of "Z"."""
    own = texts(3 * seed, often="Z")
    return try_cues(counting_model(seed), hand_made_saes(), CUE, own, plain=texts(3 * seed + 1, often=""), seed=seed)


def context_trial(seed: int) -> CueTrial:
    """A feature of "Z" after "Q" however far back: its top token is Z alone, and Z alone does not switch it on."""
    own = texts(3 * seed, often="Z", rare=0.7)
    return try_cues(
        counting_model(seed), hand_made_saes(), CONTEXT, own, plain=texts(3 * seed + 1, rare=0.03), seed=seed
    )


def judged(n_seeds: int) -> dict[str, float]:
    """Share of seeds in which the cue detector is caught, and share in which the feature of context is spared."""
    caught = [cue_trial(seed).outcome == "caught" for seed in range(n_seeds)]
    spared = [context_trial(seed).outcome != "caught" for seed in range(n_seeds)]
    return {"cue_caught": float(np.mean(caught)), "context_spared": float(np.mean(spared))}
