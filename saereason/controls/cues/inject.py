"""Put tokens into texts, in the seven ways of arXiv 2601.05679, and others of the same kind in their place."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

Strategy = Literal["prepend", "append", "intersperse", "replace", "bigram", "trigram", "list"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
N_PIECES: dict[Strategy, int] = {name: {"bigram": 2, "trigram": 1}.get(name, 3) for name in STRATEGIES}
"""How many tokens, or n-grams, go into a text: those of the published runs."""

Piece = tuple[int, ...]
Context = tuple[Piece, int, Piece]


def inject(
    row: Sequence[int],
    pieces: Sequence[Piece],
    strategy: Strategy,
    *,
    seed: int | Sequence[int],
    first: int = 0,
    separator: Piece = (),
) -> list[int]:
    """The row of token ids with the pieces (a token each, or an n-gram) put in; the row itself is left as it is.

    `prepend` and `append` put them at the ends; `intersperse`, `bigram` and `trigram` each into a gap of its own;
    `replace` over as many tokens as they have; `list` into one gap, with the separator between them. Gaps are drawn by
    the seed alone, so pieces of the same lengths go to the same places. The first `first` tokens (a special token)
    stay in front. Raises ValueError for an unknown strategy, or a row too short to replace in.
    """
    rng = np.random.default_rng(seed)
    head, body = list(row[:first]), list(row[first:])
    flat = [token for piece in pieces for token in piece]
    if strategy == "prepend":
        return head + flat + body
    if strategy == "append":
        return head + body + flat
    if strategy == "replace":
        if len(flat) > len(body):
            raise ValueError(f"{len(flat)} tokens cannot be replaced in a text of {len(body)}; give longer texts.")
        for at, token in zip(rng.choice(len(body), size=len(flat), replace=False), flat, strict=True):
            body[at] = token
        return head + body
    if strategy == "list":
        listed = [token for n, piece in enumerate(pieces) for token in ((*separator, *piece) if n else piece)]
        at = rng.integers(len(body) + 1)
        return head + body[:at] + listed + body[at:]
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; there are {', '.join(STRATEGIES)}.")
    gaps = rng.integers(len(body) + 1, size=len(pieces))
    for n in np.argsort(-gaps, kind="stable"):  # from the back, so that earlier gaps stay where they are
        body[gaps[n] : gaps[n]] = pieces[n]
    return head + body


def drawn_pieces(
    strategy: Strategy,
    cues: Int[np.ndarray, "cue"],
    weights: Float[np.ndarray, "cue"],
    contexts: Sequence[Context],
    rng: np.random.Generator,
) -> list[Piece]:
    """What to put into one text: cues drawn in proportion to their weights, or n-grams from the top contexts.

    A bigram is the cue with the token before it, a trigram has the token after it too. (The published code draws cues
    evenly and without repeats, and neighbours by their frequency around the cue, before and after apart.)
    """
    n = N_PIECES[strategy]
    if strategy not in ("bigram", "trigram"):
        return [(int(token),) for token in rng.choice(cues, size=n, p=weights / weights.sum())]
    chosen = [contexts[i] for i in rng.integers(len(contexts), size=n)]
    return [(*before, cue, *(after if strategy == "trigram" else ())) for before, cue, after in chosen]


def swapped(pieces: Sequence[Piece], stand_ins: Mapping[int, np.ndarray], rng: np.random.Generator) -> list[Piece]:
    """The pieces with every token replaced by one of its stand-ins."""
    return [tuple(int(rng.choice(stand_ins[token])) for token in piece) for piece in pieces]


def stand_ins(
    tokens: Sequence[int],
    counts: Mapping[int, int],
    means: Mapping[int, float],
    barred: set[int],
    *,
    near: int = 8,
) -> dict[int, np.ndarray]:
    """For each token `near` others that are about as frequent, and to which the feature answers least.

    Of the `4 · near` whose logarithm of `counts` is closest, those with the smallest mean activation in `means` (0 if
    it is not there), so that a cue's likes do not stand in for it. `barred` tokens never do. Raises ValueError if no
    token is left.
    """
    others = np.array(sorted(set(counts) - barred), dtype=np.int64)
    if not len(others):
        raise ValueError("no token is left to stand in for the cues; give more texts, or look at fewer cues.")
    frequency = np.log([counts[token] for token in others.tolist()])
    answer = np.array([means.get(token, 0.0) for token in others.tolist()])
    found = {}
    for token in tokens:
        closest = np.argsort(np.abs(frequency - np.log(counts[token])), kind="stable")[: 4 * near]
        found[token] = others[closest[np.argsort(answer[closest], kind="stable")[:near]]]
    return found
