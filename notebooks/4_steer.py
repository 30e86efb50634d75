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
# # Steer: the dose, the effect, and the damage
#
# Every steered run comes with a receipt of what the edit did. An edit that acted nowhere is an error.

# %% tags=["parameters"]
MODEL, ADAPTER, SAES, LAYERS = "smollm2-135m", "taught", "smollm2-135m", [24]
N_DISCOVERY, N_CONFIRMATION, N_TOKENS, SIZES = 48, 24, 64, [0.5, 1.0, 2.0, 4.0]

# %%
import saereason as sr
from saereason.effects import Trial
from saereason.plots import plot_dose
from saereason.tasks import confirmation_task, discovery_task
from saereason.training import plain_texts

model = sr.load_model(MODEL, adapter=ADAPTER)
saes = {layer: sae for layer, sae in sr.load_saes(SAES).items() if layer in LAYERS}
task = discovery_task(None, n=N_DISCOVERY)
pairs = sr.Examples.pair(model, task.prompts(model, task.cot), task.prompts(model, task.direct))
[best] = sr.search(model, saes, pairs).top(1, "studentised")

# %% [markdown]
# ## What does one edit do, and where?

# %%
prompt = [model.render("Nina has 12 plums and buys 7 more. How many plums has she? Answer with only a number.")]
direction = sr.diff_mean(model, pairs, [best.layer])[best.layer]
unit = float(direction.norm())
with sr.steered(model, saes, sr.Add(best, 2 * unit, sr.LastPromptToken())) as steering:
    print(sr.generate(model, prompt, max_new_tokens=N_TOKENS).texts[0])
print(steering.receipt)

# %% [markdown]
# ## And an edit that acts nowhere?

# %%
try:
    with sr.steered(model, saes, sr.Add(best, unit, sr.Steps(5000, 5001))):
        sr.generate(model, prompt, max_new_tokens=4)
except sr.SilentEditError as error:
    print(error)

# %% [markdown]
# ## What does each size do to right answers, and what does it break?
# Problems that the choice never saw, the feature beside DiffMean and a random direction of the same norm; the damage is
# the loss on plain English and KL at the first edited token.

# %%
fresh = confirmation_task(n=N_CONFIRMATION)
trial = Trial.of(model, fresh, fresh.direct, max_new_tokens=N_TOKENS)
[random] = sr.random_directions(model.d_model, 1, norm=1.0, seed=0)
once = sr.LastPromptToken()
arms = [sr.Add(best, size * unit, once) for size in SIZES]
arms += [sr.AddVector(best.layer, direction / unit, size * unit, once, "DiffMean") for size in SIZES]
arms += [sr.AddVector(best.layer, random, size * unit, once, "random") for size in SIZES]
found = sr.sweep(model, saes, trial, arms, plain=plain_texts()[:16], run=sr.Run.open("runs/dose"))
found.summary()[["target", "size", "accuracy", "change", "change_low", "change_high", "perplexity", "kl"]].round(3)

# %% [markdown]
# ## The same as a picture?

# %%
plot_dose(found)

# %% [markdown]
# ## How large is a nat?
# The size at which the next token moves by 0.1 nats, so that two edits can be compared at equal cost.

# %%
budget = sr.Divergence.over(model, fresh.prompts(model, fresh.direct)[:8])
sized, kl = sr.at_kl(budget, saes, lambda size: sr.Add(best, size, once), 0.1)
print(sized, f"moves the next token by {kl:.3f} nats")
