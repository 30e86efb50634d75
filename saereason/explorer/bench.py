"""One feature steered on one prompt, beside the same prompt without."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saereason import hooks
from saereason.features import Feature
from saereason.generate import generate
from saereason.model import Model, pad
from saereason.saes import SAE
from saereason.steering import (
    UNITS,
    Add,
    Boost,
    Clamp,
    Divergence,
    Intervention,
    Scale,
    SetProjection,
    moving,
    parse_when,
    per_row,
    short,
    steered,
    unit_sizes,
)

KINDS = ("Add", "Clamp", "Scale", "Boost", "SetProjection")
N_FIRST = 8


@dataclass(frozen=True)
class Wish:
    """What to do, as words and a number."""

    intervention: str
    size: float
    unit: str
    when: str


@dataclass(frozen=True)
class Trial:
    """What came of it, clean and steered."""

    intervention: Intervention
    texts: tuple[str, str]
    first: tuple[tuple[str, float, float], ...]
    """Likely first tokens, with their probability clean and steered."""

    receipt: str


def intervention_of(model: Model, saes: Mapping[int, SAE], feature: Feature, wish: Wish, prompt: str) -> Intervention:
    """The intervention that is wished for, its size in its own unit.

    `largest-act` and `mean-norm` are measured on the prompt, and nats are KL at its next token. Raises ValueError for
    what there is not, and for a unit that the intervention has no use for.
    """
    when = parse_when(wish.when)
    made = {
        "Add": lambda size: Add(feature, size, when),
        "Clamp": lambda size: Clamp(feature, size, when),
        "Scale": lambda size: Scale(feature, size, when),
        "Boost": lambda size: Boost((feature,), size, when),
        "SetProjection": lambda size: SetProjection(feature, size, when),
    }
    for what, given, known in (("intervention", wish.intervention, KINDS), ("unit", wish.unit, UNITS)):
        if given not in known:
            raise ValueError(f"no {what} {given!r}; there are {', '.join(known)}.")
    one = made[wish.intervention](wish.size)
    if wish.unit == "own":
        return one
    if wish.intervention in ("Scale", "Boost"):
        raise ValueError(f"the size of {wish.intervention} is a factor; choose the unit `own`.")
    text = model.render(prompt)
    if wish.unit == "nats":
        return moving(Divergence.over(model, [text]), saes, one, wish.size)
    [unit] = unit_sizes(wish.unit, model, saes, [one], [text])
    return made[wish.intervention](short(wish.size * unit))


def try_out(
    model: Model,
    saes: Mapping[int, SAE],
    feature: Feature,
    wish: Wish,
    prompt: str,
    *,
    max_new_tokens: int = 48,
    on_text: Callable[[int, str], None] = lambda row, text: None,
) -> Trial:
    """Both answers, greedy, in one batch; `on_text` is told what is written, clean (0) or steered (1), as it comes."""
    asked = model.render(prompt)
    one = intervention_of(model, saes, feature, wish, prompt)
    with steered(model, saes, *per_row([], [one])) as steering:
        made = generate(
            model,
            [asked, asked],
            max_new_tokens=max_new_tokens,
            on_token=Stream(model.decode, on_text),
        )
    probabilities = [_next(model, model.encode(asked))]
    with steered(model, saes, one, may_be_silent=True):
        probabilities.append(_next(model, model.encode(asked)))
    clean, changed = probabilities
    likely = torch.maximum(clean, changed).topk(N_FIRST).indices.tolist()
    first = tuple((model.token_text(n), float(clean[n]), float(changed[n])) for n in likely)
    return Trial(one, (made.texts[0], made.texts[1]), first, str(steering.receipt))


class Stream:
    """Tells of tokens as text, in whole characters, each of which may be several tokens."""

    def __init__(self, decode: Callable[[list[int]], str], on_text: Callable[[int, str], None]) -> None:
        self._decode, self._on_text = decode, on_text
        self._tokens: dict[int, list[int]] = {}
        self._told: dict[int, str] = {}

    def __call__(self, row: int, token: int) -> None:
        tokens, told = self._tokens.setdefault(row, []), self._told.get(row, "")
        tokens.append(token)
        text = self._decode(tokens)
        if text.startswith(told) and len(text) > len(told) and not text.endswith("\ufffd"):
            self._told[row] = text
            self._on_text(row, text[len(told) :])


@torch.no_grad()
def _next(model: Model, tokens: list[int]) -> Float[Tensor, "d_vocab"]:
    """The distribution of the first token."""
    batch = pad([tokens], pad_token=model.pad_token, device=model.device)
    with hooks.prompts(torch.tensor([len(tokens)])):
        return hooks.run(model, batch, logits_to_keep=1).logits[0, -1].float().softmax(-1).cpu()
