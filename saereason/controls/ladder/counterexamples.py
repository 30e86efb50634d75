"""Texts made to fool a feature: its tokens without the behaviour, the behaviour in other words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from saereason.model import Rendered

from .behaviour import Behaviour


@runtime_checkable
class Counterexamples(Protocol):
    """Writes texts against a feature. A language model may stand behind it; `name` says what does.

    A run keeps what a rung found under the name, and under the fields of a dataclass: another writer needs another.
    """

    @property
    def name(self) -> str: ...

    def bearing(self, behaviour: Behaviour, tokens: Sequence[str]) -> Sequence[str | Rendered]:
        """Texts without the behaviour that bear the tokens on which the feature is most active."""
        ...

    def paraphrases(self, behaviour: Behaviour, tokens: Sequence[str]) -> Sequence[str | Rendered]:
        """Texts with the behaviour, in words other than those."""
        ...


FRAMES = (
    "The word{} was painted on the side of the boat.",
    "My sister wrote{} in her notebook and then went out to feed the cat.",
    "On page nine somebody had underlined{} with a blue pencil.",
    "The parrot said{} twice, looked at the window and fell asleep.",
    "A sign with{} on it hung over the door of the bakery.",
    "He could not remember what{} is in French, so he ordered tea.",
    "The crossword had{} in the last row, next to the picture of a whale.",
    "They named the second puppy{} because it rained that day.",
)
"""A token stands in them as it is, with the space before it or without."""


@dataclass(frozen=True)
class Templates:
    """The offline default: the tokens in everyday sentences, and the paraphrases that the behaviour brings."""

    n_tokens: int = 5

    @property
    def name(self) -> str:
        return "templates"

    def bearing(self, behaviour: Behaviour, tokens: Sequence[str]) -> Sequence[str]:  # noqa: ARG002
        words = [token for token in tokens if token.strip()][: self.n_tokens]
        return [frame.format(word) for word in dict.fromkeys(words) for frame in FRAMES]

    def paraphrases(self, behaviour: Behaviour, tokens: Sequence[str]) -> Sequence[str | Rendered]:  # noqa: ARG002
        return behaviour.paraphrases
