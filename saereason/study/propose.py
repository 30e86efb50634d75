"""Let every score propose features, on discovery alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from saereason.controls import Behaviour
from saereason.effects import Trial
from saereason.examples import Examples
from saereason.features import Feature, FeatureTable
from saereason.generate import generate
from saereason.metrics import LogProb, Scored
from saereason.model import Model, Rendered
from saereason.saes import SAE
from saereason.search import attribute, output_scores, output_slopes, reason_scores, search
from saereason.tasks import Outcome

WORDS = ("step", "first", "think", "because", "therefore", "so")
"""What a feature of reasoning might write."""

Column = tuple[str, Callable[[], FeatureTable], str]
"""A score's name in words, the table it is in, and its column there."""


@dataclass(frozen=True, eq=False)
class Proposals:
    """The best features by each score."""

    by_score: Mapping[str, tuple[Feature, ...]]
    table: FeatureTable
    """Every score of every feature, a column each."""

    left_out: Mapping[str, str]
    """Scores that had nothing to go by here, and why."""

    @property
    def features(self) -> list[Feature]:
        """All of them, each once."""
        return sorted({feature for features in self.by_score.values() for feature in features})


@dataclass(frozen=True)
class Answers:
    """What the model writes after some prompts, and which of it is right."""

    items: tuple[int, ...]
    """Which of the trial's prompts these are."""

    prompts: tuple[str | Rendered, ...]
    tokens: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    right: tuple[bool, ...]

    @classmethod
    def of(cls, model: Model, trial: Trial, n: int) -> "Answers":
        """To the first `n` prompts, without those that get no token. Raises ValueError where none gets any."""
        prompts = trial.prompts[:n]
        said = generate(model, prompts, max_new_tokens=trial.max_new_tokens, batch_size=100)
        rows = list(enumerate(zip(prompts, said.tokens, said.texts, said.finished, strict=True)))
        kept = [(k, p, t, x, trial.judge(k, x, t, finished=f) is Outcome.RIGHT) for k, (p, t, x, f) in rows if t]
        if not kept:
            raise ValueError(f"the model wrote nothing after any of {len(prompts)} prompts.")
        return cls(*(tuple(column) for column in zip(*kept, strict=True)))


def propose(
    model: Model,
    saes: Mapping[int, SAE],
    behaviour: Behaviour,
    *,
    n: int = 3,
    n_written: int = 64,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Proposals:
    """The `n` best features by each score, of those for which it is above 0.

    Discovery's examples give the paired scores; what the model writes after the first `n_written` of the practice
    prompts gives the others, together with what it writes in rehearsal. Scores that cannot be had are left out; those
    on discovery can. Raises ValueError for SAEs or examples that cannot be searched.
    """
    if n < 1:
        raise ValueError(f"{n} features by each score were asked for; ask for one at least.")
    columns = _columns(model, saes, behaviour, n_written)
    scores: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    base: dict[str, np.ndarray] = {}
    for done, (name, table, column) in enumerate(columns, 1):
        try:
            found = table()
        except ValueError as error:  # nothing right, say, or none of the words
            left_out[name] = str(error)
        else:
            scores[name], base = found[column], {"layer": found["layer"], "index": found["index"]}
        progress(done, len(columns))
    whole = FeatureTable({**base, **scores})
    return Proposals({name: _best(whole, name, n) for name in scores}, whole, left_out)


def _columns(model: Model, saes: Mapping[int, SAE], behaviour: Behaviour, n: int) -> list[Column]:
    discovery = search(model, saes, behaviour.discovery.examples)

    def paired() -> FeatureTable:
        return discovery

    found: list[Column] = [
        ("paired difference", paired, "studentised"),
        ("Cohen's d", paired, "cohens_d"),
        ("correlation over tokens", paired, "pearson"),
        ("output score", lambda: output_scores(model, saes, WORDS), "output"),
    ]
    if behaviour.practice is None:
        return found
    practice, rehearsal = behaviour.practice, behaviour.rehearsal
    on = cache(lambda: Answers.of(model, practice, n))
    found += [
        (
            "ReasonScore",
            lambda: reason_scores(model, saes, [*on().texts, *map(_text, behaviour.plain)]),
            "reason_score",
        ),
        ("correlation with being right", lambda: _graded(model, saes, on()), "correlation"),
        ("attribution", lambda: attribute(model, saes, _continuations(model, on())), "attribution_t"),
    ]
    if rehearsal is not None:
        off = cache(lambda: Answers.of(model, rehearsal, n))
        asked = rehearsal.prompts
        found += [
            ("effect on the next token", lambda: output_slopes(model, saes, asked, WORDS), "output_slope_t"),
            ("first token written", lambda: _written(model, saes, on(), off(), 1), "studentised"),
            ("pooled over what is written", lambda: _written(model, saes, on(), off(), 16), "studentised"),
        ]
    return found


def _text(prompt: str | Rendered) -> str:
    return prompt.text if isinstance(prompt, Rendered) else prompt


def _graded(model: Model, saes: Mapping[int, SAE], on: Answers) -> FeatureTable:
    return search(model, saes, Examples.graded(model, on.prompts, on.tokens, on.right))


def _written(model: Model, saes: Mapping[int, SAE], on: Answers, off: Answers, n: int) -> FeatureTable:
    """Over the first `n` tokens written, pair by pair: the two trials have the same questions in the same order, and
    those with an answer in both count.
    """
    both = sorted({*on.items} & {*off.items})
    prompts, cut = [], []
    for side in (on, off):
        places = [side.items.index(item) for item in both]
        prompts.append([side.prompts[place] for place in places])
        cut.append([side.tokens[place][:n] for place in places])
    return search(model, saes, Examples.pair(model, *prompts, written=(cut[0], cut[1])))


def _continuations(model: Model, on: Answers) -> LogProb:
    """The log-probability of what the model wrote itself."""
    rows = zip(on.prompts, on.tokens, strict=True)
    items = [Scored(tuple(model.encode(prompt)), tokens, (True,) * len(tokens)) for prompt, tokens in rows]
    return LogProb(tuple(items))


def _best(table: FeatureTable, name: str, n: int) -> tuple[Feature, ...]:
    best = table.top(n, name)
    return tuple(feature for feature, value in zip(best, best[name], strict=True) if value > 0)
