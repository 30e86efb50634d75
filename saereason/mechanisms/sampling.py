"""Many samples of each answer: how often is one of k right?"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from saereason.effects import Trial
from saereason.generate import generate
from saereason.model import Model
from saereason.saes import SAE
from saereason.tasks import Outcome, Task

from .mechanism import Mechanism, Progress, unseen


def right_of(
    model: Model,
    saes: Mapping[int, SAE] | None,
    mechanism: Mechanism,
    task: Task,
    n: int = 16,
    *,
    temperature: float = 0.7,
    max_new_tokens: int = 96,
    batch_size: int = 100,
    seed: int = 0,
    progress: Progress = unseen,
) -> Int[np.ndarray, "item"]:
    """How many of `n` sampled answers to each item are right, for `pass_at_k`.

    For mechanisms that ask or steer; what they change of decoding is left out, for sampling takes its place. Raises
    ValueError for a temperature of 0, at which all samples are one.
    """
    if n < 1 or temperature <= 0:
        raise ValueError(f"n is {n} and temperature {temperature}; give at least one sample, at more than 0.")
    with mechanism.apply(model, saes) as changed:
        prompts = task.prompts(changed, mechanism.instruction(task))
        made = generate(
            changed,
            prompts * n,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
    judge, right = Trial.of(model, task, max_new_tokens=max_new_tokens).judge, np.zeros((n, len(task)), dtype=np.int64)
    for place, (text, tokens, finished) in enumerate(zip(made.texts, made.tokens, made.finished, strict=True)):
        sample, item = divmod(place, len(task))
        right[sample, item] = judge(item, text, tokens, finished=finished) is Outcome.RIGHT
    return right.sum(0)
