"""Mechanisms that only ask otherwise: other instructions, first words put into the mouth, and no early end."""

from dataclasses import dataclass

from saereason.generate import generate
from saereason.model import Model
from saereason.tasks import Task
from saereason.writing import Budget

from .mechanism import Mechanism, Progress, Written

DRAFT = "Think step by step, but only keep a minimum draft for each step, with 5 words at most. Then give the answer."
"""Chain of Draft's instruction (arXiv 2502.18600), with the answer after `####` left to the task's format."""


@dataclass(frozen=True)
class Direct(Mechanism):
    """The question and the instruction to answer at once: what all others are measured against."""

    name: str = "direct"

    def describe(self) -> str:
        return "Asked to answer at once."


@dataclass(frozen=True)
class Asked(Mechanism):
    """Another instruction in place of the task's direct one."""

    name: str
    words: str

    def describe(self) -> str:
        return f'Asked "{self.words}"'

    def instruction(self, task: Task) -> str | None:  # noqa: ARG002
        return self.words


@dataclass(frozen=True)
class ChainOfThought(Mechanism):
    """The task's own instruction to think in steps (Wei et al. 2022; Kojima et al. 2022)."""

    name: str = "CoT prompt"

    def describe(self) -> str:
        return "Asked to think step by step."

    def instruction(self, task: Task) -> str | None:
        return task.cot


def chain_of_draft() -> Asked:
    """Chain of Draft (arXiv 2502.18600): steps in few words."""
    return Asked("Chain of Draft", DRAFT)


@dataclass(frozen=True)
class ForcedPrefix(Mechanism):
    """Answers that open with given words, after the direct prompt."""

    prefix: str
    name: str = "forced prefix"

    def __post_init__(self) -> None:
        if not self.prefix:
            raise ValueError("the prefix is empty; give the words that answers are to open with.")

    def describe(self) -> str:
        return f"Asked to answer at once, the answer's first words set to {self.prefix!r}."

    def write(self, model: Model, task: Task, *, max_new_tokens: int, batch_size: int, progress: Progress) -> Written:
        opening = tuple(model.tokenizer(self.prefix, add_special_tokens=False)["input_ids"])
        if len(opening) >= max_new_tokens:
            raise ValueError(f"the prefix has {len(opening)} of {max_new_tokens} new tokens; allow for more.")
        prompts = task.prompts(model, self.instruction(task))
        made = generate(
            model,
            prompts,
            max_new_tokens=max_new_tokens - len(opening),
            forced=[opening] * len(prompts),
            batch_size=batch_size,
            progress=progress,
        )
        return Written.of(model, made)


@dataclass(frozen=True)
class ThinkLonger(Mechanism):
    """Budget forcing (s1, arXiv 2501.19393): an answer to the CoT prompt that would end early goes on with `wait`."""

    budget: Budget
    name: str = "budget forcing"

    def describe(self) -> str:
        how = f"goes on with {self.budget.wait!r}" if self.budget.wait else "cannot end"
        return f"Asked to think step by step; an answer of under {self.budget.least} tokens {how}."

    def instruction(self, task: Task) -> str | None:
        return task.cot

    def write(self, model: Model, task: Task, *, max_new_tokens: int, batch_size: int, progress: Progress) -> Written:
        prompts = task.prompts(model, self.instruction(task))
        made = generate(
            model,
            prompts,
            max_new_tokens=max_new_tokens,
            budget=self.budget,
            batch_size=batch_size,
            progress=progress,
        )
        return Written.of(model, made)
