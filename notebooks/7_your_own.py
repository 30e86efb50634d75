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
# # Your own model and SAEs
#
# Written for a GPU, with a 2B model and Gemma Scope, or an R1 distill and its SAE; the same cells run on the small
# model that comes with the package. Change the next cell, or give papermill the names:
#
# - `google/gemma-2-2b-it` and `hub:gemma-scope-2b-pt-res:layer_12/width_16k/average_l0_82`, layer 12
# - `deepseek-ai/DeepSeek-R1-Distill-Llama-8B` and `hub:llama_scope_r1_distill:l15r_800m_slimpajama`, layer 15
#
# What is fetched from the hub is fetched because you name it.

# %% tags=["parameters"]
MODEL = "smollm2-135m"
SAES = "smollm2-135m"
LAYERS = [14]
N, N_TOKENS = 24, 48
DIRECT, COT = "Answer with only a number.", "Let's think step by step."

# %%
import pandas as pd

import saereason as sr
from saereason.saes import saes_of
from saereason.tasks import discovery_task

model = sr.load_model(MODEL)
saes = {layer: sae for layer, sae in saes_of(SAES, device=model.device).items() if layer in LAYERS}
print(model.name, model.n_layers, "layers of", model.d_model, "on", model.device, model.dtype, "SAEs at", sorted(saes))

# %% [markdown]
# ## Do the SAEs serve this model?
# Gemma Scope was trained on the base model: on the instruction-tuned one this is the question.

# %%
pd.DataFrame(sr.preflight(model, saes, strict=False)).drop(columns=["n_tokens", "notes"]).round(3)

# %% [markdown]
# ## Which features tell the two prompts apart?

# %%
task = discovery_task(None, n=N, direct=DIRECT, cot=COT)
pairs = sr.Examples.pair(model, task.prompts(model, task.cot), task.prompts(model, task.direct))
table = sr.search(model, saes, pairs, batch_size=8)
best, *_ = table.top(1, "studentised")
table.top(5, "studentised").to_pandas().round(3)

# %% [markdown]
# ## What does the best one write?

# %%
print(sr.written_tokens(model, saes, best, 8).raised)

# %% [markdown]
# ## What does it do, at a size that this model knows?
# A multiple of its own largest activation on these prompts, so that no number has to be guessed.

# %%
asked = task.prompts(model, task.direct)[:2]
largest = sr.largest_acts(model, saes, [best], task.prompts(model, task.cot)[:8])[best]
with sr.steered(model, saes, sr.Add(best, 2 * largest, sr.LastPromptToken())) as steering:
    for text in sr.generate(model, asked, max_new_tokens=N_TOKENS).texts:
        print(text, "\n")
print(steering.receipt)

# %% [markdown]
# ## What to look at next?

# %%
explorer = sr.explore(model, saes, table, texts=[item.question for item in task.items])
explorer
