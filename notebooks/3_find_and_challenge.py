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
# # Find reasoning features, then try to prove each one wrong
#
# Search proposes; the ladder of claims disposes. "Nothing is shown" is a result.

# %% tags=["parameters"]
MODEL, ADAPTER, SAES, LAYERS = "smollm2-135m", "taught", "smollm2-135m", [19, 24]
N_DISCOVERY, N_CONFIRMATION, N_PLAIN, N_TOP, N_DRAWS, N_TOKENS = 48, 12, 40, 1, 10, 24

# %%
from pathlib import Path

import saereason as sr
from saereason.plots import plot_funnel

model = sr.load_model(MODEL, adapter=ADAPTER)
saes = {layer: sae for layer, sae in sr.load_saes(SAES).items() if layer in LAYERS}
run = sr.Run.open("runs/challenge")

# %% [markdown]
# ## Which features tell the CoT prompt from the direct one?
# The behaviour has problems to discover on and others to confirm on; none is in both.

# %%
behaviour = sr.cot_mode(
    model,
    n_discovery=N_DISCOVERY,
    n_confirmation=N_CONFIRMATION,
    n_rehearsal=8,
    n_plain=N_PLAIN,
    max_new_tokens=N_TOKENS,
)
block = Path("runs/challenge/block")
table = sr.add_max_t(sr.search(model, saes, behaviour.discovery.examples, block=block), block)
table.top(5, "studentised").to_pandas().round(3)

# %% [markdown]
# ## How many are left once all features are tested together?

# %%
print((table["p_max_t"] <= 0.05).sum(), "of", len(table), "at max-T's adjusted p of 0.05")

# %% [markdown]
# ## What does the first write, by the logit lens?

# %%
candidates = list(table.top(N_TOP, "studentised"))
written = sr.written_tokens(model, saes, candidates[0], 8)
print("raises", written.raised, "\nlowers", written.lowered)

# %% [markdown]
# ## How far up the ladder does each come?

# %%
verdicts = sr.challenge(model, saes, candidates, behaviour, run=run, n_draws=N_DRAWS)
for verdict in verdicts:
    print(verdict, "\n")

# %% [markdown]
# ## Where do they stop?

# %%
plot_funnel(verdicts, {"studentised difference": candidates})

# %% [markdown]
# ## What is each feature?
# The explorer: a list, a card of each with what it reads and writes, its verdict and a bench to steer it on. What is
# chosen in it is `explorer.selected`.
#
# ![The explorer with this notebook's features](../docs/images/explorer.png)

# %%
explorer = sr.explore(model, saes, table, verdicts=verdicts, block=block, run=run)
explorer

# %% [markdown]
# ## And for someone without a notebook?

# %%
explorer.selected = candidates[0]
path = explorer.to_html(n=50)
print(path, f"{path.stat().st_size / 1e6:.1f} MB", explorer.selected)
