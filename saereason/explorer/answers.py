"""What the page of a notebook asks for, as values that become JSON."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from saereason.features import Feature
from saereason.steering import SilentEditError

from .bench import Wish, try_out
from .cards import Card, number
from .exploration import Exploration
from .windows import acts_on

MOST_TOKENS = 400
"""That the bench may write."""


def reading(ex: Exploration, feature: Feature, text: str) -> dict[str, Any]:
    """Tokens of a text, a feature's activation on each, and the place of the highest."""
    row = ex.model.encode(text)
    acts = acts_on(ex.model, ex.saes, [feature], {0: row})[feature][0]
    tokens = [ex.model.token_text(token) for token in row]
    return {"tokens": tokens, "acts": [number(act) for act in acts], "focus": int(np.argmax(acts))}


def steering(
    ex: Exploration, feature: Feature, message: Mapping[str, Any], on_text: Callable[[int, str], None]
) -> dict[str, Any]:
    """What the bench shows of a wish. Raises ValueError for fields that hold no number, and as `try_out` does."""
    tokens, size = (_number_in(message, name) for name in ("tokens", "size"))
    if not 1 <= tokens <= MOST_TOKENS:
        raise ValueError(f"tokens are {tokens:g}; give 1 to {MOST_TOKENS}.")
    wish = Wish(message["intervention"], float(size), message["unit"], message["when"])
    prompt = str(message["prompt"])
    found = try_out(ex.model, ex.saes, feature, wish, prompt, max_new_tokens=int(tokens), on_text=on_text)
    first = [[token, *map(number, shares)] for token, *shares in found.first]
    return {"texts": list(found.texts), "first": first, "receipt": found.receipt}


def failed(feature: Feature, error: BaseException) -> Card:
    """In place of a card."""
    return {"feature": str(feature), "error": said(error)}


def said(error: BaseException) -> str:
    """An error in a sentence, also one that was not foreseen."""
    foreseen = isinstance(error, ValueError | SilentEditError | OSError)
    return str(error) if foreseen and str(error) else f"{type(error).__name__}: {error}".removesuffix(": ")


def _number_in(message: Mapping[str, Any], name: str) -> int | float:
    if not isinstance(message.get(name), int | float):
        raise ValueError(f"{name} is {message.get(name)!r}; give a number.")
    return message[name]
