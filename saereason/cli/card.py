"""A feature's card as a terminal shows it, and as JSON. All text is a model's or a corpus's, and not to be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from saereason.visible import one_line

from .rows import cell

if TYPE_CHECKING:
    from saereason.model import Model
    from saereason.search import Context, FeatureCard

REACH = 32
"""Tokens of a context on either side of the active one."""

MOST_BARS, BAR = 12, 30


@dataclass(frozen=True)
class Passage:
    """A token on which a feature fires, with the text around it."""

    about: str
    act: float
    before: str
    token: str
    after: str


def passages(model: "Model", rows: Sequence[Sequence[int]], card: "FeatureCard") -> list[Passage]:
    """The card's contexts as text: the strongest, then those about each quantile of the activations above 0."""
    kinds = {"strongest": card.top, **{f"about quantile {q:g}": found for q, found in card.quantiles.items()}}
    return [_passage(model, rows[each.row], each, about) for about, found in kinds.items() for each in found]


def _passage(model: "Model", row: Sequence[int], context: "Context", about: str) -> Passage:
    at = context.pos
    parts = (row[max(0, at - REACH) : at], row[at : at + 1], row[at + 1 : at + 1 + REACH])
    before, token, after = (model.tokenizer.decode(list(part)) for part in parts)  # special tokens too
    return Passage(about, context.act, before, token, after)


def card_document(card: "FeatureCard", read: Sequence[Passage], scores: Mapping[str, Any]) -> dict[str, Any]:
    """Everything on the card, for JSON."""
    sides = {"raised": card.written.raised, "lowered": card.written.lowered}
    return {
        "feature": card.feature,
        "n_tokens": card.n_tokens,
        "firing_rate": card.firing_rate,
        "max_act": card.max_act,
        **{side: [{"token": token, "logit": logit} for token, logit in found] for side, found in sides.items()},
        "density": [{"low": low, "high": high, "tokens": n} for low, high, n in card.density],
        "contexts": [asdict(each) for each in read],
        "neighbours": [{"feature": feature, "cosine": cosine} for feature, cosine in card.neighbours],
        "scores": dict(scores),
    }


def card_parts(
    card: "FeatureCard", read: Sequence[Passage], scores: Mapping[str, Any], width: int
) -> list[Text | Table]:
    """The card from top to bottom, no line longer than the width."""
    rate = f"{card.feature} fires on {card.firing_rate:.3%} of {card.n_tokens:,} tokens, at most {card.max_act:.3g}"
    neighbours = ", ".join(f"{feature} {cosine:.2f}" for feature, cosine in card.neighbours)
    parts: list[Text | Table] = [
        Text(rate, style="bold"),
        _named("raises", ", ".join(_written(*each) for each in card.written.raised)),
        _named("lowers", ", ".join(_written(*each) for each in card.written.lowered)),
        _named("like it", neighbours or "none"),
    ]
    if scores:
        parts.append(_named("scores", ", ".join(f"{one_line(name)} {cell(value)}" for name, value in scores.items())))
    if card.density:
        parts += [Text("\nactivation, and on how many tokens", style="bold"), _histogram(card.density)]
    for about in dict.fromkeys(each.about for each in read):
        parts += [Text(f"\n{about}", style="bold"), *(_line(each, width) for each in read if each.about == about)]
    return parts


def _named(name: str, said: str) -> Table:
    """A word, and beside it what may take several lines."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8, style="bold")
    grid.add_column(overflow="fold")
    grid.add_row(Text(name), Text(said))
    return grid


def _written(token: str, logit: float) -> str:
    return f"'{one_line(token)}' {logit:+.2f}"


def _histogram(density: Sequence[tuple[float, float, int]]) -> Table:
    """A bar a bin, octaves where there are many; empty bins between others are bars of no length."""
    bins = _bins(density)
    most = max(n for _, _, n in bins)
    grid = Table.grid(padding=(0, 1))
    for justify in ("right", "left"):
        grid.add_column(justify=justify)
    for low, high, n in bins:
        bar = "█" * round(BAR * n / most) or "▏" * bool(n)
        grid.add_row(Text(f"{low:.3g} to {high:.3g}"), Text(f"{bar} {n:,}".strip()))
    return grid


def _bins(density: Sequence[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """From the lowest to the highest with any token, at most `MOST_BARS`: neighbours are put together for that."""
    low, high = density[0][0], density[-1][1]
    factor = density[0][1] / density[0][0]
    step = factor
    while low * step**MOST_BARS < high * 0.999:
        step *= factor
    edges = [low]
    while edges[-1] < high * 0.999:
        edges.append(edges[-1] * step)
    return [(a, b, sum(n for start, _, n in density if a * 0.999 <= start < b * 0.999)) for a, b in pairwise(edges)]


def _line(each: Passage, width: int) -> Text:
    """A context on one line, its active token between marks; what is far from it is cut off."""
    act, token = f"{each.act:8.3g} ", f"«{_cut(one_line(each.token), max(8, width // 3))}»"
    room = max(0, width - cell_len(act) - cell_len(token))
    after, before = one_line(each.after), one_line(each.before)
    behind = _cut(after, max(room // 3, room - cell_len(before)))
    ahead = _cut(before, room - cell_len(behind), end=False)
    return Text.assemble(act, ahead, (token, "bold reverse"), behind)


def _cut(text: str, room: int, *, end: bool = True) -> str:
    """The text with its end, or its beginning, left off where it has no room."""
    if cell_len(text) <= room:
        return text
    while text and cell_len(text) > room - 1:
        text = text[:-1] if end else text[1:]
    return (text + "…" if end else "…" + text) if room > 0 else ""
