"""Cognitive tools: four calls, each of which sees only what it is given, before the answer (arXiv 2506.12115)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saereason import hooks
from saereason.generate import Generation, generate
from saereason.model import Model
from saereason.tasks import Task
from saereason.writing import Budget

from .mechanism import Mechanism, Progress, Written


@dataclass(frozen=True)
class Tool:
    """A call: what is asked for below the question and, where it looks at an answer, the draft."""

    name: str
    words: str
    sees_draft: bool = False


TOOLS = (
    Tool(
        "understand the question",
        "Do not solve this. Say what is asked, what is given, and what kind of problem it is.",
    ),
    Tool("recall related", "Do not solve this. Give a similar problem and work it in steps."),
    Tool("examine the answer", "Check this draft for mistakes, step by step, and say what is wrong.", sees_draft=True),
    Tool(
        "backtrack",
        "Find the first wrong step of this draft, if there is one, and another way on from there.",
        sees_draft=True,
    ),
)
"""The paper's four, in words that a small model may follow."""


@dataclass(frozen=True)
class CognitiveTools(Mechanism):
    """Each tool is called by itself; the last call sees the question and what all of them said, and answers.

    The first tools see the question alone. Those that examine see it with a draft, the answer to the CoT prompt. `most`
    is how many tokens each call may write.
    """

    tools: tuple[Tool, ...] = TOOLS
    most: int = 48
    name: str = "cognitive tools"
    _made: dict[Any, Mapping[str, Generation]] = field(default_factory=dict, init=False, compare=False, repr=False)

    def describe(self) -> str:
        return f"Asked to answer after {len(self.tools)} calls of their own: {', '.join(t.name for t in self.tools)}."

    def instruction(self, task: Task) -> str | None:
        return task.cot

    def write(self, model: Model, task: Task, *, max_new_tokens: int, batch_size: int, progress: Progress) -> Written:
        calls = self.calls(model, task, batch_size=batch_size, progress=progress)
        return answered_after(model, task, self.instruction(task), calls, max_new_tokens, batch_size)

    def calls(self, model: Model, task: Task, *, batch_size: int, progress: Progress) -> Mapping[str, Generation]:
        """What each call wrote, by name; a draft first, where a tool needs one.

        Made once for a model and a task, and kept for the control, where nothing is hooked on the model.
        """
        if hooks.hooked(model):
            return self._call(model, task, batch_size, progress)
        asked = (model.hash, model.dtype, str(model.tokenizer.chat_template), task, batch_size)
        if asked not in self._made:
            self._made[asked] = self._call(model, task, batch_size, progress)
        return self._made[asked]

    def _call(self, model: Model, task: Task, batch_size: int, progress: Progress) -> Mapping[str, Generation]:
        questions, found = [item.question for item in task.items], {}
        total = len(self.tools) + any(tool.sees_draft for tool in self.tools)

        def call(name: str, messages: Sequence[str]) -> None:
            prompts = [model.render(message, task.system, task.chat) for message in messages]
            found[name] = generate(model, prompts, max_new_tokens=self.most, batch_size=batch_size)
            progress(len(found), total)

        if any(tool.sees_draft for tool in self.tools):
            call("draft", [f"{question}\n{task.cot}" for question in questions])
        for tool in self.tools:
            seen = questions
            if tool.sees_draft:
                seen = [f"{q}\n\nDraft:\n{text}\n" for q, text in zip(questions, found["draft"].texts, strict=True)]
            call(tool.name, [f"{message}\n{tool.words}" for message in seen])
        return found


@dataclass(frozen=True)
class AsManyTokens(Mechanism):
    """The control of the tools: as many calls, each of the item's own number of tokens, of nothing but more thinking.

    Each call continues the CoT prompt without an end, and is cut to the number of tokens that the tool wrote; the last
    call sees what they said as it saw the tools.
    """

    tools: CognitiveTools = field(default_factory=CognitiveTools)
    name: str = "as many tokens of CoT"

    def describe(self) -> str:
        return f"Asked to answer after as many tokens of plain CoT as {self.tools.name} writes."

    def instruction(self, task: Task) -> str | None:
        return task.cot

    def write(self, model: Model, task: Task, *, max_new_tokens: int, batch_size: int, progress: Progress) -> Written:
        calls = self.tools.calls(model, task, batch_size=batch_size, progress=lambda done, total: None)
        longest = max(len(tokens) for made in calls.values() for tokens in made.tokens)
        prompts = task.prompts(model, self.instruction(task))
        whole = generate(
            model,
            prompts,
            max_new_tokens=longest,
            budget=Budget(longest) if longest else None,
            batch_size=batch_size,
            progress=progress,
        )
        cut = {name: _cut(model, whole, [len(tokens) for tokens in made.tokens]) for name, made in calls.items()}
        return answered_after(model, task, self.instruction(task), cut, max_new_tokens, batch_size)


def answered_after(
    model: Model,
    task: Task,
    instruction: str | None,
    calls: Mapping[str, Generation],
    max_new_tokens: int,
    batch_size: int,
) -> Written:
    """The last call, which sees the question and what every call before said."""
    messages = []
    for n, item in enumerate(task.items):
        notes = "\n".join(f"{name}: {made.texts[n].strip()}" for name, made in calls.items() if name != "draft")
        messages.append("\n".join(filter(None, [item.question, f"Notes:\n{notes}", instruction])))
    prompts = [model.render(message, task.system, task.chat) for message in messages]
    made = generate(model, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)
    return Written.of(model, made, [sum(len(each.tokens[n]) for each in calls.values()) for n in range(len(task))])


def _cut(model: Model, made: Generation, lengths: Sequence[int]) -> Generation:
    tokens = tuple(row[:length] for row, length in zip(made.tokens, lengths, strict=True))
    return Generation(made.prompts, tuple(map(model.decode, tokens)), tokens, made.finished, made.receipt)
