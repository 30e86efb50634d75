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
# # Quick start: find a feature, switch it, doubt it
#
# One question a heading, one answer a cell. Small sizes, so that it runs in a few minutes on two cores; `make demo`
# does the same in full.

# %%
import pandas as pd

import saereason as sr
from saereason.effects import Trial, accuracy, answers
from saereason.tasks import COT, confirmation_task, discovery_task
from saereason.training import default_rows, split_rows

LAYERS, N_TEXTS, N_PROBLEMS = [19], 400, 24

# %% [markdown]
# ## Which model?
# SmolLM2-135M-Instruct with an adapter that was *taught* to work in steps on one instruction and to answer directly
# on another.

# %%
model = sr.load_model("smollm2-135m", adapter="taught")
print(model.name, model.n_layers, "layers, weights", model.hash)

# %% [markdown]
# ## How good is an SAE trained in a minute?

# %%
train_on, held_out = split_rows(default_rows(model, n_problems=N_TEXTS), n_held_out=24)
saes = sr.train_saes(model, train_on, LAYERS, sr.Design(d_sae=2304))
for quality in sr.evaluate_saes(model, saes, held_out):
    print(
        f"layer {quality.layer}: explained variance {quality.explained_variance:.3f}, L0 {quality.l0:.0f}, "
        f"dead {quality.dead:.2f}, loss recovered {quality.loss_recovered:.3f}"
    )

# %% [markdown]
# ## Which features tell the CoT prompt from the direct prompt of the same problem?

# %%
task = discovery_task(None, n=N_PROBLEMS)
pairs = sr.Examples.pair(model, task.prompts(model, task.cot), task.prompts(model, task.direct))
table = sr.search(model, saes, pairs)
table.top(5, by="studentised").to_pandas().round(2)

# %% [markdown]
# ## Which of the best four switches anything, added once at the last token of the direct prompt?
# Telling two prompts apart is not switching between them. They are tried on problems of the search.

# %%
size = sr.diff_mean(model, pairs, LAYERS)[LAYERS[0]].norm().item()
practice = Trial.of(model, task.take(8), task.direct)
tried = {}
for feature in table.top(4, by="studentised"):
    edit = sr.Add(feature, 2 * size, sr.LastPromptToken())
    tried[edit] = accuracy(pd.DataFrame(answers(model, saes, practice, interventions=[edit])))
    print(f"{feature}: {tried[edit]} right")
edit = max(tried, key=lambda each: tried[each].value)

# %% [markdown]
# ## What does that one write?

# %%
prompt = task.prompts(model, task.direct)[:1]
clean = sr.generate(model, prompt)
with sr.steered(model, saes, edit):
    steered = sr.generate(model, prompt)
print(task.items[0].question, "\n\nclean:", clean.texts[0], "\n\nsteered:", steered.texts[0], "\n\n", steered.receipt)

# %% [markdown]
# ## Does it help on problems the search never saw, and does its first token alone do as much?

# %%
fresh = confirmation_task(n=N_PROBLEMS)
prefix = steered.tokens[0][0]
direct = Trial.of(model, fresh, fresh.direct)
arms = {
    "direct": answers(model, saes, direct),
    "CoT": answers(model, saes, Trial.of(model, fresh, COT)),
    "one feature, once": answers(model, saes, direct, interventions=[edit]),
    "its first token by hand": answers(model, saes, direct, forced=[[prefix]] * len(fresh)),
}
for name, rows in arms.items():
    print(f"{name}: {accuracy(pd.DataFrame(rows))}")

# %% [markdown]
# The switch was taught, so finding it is a positive control; not finding it among so few features of so small an SAE is
# a result, too. If the forced first token does as well, the feature has no more to say here than that token.
