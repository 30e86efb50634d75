# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # SAEs: train or load them, and trust them
#
# An SAE belongs to one set of weights and one layer. Before any feature is believed, it has to serve the model in hand.

# %% tags=["parameters"]
MODEL, SAES = "smollm2-135m", "smollm2-135m"
LAYER, D_SAE, N_TEXTS, N_HELD_OUT = 14, 2304, 400, 24

# %%
import pandas as pd

import saereason as sr
from saereason.plots import plot_firing, plot_quality
from saereason.training import default_rows, split_rows

model, saes = sr.load_model(MODEL), sr.load_saes(SAES)

# %% [markdown]
# ## What came with the package, and what does its card say?

# %%
for layer, sae in saes.items():
    print(layer, type(sae).__name__, tuple(sae.W_dec.shape), "trained on weights", sae.cfg.metadata.model_hash)

# %% [markdown]
# ## Does each SAE serve this model?
# `preflight` measures explained variance, L0 and the size of the residual stream on a few texts, and compares them with
# the card.

# %%
pd.DataFrame(sr.preflight(model, saes, strict=False)).drop(columns=["n_tokens", "notes"]).round(3)

# %% [markdown]
# ## And a sibling of the model, with an adapter?
# The same features, other weights: what still fits says that the features may mean what they meant.

# %%
taught = sr.load_model(MODEL, adapter="taught")
for fit in sr.preflight(taught, saes, strict=False):
    print(fit.layer, round(fit.explained_variance, 3), "fits" if fit.fits else "does not fit")

# %% [markdown]
# ## How good is one trained in a minute?

# %%
train_on, held_out = split_rows(default_rows(model, n_problems=N_TEXTS), n_held_out=N_HELD_OUT)
mine = sr.train_saes(model, train_on, [LAYER], sr.Design(d_sae=D_SAE))
qualities = sr.evaluate_saes(model, {LAYER: mine[LAYER]}, held_out)
plot_quality(qualities + sr.evaluate_saes(model, {n: saes[n] for n in saes if n != LAYER}, held_out))

# %% [markdown]
# ## How often do its features fire?
# A peak at the far left is dead features; a tail at the right, features that are always on.

# %%
plot_firing(qualities)

# %% [markdown]
# ## Can it be opened elsewhere?
# SAELens's own layout: `sae_lens.SAE.load_from_disk` opens it, and `sr.load_saes` opens what SAELens wrote.

# %%
sr.save_saes(mine, "runs/mine")
again = sr.load_saes("runs/mine")
print(bool((again[LAYER].W_dec == mine[LAYER].W_dec).all()))
