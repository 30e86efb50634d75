"""Vectors trained to make the model reason: a bias on the residual stream, all else frozen (arXiv 2505.18706)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from saereason import hooks
from saereason.model import Model, pad
from saereason.steering import AddVector, Everywhere
from saereason.tasks.arithmetic import problems
from saereason.tasks.prompts import DIRECT, ask

from .lessons import Lesson
from .steering import Steered
from .teach import pace


@dataclass(frozen=True)
class VectorRecipe:
    """Everything that decides which vectors come out."""

    layers: tuple[int, ...]
    n_problems: int = 480
    batch_size: int = 8
    learning_rate: float = 0.02
    seed: int = 0


def worked_lessons(model: Model, n: int, *, seed: int = 0) -> list[Lesson]:
    """Generated problems of the training split under the direct prompt, each with its worked answer to learn."""
    found = []
    for problem in problems(n, seed=seed, split="train"):
        prompt = model.encode(model.render(ask(problem.question, DIRECT)))
        answer = model.tokenizer(problem.solution + model.tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        found.append(Lesson(prompt, answer, [True] * len(answer)))
    return found


def train_vectors(
    model: Model,
    recipe: VectorRecipe,
    lessons: Sequence[Lesson] | None = None,
    *,
    progress: Callable[[int, int, float], None] = lambda step, n_steps, loss: None,
) -> dict[int, Float[Tensor, "d_model"]]:
    """One vector a layer, all trained together by cross-entropy on worked answers, each lesson seen once.

    They start at zero and are added after their blocks at every position. For vectors that are trained each by itself,
    call it once a layer. Raises ValueError for layers that are not there and for fewer lessons than a batch.
    """
    hooks.check_layers(model, recipe.layers)
    material = worked_lessons(model, recipe.n_problems, seed=recipe.seed) if lessons is None else list(lessons)
    n_steps = len(material) // recipe.batch_size
    if not recipe.layers or not n_steps:
        raise ValueError(
            f"there are {len(recipe.layers)} layers and {len(material)} lessons for batches of {recipe.batch_size}; "
            "give a layer and a batch of lessons at least."
        )
    order = torch.randperm(len(material), generator=torch.Generator().manual_seed(recipe.seed)).tolist()
    vectors = {layer: torch.zeros(model.d_model, device=model.device, requires_grad=True) for layer in recipe.layers}
    optimiser = torch.optim.AdamW(vectors.values(), lr=recipe.learning_rate, weight_decay=0.0)
    with _eager(model), hooks.edited(model, [_bias(layer, vector) for layer, vector in vectors.items()]):
        for step in range(n_steps):
            these = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * pace(step, n_steps)
            optimiser.zero_grad()
            loss = _loss(model, [material[n] for n in these])
            loss.backward()
            optimiser.step()
            progress(step + 1, n_steps, loss.item())
    return {layer: vector.detach().cpu() for layer, vector in vectors.items()}


def with_vectors(name: str, vectors: Mapping[int, Float[Tensor, "d_model"]]) -> Steered:
    """Trained vectors as a mechanism, added wherever they were trained: everywhere."""
    return Steered(
        name, tuple(AddVector(layer, vector, 1.0, Everywhere(), "trained") for layer, vector in vectors.items())
    )


def _bias(layer: int, vector: Tensor) -> hooks.Edit:
    return hooks.Edit(layer, f"vector after L{layer}", lambda at: at.valid, partial(_added, vector))


def _added(vector: Tensor, at: hooks.Visit) -> Tensor:
    return vector.to(at.resid).expand_as(at.resid)


def _loss(model: Model, lessons: Sequence[Lesson]) -> Tensor:
    """Mean cross-entropy of the learnt tokens; the LM head runs on no others."""
    rows = [[*x.prompt, *x.answer[:-1]] for x in lessons]
    batch = pad(rows, pad_token=model.pad_token, device=model.device)
    heads = torch.zeros_like(batch.mask)
    for row, x in enumerate(lessons):
        heads[row, batch.tokens.shape[1] - len(x.answer) :] = torch.tensor(x.learnt)
    wanted = [token for x in lessons for token, learnt in zip(x.answer, x.learnt, strict=True) if learnt]
    with torch.enable_grad(), hooks.prompts(torch.tensor([len(x.prompt) for x in lessons])):
        logits = hooks.run(model, batch, heads=heads, use_cache=False).logits[0]
    return cross_entropy(logits.float(), torch.tensor(wanted, device=logits.device))


@contextmanager
def _eager(model: Model) -> Iterator[None]:
    """Within the block attention is eager: the fused kernel's backward is slow on CPUs."""
    config: Any = model.hf.config
    before = config._attn_implementation
    model.hf.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.hf.set_attn_implementation(before)
