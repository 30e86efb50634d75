"""CoT-decoding: reason by taking another first token, without another prompt (arXiv 2402.10200)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saereason import hooks
from saereason.generate import Generation, generate
from saereason.model import Model, pad
from saereason.tasks import Task
from saereason.tasks.grading import answer_span
from saereason.writing import end_tokens

from .mechanism import Mechanism, Progress, Prompt, Written


@dataclass(frozen=True)
class Path:
    """One continuation of a prompt."""

    text: str
    tokens: tuple[int, ...]
    finished: bool

    answer: str | None
    """What it gives for an answer; None for nothing."""

    confidence: float
    """Δ: the mean over the answer's tokens of how much likelier each was than the next best; 0 without an answer."""


@dataclass(frozen=True)
class CoTDecoding(Mechanism):
    """The `k` likeliest first tokens after the direct prompt, each continued greedily; the path that is surest of its
    answer is taken.

    `by="largest"`: the path of the largest Δ. `by="sum"`: Δ is summed over the paths that agree, and of the answer with
    the largest sum the surest path is taken. Where no path gives an answer, the greedy one is.
    """

    k: int = 10
    by: Literal["largest", "sum"] = "largest"
    name: str = "CoT-decoding"

    def __post_init__(self) -> None:
        if self.k < 1 or self.by not in ("largest", "sum"):
            raise ValueError(f"k is {self.k} and by {self.by!r}; k must be at least 1, and by 'largest' or 'sum'.")

    def describe(self) -> str:
        return f"Asked to answer at once; of {self.k} first tokens the path that is surest of its answer ({self.by})."

    def write(self, model: Model, task: Task, *, max_new_tokens: int, batch_size: int, progress: Progress) -> Written:
        prompts = task.prompts(model, self.instruction(task))
        first = first_tokens(model, prompts, self.k, batch_size=batch_size).tolist()
        every = [prompt for prompt in prompts for _ in range(self.k)]
        made = generate(
            model,
            every,
            max_new_tokens=max(1, max_new_tokens - 1),
            forced=[[token] for row in first for token in row],
            batch_size=batch_size,
            progress=progress,
        )
        found = paths(model, made, [item.answer for item in task.items for _ in range(self.k)], batch_size=batch_size)
        each = [found[n : n + self.k] for n in range(0, len(found), self.k)]
        taken = [surest(of_item, self.by) for of_item in each]
        return Written(
            tuple(tuple(model.encode(prompt)) for prompt in prompts),
            tuple(path.text for path in taken),
            tuple(path.tokens for path in taken),
            tuple(path.finished for path in taken),
            tuple(sum(len(path.tokens) for path in of_item) for of_item in each),
        )


def surest(paths: Sequence[Path], by: str) -> Path:
    """The path to take, the first among equals; the first of all where none gives an answer."""
    giving = [path for path in paths if path.answer is not None]
    if not giving:
        return paths[0]
    if by == "sum":
        sums: dict[str, float] = {}
        for path in giving:
            sums[str(path.answer)] = sums.get(str(path.answer), 0.0) + path.confidence
        best = max(sums, key=lambda answer: sums[answer])
        giving = [path for path in giving if path.answer == best]
    return max(giving, key=lambda path: path.confidence)


@torch.no_grad()
def first_tokens(model: Model, prompts: Sequence[Prompt], k: int, *, batch_size: int) -> Int[Tensor, "prompt k"]:
    """The likeliest first tokens of an answer, the likeliest first, none of which ends the text."""
    rows, ends, found = [model.encode(prompt) for prompt in prompts], end_tokens(model, ()), []
    if k > model.d_vocab - len(ends):
        raise ValueError(f"k is {k} and the model has {model.d_vocab} tokens; ask for fewer.")
    for start in range(0, len(rows), batch_size):
        batch = pad(rows[start : start + batch_size], pad_token=model.pad_token, device=model.device)
        with hooks.prompts(batch.mask.sum(-1), torch.arange(start, start + len(batch.tokens))):
            logits = hooks.run(model, batch, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        logits[:, ends] = float("-inf")
        found.append(logits.topk(k).indices.cpu())
    return torch.cat(found)


def paths(model: Model, made: Generation, like: Sequence[str], *, batch_size: int) -> list[Path]:
    """Generated answers with what each says and how sure it is of it; `like` has an answer of the wanted kind each."""
    ids = [model.encode(prompt) for prompt in made.prompts]
    texts = [model.decode(tokens) for tokens in made.tokens]
    spans = [
        answer_span(text, kind, finished=ended) for text, kind, ended in zip(texts, like, made.finished, strict=True)
    ]
    places = [
        [] if span is None else tokens_in(model, tokens, span) for tokens, span in zip(made.tokens, spans, strict=True)
    ]
    gaps = leads(model, ids, made.tokens, places, batch_size=batch_size)
    return [
        Path(
            text,
            tokens,
            finished,
            None if span is None or not at else text[slice(*span)].strip().casefold(),
            float(gap.mean()) if at else 0.0,
        )
        for text, tokens, finished, span, at, gap in zip(
            texts, made.tokens, made.finished, spans, places, gaps, strict=True
        )
    ]


def tokens_in(model: Model, tokens: Sequence[int], span: tuple[int, int]) -> list[int]:
    """Which of a text's tokens reach into a span of its characters."""
    ends = [len(model.decode(tokens[: n + 1])) for n in range(len(tokens))]
    starts = [0, *ends[:-1]]
    return [n for n, (start, end) in enumerate(zip(starts, ends, strict=True)) if start < span[1] and end > span[0]]


@torch.no_grad()
def leads(
    model: Model,
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    *,
    batch_size: int,
) -> list[Float[np.ndarray, "token"]]:
    """At some places of each continuation, the probability of the likeliest token less that of the next: `p₁ − p₂`."""
    found: list[np.ndarray] = [np.zeros(0) for _ in prompts]
    asked = sorted((n for n in range(len(prompts)) if places[n]), key=lambda n: len(prompts[n]) + len(tokens[n]))
    for start in range(0, len(asked), batch_size):
        these = asked[start : start + batch_size]
        rows = [[*prompts[n], *tokens[n][: max(places[n])]] for n in these]
        batch = pad(rows, pad_token=model.pad_token, device=model.device)
        width = batch.tokens.shape[1]
        heads = torch.zeros_like(batch.mask)
        for row, n in enumerate(these):
            at = torch.tensor(places[n]) + len(prompts[n]) - 1
            heads[row, width - len(rows[row]) + at] = True
        lengths = torch.tensor([len(prompts[n]) for n in these])
        with hooks.prompts(lengths, torch.tensor(these)):
            logits = hooks.run(model, batch, heads=heads, use_cache=False).logits[0].float()
        top = logits.softmax(-1).topk(2).values
        gap = (top[:, 0] - top[:, 1]).cpu().double().numpy()
        for n, part in zip(these, np.split(gap, np.cumsum([len(places[n]) for n in these])[:-1]), strict=True):
            found[n] = part
    return found
