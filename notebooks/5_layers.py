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
# # Layers: where do reasoning and knowledge live?
#
# One block at a time is skipped, and the loss recorded item by item. The finding has an interval, and may be "against"
# or "inconclusive".

# %% tags=["parameters"]
MODEL, ADAPTER, N = "smollm2-135m", "taught", 24

# %%
import saereason as sr
from saereason.plots import plot_layers, plot_share_difference
from saereason.tasks import problems
from saereason.training import plain_texts

model = sr.load_model(MODEL, adapter=ADAPTER)
families = [
    sr.family_of(model, sr.word_problems(problems(N, seed=0, split="confirmation")), name="computed results"),
    sr.family_of(model, sr.country_facts("capital").take(N), name="capitals"),
    sr.plain_family(model, plain_texts()[:N]),
]

# %% [markdown]
# ## What does each block matter to each family?
# Reasoning is scored on computed digits right after their equals signs, knowledge on the answer's tokens, and plain
# text stands beside both: a layer whose loss ruins any text says nothing about reasoning.

# %%
curves = sr.localise(model, None, families, run=sr.Run.open("runs/layers"))
plot_layers(curves)

# %% [markdown]
# ## Is reasoning deeper than knowledge?

# %%
reasoning, knowledge, neutral = curves
finding = sr.compare_depth(reasoning, knowledge, neutral=neutral)
print(finding.statement)

# %% [markdown]
# ## At which layers do their shares differ?

# %%
plot_share_difference(reasoning, knowledge, finding)

# %% [markdown]
# ## Does a linear estimate say the same?
# The gradient gives all layers in one pass forward and back. It is a screen: look at where it is wrong.

# %%
screen = sr.localise(model, None, families, [sr.SkipByGradient()], run=sr.Run.open("runs/layers"))
print(sr.compare_depth(*screen[:2], neutral=screen[2]).statement)
