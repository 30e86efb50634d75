"""Answers at once against answers after thinking, item by item (arXiv 2507.18178)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from saereason.metrics import LogProb, Scored
from saereason.model import Model
from saereason.stats import Estimate, paired_difference, wilson
from saereason.tasks import Outcome, Task

PARSED = (Outcome.RIGHT, Outcome.WRONG)

CLOSING = "\nThe answer is"
"""What stands between a text and the answer that is scored."""


@dataclass(frozen=True)
class FastSlow:
    """How thinking changes answers: `delta = corrected - overthought`, exactly."""

    domain: str
    n: int
    fast: Estimate
    """Accuracy at once, with Wilson's interval."""

    slow: Estimate
    delta: Estimate
    """`slow - fast`, with Tango's interval, paired by item."""

    corrected: Estimate
    """δ_c: share of items that are wrong at once and right after thinking."""

    overthought: Estimate
    """δ_o: share of items that are right at once and wrong after thinking."""

    corrects: Estimate | None
    """r_c: share right after thinking among those wrong at once; None where none is."""

    overthinks: Estimate | None
    """r_o: share wrong after thinking among those right at once; None where none is."""


def fast_slow(
    domain: str, fast: Sequence[Outcome | str], slow: Sequence[Outcome | str], *, parsed_only: bool = False
) -> FastSlow:
    """The decomposition for one domain, from the outcomes of the same items in the same order.

    Whatever is not right counts as wrong; with `parsed_only`, items that are unparsable, truncated or looping in either
    are left out. Raises ValueError for other lengths, and where no item is left.
    """
    if len(fast) != len(slow):
        raise ValueError(
            f"there are {len(fast)} fast and {len(slow)} slow outcomes of {domain}; give one each an item."
        )
    pairs = [(Outcome(a), Outcome(b)) for a, b in zip(fast, slow, strict=True)]
    if parsed_only:
        pairs = [(a, b) for a, b in pairs if a in PARSED and b in PARSED]
    if not pairs:
        raise ValueError(f"{domain} has no items{' that are parsed in both' if parsed_only else ''}.")
    quick, late = (np.array([pair[n] is Outcome.RIGHT for pair in pairs]) for n in (0, 1))
    n = len(pairs)
    gained, lost = int((late & ~quick).sum()), int((quick & ~late).sum())
    found = FastSlow(
        domain,
        n,
        wilson(int(quick.sum()), n),
        wilson(int(late.sum()), n),
        paired_difference(late, quick),
        wilson(gained, n),
        wilson(lost, n),
        wilson(gained, int((~quick).sum())) if (~quick).any() else None,
        wilson(lost, int(quick.sum())) if quick.any() else None,
    )
    if round(found.delta.value * n) != gained - lost:
        raise AssertionError(f"δ = δ_c − δ_o does not hold for {domain}: {found}")
    return found


def answer_log_probs(
    model: Model, task: Task, instruction: str | None, thoughts: Sequence[str] | None = None
) -> Float[np.ndarray, "item"]:
    """Mean log-probability (nats) per token of each answer, after "The answer is", at once or after a thought.

    A thought that states the answer makes it likely by being copied. NaN where all does not fit the context. Raises
    ValueError for another number of thoughts than items.
    """
    said = [""] * len(task) if thoughts is None else list(thoughts)
    if len(said) != len(task):
        raise ValueError(f"there are {len(said)} thoughts for {len(task)} items; give one each.")

    def tokens(text: str) -> tuple[int, ...]:
        return tuple(model.tokenizer(text, add_special_tokens=False)["input_ids"])

    items, found = [], np.full(len(task), np.nan)
    for item, prompt, thought in zip(task.items, task.prompts(model, instruction), said, strict=True):
        answer = tokens(f" {item.answer}")
        given = (*model.encode(prompt), *tokens(f"{thought}{CLOSING}" if thought else CLOSING.strip()))
        items.append(Scored(given, answer, (True,) * len(answer)))
    fits = [n for n, item in enumerate(items) if len(item.prompt) + len(item.continuation) <= model.n_ctx]
    if fits:
        found[fits] = LogProb(tuple(items[n] for n in fits))(model).numpy()
    return found
