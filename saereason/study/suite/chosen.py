"""What discovery chooses: a feature, directions, their sizes, first words, and trained vectors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saereason.controls import matched_features, random_directions
from saereason.examples import Examples
from saereason.features import Feature, FeatureTable
from saereason.mechanisms import (
    ChainOfThought,
    Mechanism,
    Steered,
    VectorRecipe,
    Written,
    chain_of_draft,
    compression,
    compression_vector,
    train_vectors,
    with_vectors,
)
from saereason.metrics import LogProb, Scored
from saereason.model import Rendered
from saereason.prefixes import Prefixes
from saereason.quality import firing_rates
from saereason.search import diff_mean, reason_scores, search
from saereason.steering import (
    Add,
    AddVector,
    Boost,
    Divergence,
    Intervention,
    LastPromptToken,
    ScaleProjection,
    largest_acts,
    steered,
)
from saereason.tasks import country_facts
from saereason.training import plain_texts

from .ground import CITY, Ground

MULTIPLES = (1.0, 2.0)
"""Sizes that are tried, in units of DiffMean's norm at the layer."""

ALPHAS = (15.0, 30.0, 50.0)
"""Boosts that are tried: He et al.'s (arXiv 2601.08058)."""

REASON_SIZES = (0.5, 1.0, 2.0)
"""In units of a feature's largest activation; ReasonScore's own is 2."""

FACTORS = (0.1, 0.3, 1.0)
"""By which a direction is scaled up, as in LiReFs."""

REASON_FEATURES, OPENING, N_PLAIN, BUDGET_PROMPTS, BUDGET_TOKENS = 3, 3, 60, 16, 24
FEWEST_PAIRS = 8


@dataclass(frozen=True, eq=False)
class Chosen:
    """The choices for one model, each computed once and on discovery alone."""

    ground: Ground

    @cached_property
    def written(self) -> Written:
        """The model's own answers to discovery's CoT prompts."""
        return self._written(ChainOfThought())

    @cached_property
    def examples(self) -> Examples:
        """The CoT and the direct prompt of every problem."""
        model, task = self.ground.model, self.ground.discovery
        return Examples.pair(model, task.prompts(model, task.cot), task.prompts(model, task.direct))

    @cached_property
    def directions(self) -> dict[int, Tensor]:
        """DiffMean of the two prompts by layer."""
        return diff_mean(self.ground.model, self.examples, sorted(self.ground.saes))

    @cached_property
    def table(self) -> FeatureTable:
        """The paired difference of every feature, with its firing rate on answers and plain text."""
        model, saes = self.ground.model, self.ground.saes
        texts = [text for text in plain_texts() if model.fits(text)][:N_PLAIN]
        rows = [row for row in map(model.encode, (*self.written.texts, *texts)) if len(row) > 1]

        def compute() -> list[dict[str, Any]]:
            rates = firing_rates(model, saes, rows)
            column = np.concatenate([rates[layer] for layer in sorted(saes)])
            return search(model, saes, self.examples).with_column("firing_rate", column).to_pandas().to_dict("records")

        frame = self.ground.kept("search", compute, task=self.ground.discovery, rows=rows)
        return FeatureTable({str(name): frame[name].to_numpy() for name in frame.columns})

    @cached_property
    def metric(self) -> LogProb:
        """The log-probability of the model's own CoT answers after the direct prompt: what an arm should raise."""
        task = self.ground.discovery.take(self.ground.sizes.n_scored)
        prompts = task.prompts(self.ground.model, task.direct)
        items = [
            Scored(tuple(self.ground.model.encode(prompt)), tokens, (True,) * len(tokens))
            for prompt, tokens in zip(prompts, self.written.tokens, strict=False)
            if tokens
        ]
        if not items:
            raise ValueError(
                f"{self.ground.model.name} answers the CoT prompt with nothing at all; give another model."
            )
        return LogProb(tuple(items), prefixes=Prefixes())

    @cached_property
    def added(self) -> Add:
        """One feature, added once at the last prompt token: the best of a few of every layer, in two sizes."""
        tried = [
            Add(feature, multiple * float(self.directions[feature.layer].norm()), LastPromptToken())
            for feature in self._candidates()
            for multiple in MULTIPLES
        ]
        return self._best("feature to add", tried)

    @cached_property
    def boosted(self) -> Boost:
        """One feature, boosted once at the last prompt token."""
        tried = [Boost((f,), alpha, LastPromptToken()) for f in self._candidates() for alpha in ALPHAS]
        return self._best("feature to boost", tried)

    @cached_property
    def reasoning(self) -> tuple[Add, ...]:
        """The best features by ReasonScore over the model's CoT answers and plain text, added everywhere."""
        model, saes = self.ground.model, self.ground.saes
        plain = [text for text in plain_texts() if model.fits(text)][:N_PLAIN]
        texts = [*filter(None, self.written.texts), *plain]
        scores = reason_scores(model, saes, texts)
        best = [*scores.where(scores["reason_score"] > 0).top(REASON_FEATURES, "reason_score")]
        largest = largest_acts(model, saes, best, texts)
        groups = [tuple(Add(f, share * largest[f]) for f in best if largest[f]) for share in REASON_SIZES]
        return self._best_of("ReasonScore", groups)

    @cached_property
    def reflective(self) -> ScaleProjection:
        """LiReFs (arXiv 2503.23084): what sets problems apart from facts at the last prompt token, scaled up."""
        model, task = self.ground.model, self.ground.discovery
        facts = replace(country_facts("capital"), direct=CITY)
        n = min(len(task), len(facts))
        spread = replace(facts, items=tuple(facts.items[k * len(facts) // n] for k in range(n)))
        sides = (each.prompts(model, each.direct) for each in (task.take(n), spread))
        layers = sorted(self.ground.saes)
        directions = diff_mean(model, Examples.pair(model, *sides), layers)
        tried = [
            ScaleProjection(layer, directions[layer], factor, name="reasoning less recall")
            for layer in layers
            for factor in FACTORS
        ]
        return self._best("direction to scale", tried)

    def random_features(self) -> list[Add]:
        """Matched to the feature that is added, in its size."""
        ground, one = self.ground, self.added
        drawn = matched_features(self.table, ground.saes, one.feature, ground.sizes.n_random, seed=ground.seed)
        return [Add(feature, one.coefficient, one.when) for feature in drawn]

    def vector(self, name: str, vector: Tensor) -> AddVector:
        """Of the size of the feature that is added, at its layer and place."""
        one = self.added
        return AddVector(one.layer, abs(one.coefficient) * vector / vector.norm(), 1.0, one.when, name)

    def random_vectors(self) -> list[AddVector]:
        sizes = self.ground.sizes
        drawn = random_directions(self.ground.model.d_model, sizes.n_random, norm=1.0, seed=self.ground.seed)
        return [self.vector(f"random {n + 1}", each) for n, each in enumerate(drawn)]

    @cached_property
    def opening(self) -> str:
        """The commonest first words of the model's own CoT answers."""
        firsts = Counter(tokens[:OPENING] for tokens in self.written.tokens if tokens)
        return self.ground.model.decode(list(firsts.most_common(1)[0][0]))

    def compressed(self) -> Steered:
        """ASC's vector from answers to the draft prompt and longer ones to the CoT prompt, of a size by its budget.

        Raises ValueError where too few drafts are shorter.
        """
        model, task, sizes = self.ground.model, self.ground.discovery, self.ground.sizes
        drafts = self._written(chain_of_draft())
        pairs = [
            n
            for n, (short, long) in enumerate(zip(drafts.tokens, self.written.tokens, strict=True))
            if 0 < len(short) < len(long)
        ][: sizes.n_pairs]
        if len(pairs) < min(FEWEST_PAIRS, sizes.n_pairs):
            raise ValueError(f"{len(pairs)} drafts of {len(task)} are shorter than the answer to the CoT prompt.")
        prompts = task.prompts(model, task.cot)
        short, long = ([_with(prompts[n], made.texts[n]) for n in pairs] for made in (drafts, self.written))
        layer = sorted(self.ground.saes)[len(self.ground.saes) // 2]
        vector = compression_vector(model, short, long, layer)
        some = pairs[:BUDGET_PROMPTS]
        budget = Divergence.over(
            model, [prompts[n] for n in some], [self.written.tokens[n][:BUDGET_TOKENS] for n in some]
        )
        return compression(vector, layer, budget, nats=sizes.nats)[0]

    def trained(self, name: str, layers: Sequence[int]) -> Steered:
        """Vectors trained together, read from the run where they have been."""
        recipe = VectorRecipe(tuple(layers), n_problems=self.ground.sizes.n_lessons, seed=self.ground.seed)

        def compute() -> list[dict[str, Any]]:
            found = train_vectors(self.ground.model, recipe)
            return [{"layer": layer, "vector": vector.tolist()} for layer, vector in found.items()]

        rows = self.ground.kept("vectors", compute, recipe=recipe).to_dict("records")
        vectors: Mapping[int, Tensor] = {
            int(row["layer"]): torch.tensor(row["vector"], dtype=torch.float32) for row in rows
        }
        return with_vectors(name, vectors)

    def _written(self, mechanism: Mechanism) -> Written:
        return self.ground.answers(mechanism, self.ground.discovery)[1]

    def _candidates(self) -> list[Feature]:
        """Of every layer, the best features that the CoT prompt raises. Raises ValueError where it raises none."""
        table, found = self.table.where(self.table["difference"] > 0), []
        for layer in sorted(self.ground.saes):
            found += table.at(layer).top(self.ground.sizes.n_per_layer, "studentised")
        if not found:
            raise ValueError("no feature is more active under the CoT prompt than under the direct one.")
        return found

    def _best(self, what: str, tried: Sequence[Any]) -> Any:
        [best] = self._best_of(what, [(one,) for one in tried])
        return best

    def _best_of(self, what: str, tried: Sequence[tuple[Any, ...]]) -> Any:
        """The edits under which the CoT answers are the likeliest."""

        def compute() -> list[dict[str, Any]]:
            return [{"gain": self._score(edits)} for edits in tried]

        gains = self.ground.kept(what, compute, tried=[list(edits) for edits in tried], metric=list(self.metric.items))
        return tried[int(np.argmax(gains["gain"].to_numpy()))]

    def _score(self, edits: Sequence[Intervention]) -> float:
        with steered(self.ground.model, self.ground.saes, *edits):
            return float(self.metric(self.ground.model).mean())


def _with(prompt: Rendered, answer: str) -> Rendered:
    return replace(prompt, text=prompt.text + answer)
