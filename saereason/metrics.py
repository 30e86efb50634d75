"""What is measured of a model, as one number per item."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from . import hooks
from .model import Batch, Model, Rendered, pad
from .prefixes import Prefixes, depends_on_the_longest, read_once


@runtime_checkable
class Metric(Protocol):
    """Runs the model as it stands, edits in force and all, and answers one number an item."""

    def __call__(self, model: Model) -> Float[Tensor, "item"]: ...


@dataclass(frozen=True)
class Scored:
    """One text as token ids: the prompt, what follows it, and which of the following tokens are scored."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    scored: tuple[bool, ...]

    def __post_init__(self) -> None:
        if len(self.scored) != len(self.continuation) or not any(self.scored):
            raise ValueError(f"{sum(self.scored)} of {len(self.continuation)} tokens are scored; at least one must be.")
        if not self.prompt:
            raise ValueError("the prompt has no tokens, so nothing predicts the first of the continuation.")


@dataclass(frozen=True, eq=False)
class LogProb:
    """Mean log-probability (nats) per scored token of each item, teacher-forced.

    `prefixes` saves work where few items, one batch of them, are scored again and again under edits that leave the
    prompts alone. Called on a model, it raises ValueError for an item longer than the model's context.
    """

    items: tuple[Scored, ...]
    batch_size: int = 32
    progress: Callable[[int], None] = field(default=lambda done: None)
    prefixes: Prefixes | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        prompts: Sequence[str | Rendered],
        continuations: Sequence[str],
        spans: Sequence[Sequence[tuple[int, int]]] | None = None,
        *,
        digits_only: bool = False,
        batch_size: int = 32,
    ) -> "LogProb":
        """Score the continuation of each prompt, or the tokens that reach into some of its character spans.

        `digits_only` leaves out scored tokens without a digit (this tokeniser family gives " 54" as three tokens, the
        first a space). Raises ValueError for a span without a token.
        """
        if spans is None:
            spans = [[(0, len(text))] for text in continuations]
        items = [
            _scored(model, prompt, text, within, digits_only)
            for prompt, text, within in zip(prompts, continuations, spans, strict=True)
        ]
        return cls(tuple(items), batch_size)

    def batches(self) -> list[list[int]]:
        """Which items are run together: those of like length."""
        order = sorted(
            range(len(self.items)), key=lambda n: len(self.items[n].prompt) + len(self.items[n].continuation)
        )
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    @torch.no_grad()
    def __call__(self, model: Model) -> Float[Tensor, "item"]:
        values = torch.zeros(len(self.items), dtype=torch.float64)
        for rows in self.batches():
            values[rows] = log_probs(model, [self.items[n] for n in rows], rows, self.prefixes)
            self.progress(len(rows))
        return values

    def __len__(self) -> int:
        return len(self.items)


def _scored(
    model: Model, prompt: str | Rendered, text: str, spans: Sequence[tuple[int, int]], digits_only: bool
) -> Scored:
    encoded = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    tokens, offsets = encoded["input_ids"], encoded["offset_mapping"]
    counts = [not digits_only or any(c.isdigit() for c in text[start:end]) for start, end in offsets]
    chosen = [
        [start < high and end > low and count for (start, end), count in zip(offsets, counts, strict=True)]
        for low, high in spans
    ]
    empty = [span for span, tokens_in in zip(spans, chosen, strict=True) if not any(tokens_in)]
    if empty or not spans:
        what = f"within {empty[0]}" if empty else "in no span"
        raise ValueError(f"no token of {text!r} is to be scored {what}; give spans that hold part of the text.")
    scored = tuple(any(column) for column in zip(*chosen, strict=True))
    return Scored(tuple(model.encode(prompt)), tuple(tokens), scored)


def padded(model: Model, items: Sequence[Scored]) -> Batch:
    """What of the items is run, as a batch: all but the last token of each, after which nothing is scored.

    Left padding puts the tokens that predict a continuation at the end.
    """
    rows = [item.prompt + item.continuation[:-1] for item in items]
    return pad(rows, pad_token=model.pad_token, device=model.device)


def log_probs(
    model: Model, items: Sequence[Scored], places: Sequence[int] | None = None, prefixes: Prefixes | None = None
) -> Float[Tensor, "item"]:
    """Mean log-probability per scored token of each item; the LM head runs where it is scored only.

    `places` says which rows they are, for edits of some rows, where that is not their place here.
    """
    _check_room(model, items)
    lengths = torch.tensor([len(item.prompt) for item in items])
    rows = None if places is None else torch.tensor(places)
    if prefixes is not None and not depends_on_the_longest(model):
        asked = pad([item.prompt for item in items], pad_token=model.pad_token, device=model.device)
        with hooks.prompts(lengths, rows):
            cache = prefixes.of(model, asked)
        if cache is not None:
            before = Batch(asked.tokens[:, :-1], asked.mask[:, :-1])
            return _after(model, before, cache, items, (lengths - 1).tolist(), rows)
    with hooks.prompts(lengths, rows):
        keep = max(len(item.continuation) for item in items)
        scored = torch.zeros(len(items), keep, dtype=torch.bool, device=model.device)
        for row, item in enumerate(items):
            scored[row, keep - len(item.continuation) :] = torch.tensor(item.scored)
        out = hooks.run(model, padded(model, items), heads=scored, logits_to_keep=keep, use_cache=False)
    return _means(out.logits[0].float(), items, scored)


@torch.no_grad()
def log_probs_after(
    model: Model, items: Sequence[Scored], shared: Sequence[int], *, batch_size: int = 32
) -> Float[Tensor, "item"]:
    """As `LogProb`, where the first `shared` tokens of an item's prompt begin others' too and are run once a batch.

    Every item is run whole where `read_once` may not be. Raises ValueError where nothing of a prompt is shared, or all.
    """
    if any(not 0 < n < len(item.prompt) for item, n in zip(items, shared, strict=True)):
        raise ValueError("of every prompt some tokens must be shared and some not; give LogProb the others.")
    order = sorted(range(len(items)), key=lambda n: (shared[n], items[n].prompt[: shared[n]], len(items[n].prompt)))
    values = torch.zeros(len(items), dtype=torch.float64)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        these = [items[n] for n in rows]
        once = read_once(model, [items[n].prompt[: shared[n]] for n in rows])
        if once is None:
            values[rows] = log_probs(model, these, rows)
        else:
            _check_room(model, these)
            values[rows] = _after(model, once[0], once[2], these, [shared[n] for n in rows])
    return values


def _after(
    model: Model, before: Batch, cache: Any, items: Sequence[Scored], shared: Sequence[int], rows: Tensor | None = None
) -> Float[Tensor, "item"]:
    """Of one batch, whose first tokens have been run; the others are padded on the right, to stand next to them."""
    rests = [(*item.prompt[n:], *item.continuation[:-1]) for item, n in zip(items, shared, strict=True)]
    after = pad(rests, pad_token=model.pad_token, side="right", device=model.device)
    scored = torch.zeros_like(after.mask)
    for row, (item, n) in enumerate(zip(items, shared, strict=True)):
        first = len(item.prompt) - n - 1
        scored[row, first : first + len(item.scored)] = torch.tensor(item.scored)
    whole = Batch(torch.cat([before.tokens, after.tokens], 1), torch.cat([before.mask, after.mask], 1))
    lengths, keep = torch.tensor([len(item.prompt) for item in items]), after.tokens.shape[1]
    with hooks.prompts(lengths, rows, whole.tokens):
        out = hooks.run(model, whole, cache, heads=scored, logits_to_keep=keep, use_cache=True)
    return _means(out.logits[0].float(), items, scored)


def _means(
    wide: Float[Tensor, "token d_vocab"], items: Sequence[Scored], scored: Bool[Tensor, "item kept"]
) -> Float[Tensor, "item"]:
    """Mean log-probability of each item's scored tokens, from the logits that predict them, row by row."""
    chosen = wide.gather(-1, targets(items).to(wide.device)[:, None])[:, 0] - wide.logsumexp(-1)
    chosen, scored = chosen.cpu().double(), scored.cpu()  # not every device has float64
    total = torch.zeros(len(items), dtype=torch.float64).index_add(0, scored.nonzero()[:, 0], chosen)
    return total / scored.sum(-1)


def _check_room(model: Model, items: Sequence[Scored]) -> None:
    longest = max(len(item.prompt) + len(item.continuation) for item in items)
    if longest > model.n_ctx:
        raise ValueError(f"an item has {longest} tokens and the context of {model.name} is {model.n_ctx}; shorten it.")


def targets(items: Sequence[Scored]) -> Int[Tensor, "token"]:
    """The scored tokens, item by item."""
    return torch.tensor([t for item in items for t, s in zip(item.continuation, item.scored, strict=True) if s])
