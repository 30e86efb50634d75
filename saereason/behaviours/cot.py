"""CoT mode: the model works a problem out in steps because it was asked to."""

from dataclasses import replace

from saereason.controls import Behaviour, Sample
from saereason.effects import Shows, Trial
from saereason.examples import Examples
from saereason.model import Model
from saereason.tasks import Task, confirmation_task, discovery_task
from saereason.training import plain_texts

WORKING = r"\d\s*[-+*/×÷−]\s*[$€£]?\d[\d,.]*\s*="
"""A computation written out: the sign that a model works a problem out."""

MATCHED = "Let's give one number now."
"""As long as the CoT instruction, of the same form, and no request to reason."""

PARAPHRASES = (
    "Work it out one step at a time before you answer.",
    "Show your reasoning, then give the result.",
    "Explain how you get there and only then answer.",
    "Think carefully and write down each computation.",
)


def cot_mode(
    model: Model,
    *,
    n_discovery: int = 96,
    n_confirmation: int = 100,
    n_rehearsal: int = 24,
    n_plain: int = 100,
    max_new_tokens: int = 96,
    seed: int = 0,
) -> Behaviour:
    """Word problems asked for working in steps and for the bare answer, compared at the last token of the prompt.

    Steering acts once, there, on problems asked for the bare answer. The behaviour shows where a computation is
    written out; the task is the right answer.
    """
    discovery = discovery_task(None, n=n_discovery, seed=seed)
    confirmation = confirmation_task(n=n_confirmation, seed=seed)
    shows, tokens = Shows(WORKING), {"max_new_tokens": max_new_tokens}
    directly = Trial.of(model, confirmation, confirmation.direct, **tokens)
    in_steps = replace(Trial.of(model, confirmation, confirmation.cot, **tokens), judge=shows)
    rehearsal = Trial.of(model, discovery.take(n_rehearsal), discovery.direct, **tokens)
    return Behaviour(
        name="CoT mode",
        discovery=_asked(model, discovery, discovery.direct),
        confirmation=_asked(model, confirmation, confirmation.direct),
        showing=tuple(discovery.prompts(model, discovery.cot)),
        plain=tuple(plain_texts()[:n_plain]),
        matched=_asked(model, confirmation, MATCHED),
        paraphrases=tuple(
            prompt
            for instruction in PARAPHRASES
            for prompt in confirmation.take(n_confirmation // 4).prompts(model, instruction)
        ),
        rehearsal=replace(rehearsal, judge=shows),
        practice=Trial.of(model, discovery, discovery.cot, **tokens),
        absent=replace(directly, judge=shows),
        instructed=in_steps,
        present=in_steps,
        task=directly,
    )


def _asked(model: Model, task: Task, otherwise: str) -> Sample:
    """The CoT prompts against the same questions asked otherwise."""
    examples = Examples.pair(model, task.prompts(model, task.cot), task.prompts(model, otherwise))
    return Sample(examples, tuple(item.id for item in task.items))
