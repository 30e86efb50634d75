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
# # Mechanisms side by side: the same switch?
#
# A prompt, a feature, a forced word, training: each elicits reasoning. Do they change the same features?

# %% tags=["parameters"]
MODEL, ADAPTER, SAES, LAYERS = "smollm2-135m", "taught", "smollm2-135m", [14, 19, 24]
N, N_DISCOVERY, N_TOKENS = 16, 48, 64

# %%
import saereason as sr
from saereason.plots import plot_overlaps
from saereason.tasks import discovery_task, problems

model = sr.load_model(MODEL, adapter=ADAPTER)
saes = {layer: sae for layer, sae in sr.load_saes(SAES).items() if layer in LAYERS}
task = discovery_task(None, n=N_DISCOVERY)
pairs = sr.Examples.pair(model, task.prompts(model, task.cot), task.prompts(model, task.direct))
[best] = sr.search(model, saes, pairs).top(1, "studentised")
size = 2 * float(sr.diff_mean(model, pairs, [best.layer])[best.layer].norm())
[random] = sr.random_directions(model.d_model, 1, norm=size, seed=0)
once = sr.LastPromptToken()

# %% [markdown]
# ## What does each make of the answers?

# %%
mechanisms = [
    sr.ChainOfThought(),
    sr.chain_of_draft(),
    sr.ForcedPrefix("Step"),
    sr.Steered("one feature", (sr.Add(best, size, once),)),
    sr.Steered("random direction", (sr.AddVector(best.layer, random, 1.0, once),)),
]
fresh = sr.word_problems(problems(N, seed=0, split="confirmation"))
found = sr.compare(
    model, saes, mechanisms, {"problems": fresh}, run=sr.Run.open("runs/compare"), max_new_tokens=N_TOKENS
)
found.summary()[["mechanism", "accuracy", "change", "change_low", "change_high", "tokens"]].round(3)

# %% [markdown]
# ## What is a thought worth?
# Nats per token of the right answer after the text; with the answer masked in it; after another item's text.

# %%
found.summary()[["mechanism", "gain_own", "gain_masked", "gain_other"]].round(3)

# %% [markdown]
# ## Do they change the same features?
# The random direction shows what any edit shares.

# %%
plot_overlaps(found.overlaps, n=N)

# %% [markdown]
# ## By more than chance?

# %%
for pair, alike in found.overlaps.items():
    print(pair, f"cosine {alike.cosine:.2f}, 95% of chance below {alike.cosine_by_chance:.2f}, p {alike.p:.3f}")
