"""Talk of steps: texts with the word "step" here and there, which a detector of that one word tells from others."""

import random

from saereason.controls import Behaviour, Sample
from saereason.examples import Examples
from saereason.model import Model
from saereason.training import plain_texts

N_SENTENCES, N_WORDS = 4, 4
SPARE = 64
"""Tokens of the context that a paragraph leaves free, for what controls put in."""


def step_words(model: Model, *, n_discovery: int = 60, n_confirmation: int = 60, n_plain: int = 100) -> Behaviour:
    """Paragraphs with "step" put in after four of their words, against the same paragraphs without: a cue and no more.

    The claim that a feature for this stands for stepwise reasoning must fall to its own tokens.
    """
    short = dict.fromkeys(". ".join(text.split(". ")[:N_SENTENCES]) for text in plain_texts())
    texts = [text for text in short if model.fits(text, spare=SPARE)]
    needed = n_discovery + n_confirmation + n_plain
    if len(texts) < needed:
        raise ValueError(f"{needed} paragraphs are needed and {len(texts)} fit the context; ask for fewer.")
    discovery, rest = texts[:n_discovery], texts[n_discovery:]
    return Behaviour(
        name="stepwise reasoning",
        discovery=_sample(model, discovery, 0),
        confirmation=_sample(model, rest[:n_confirmation], n_discovery),
        showing=tuple(with_steps(text, n) for n, text in enumerate(discovery)),
        plain=tuple(rest[n_confirmation : n_confirmation + n_plain]),
    )


def with_steps(text: str, seed: int) -> str:
    """The text with "step" after some of its words, drawn by the seed."""
    words, rng = text.split(" "), random.Random(seed)
    for place in sorted(rng.sample(range(1, len(words)), min(N_WORDS, len(words) - 1)), reverse=True):
        words.insert(place, "step")
    return " ".join(words)


def _sample(model: Model, texts: list[str], first: int) -> Sample:
    on = [with_steps(text, first + n) for n, text in enumerate(texts)]
    ids = tuple(f"{kind}/{first + n}" for kind in ("steps", "bare") for n in range(len(texts)))
    return Sample(Examples.texts(model, on, texts), ids)
