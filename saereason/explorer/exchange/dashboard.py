"""What a dashboard shows of a feature, whoever made it."""

import re
from dataclasses import dataclass

from saereason.features import Feature

PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
"""What an id may be made of: other programs call folders and pages by it."""


@dataclass(frozen=True)
class Excerpt:
    """A stretch of a text, with what a feature's activation is at each token. Raises ValueError where these differ."""

    tokens: tuple[str, ...]
    acts: tuple[float, ...]
    at: int | None = None
    """The token, from 0, for which the stretch was chosen."""

    band: tuple[float, float, float] | None = None
    """The activations from which it was drawn at random: from, to, and their share of all tokens that were read. None
    for one of the strongest."""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.acts):
            raise ValueError(
                f"there are {len(self.tokens)} tokens and {len(self.acts)} activations; give one for each."
            )
        if self.at is not None and not 0 <= self.at < len(self.tokens):
            raise ValueError(f"an excerpt of {len(self.tokens)} tokens has none at {self.at}; the first is at 0.")


@dataclass(frozen=True)
class Explanation:
    """What someone says that a feature stands for."""

    text: str
    author: str | None = None
    """The model that wrote it."""

    method: str | None = None
    """How it was asked, such as `np_max-act-logits`."""


@dataclass(frozen=True)
class Origin:
    """What the figures of a dashboard are of."""

    model: str | None = None
    sae_set: str | None = None
    """What the SAEs of all layers are called, such as `gemmascope-res-16k`."""

    hook_name: str | None = None
    dataset: str | None = None
    n_rows: int | None = None
    n_tokens: int | None = None
    """All that were read and counted."""

    @property
    def row_length(self) -> int | None:
        """Tokens a row, where that is a whole number."""
        if not self.n_rows or self.n_tokens is None or self.n_tokens % self.n_rows:
            return None
        return self.n_tokens // self.n_rows


@dataclass(frozen=True)
class Dashboard:
    """What is shown of one feature; None, or nothing in a tuple, is not known.

    Where it was read from a file, the feature's layer is the number that the file gives. It is saereason's layer if
    the SAE reads the residual stream after that block, as `origin.hook_name` may say.
    """

    feature: Feature
    excerpts: tuple[Excerpt, ...] = ()
    raised: tuple[tuple[str, float], ...] = ()
    """The tokens whose logits it raises most, the most first."""

    lowered: tuple[tuple[str, float], ...] = ()
    firing_rate: float | None = None
    """Share of the tokens on which it fires."""

    max_act: float | None = None
    density: tuple[tuple[float, float], ...] = ()
    """The middle of each bin of activations above 0, and the tokens in it."""

    logits: tuple[tuple[float, float], ...] = ()
    """The middle of each bin of logits, and the tokens of the vocabulary in it."""

    neighbours: tuple[tuple[Feature, float], ...] = ()
    """Features with the nearest decoder rows, and the cosines."""

    explanations: tuple[Explanation, ...] = ()
    origin: Origin = Origin()


def plain_id(what: str, given: str | None, known: str | None) -> str:
    """The id to save under: what is given, or else what is known. Raises ValueError where a path cannot hold it."""
    found = known if given is None else given
    if found is None or not PLAIN.fullmatch(found):
        raise ValueError(
            f"{found!r:.80} cannot stand for the {what} in other programs; give {what}=, of letters, digits, dots, "
            "dashes and underscores."
        )
    return found
