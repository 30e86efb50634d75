"""Talk of steps: texts with "Step 1:" in them, which a detector of that one word tells from others."""

from saereason.controls import Behaviour, Sample
from saereason.examples import Examples
from saereason.model import Model
from saereason.training import plain_texts


def step_words(model: Model, *, n_discovery: int = 60, n_confirmation: int = 60, n_plain: int = 100) -> Behaviour:
    """Paragraphs whose sentences are numbered as steps, against the same paragraphs without: a cue and nothing else.

    The claim that a feature for this stands for stepwise reasoning must fall to its own tokens.
    """
    texts = [text for text in plain_texts() if text.count(". ") >= 1]
    needed = n_discovery + n_confirmation + n_plain
    if len(texts) < needed:
        raise ValueError(f"{needed} paragraphs are needed and there are {len(texts)}; ask for fewer.")
    discovery, rest = texts[:n_discovery], texts[n_discovery:]
    return Behaviour(
        name="stepwise reasoning",
        discovery=_sample(model, discovery, 0),
        confirmation=_sample(model, rest[:n_confirmation], n_discovery),
        showing=tuple(numbered(text) for text in discovery),
        plain=tuple(rest[n_confirmation : n_confirmation + n_plain]),
    )


def numbered(text: str) -> str:
    """The text with its first sentences numbered as steps."""
    sentences = text.split(". ")
    return ". ".join(f"Step {n}: {sentence}" for n, sentence in enumerate(sentences[:4], 1))


def _sample(model: Model, texts: list[str], first: int) -> Sample:
    bare = [". ".join(text.split(". ")[:4]) for text in texts]
    examples = Examples.texts(model, [numbered(text) for text in texts], bare)
    ids = tuple(f"{'steps' if n < len(texts) else 'bare'}/{first + n % len(texts)}" for n in range(2 * len(texts)))
    return Sample(examples, ids)
