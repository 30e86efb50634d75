"""What every rung works with: model, SAEs, behaviour, what search found, and arms that are run once."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from saereason.controls.random import matched_features
from saereason.effects import Trial, answers, right
from saereason.executors import describe, inline, work_unit
from saereason.features import Feature, FeatureTable
from saereason.generate import generate
from saereason.model import Model
from saereason.prefixes import Prefixes
from saereason.quality import firing_rates
from saereason.runs import Run
from saereason.saes import SAE, hashes
from saereason.search import Block, add_max_t, diff_mean, diff_mean_scores, probe_scores, residuals, search
from saereason.steering import Divergence, Intervention

from .behaviour import Behaviour, Sample
from .counterexamples import Counterexamples

KL_PROMPTS, KL_TOKENS = 32, 8
"""Prompts, and tokens of their clean answers, over which KL is measured."""


@dataclass(frozen=True, eq=False)
class Rivals:
    """Other SAEs, with which a feature is compared."""

    others: tuple[Mapping[int, SAE], ...] = ()
    """SAEs of the same model and layers, of other seeds or widths: the feature should recur in them."""

    frozen: Mapping[int, SAE] | None = None
    """SAEs whose decoder was never trained (arXiv 2602.14111): theirs should do worse."""

    untrained: tuple[Model, Mapping[int, SAE]] | None = None
    """A randomly initialised copy of the model with SAEs of its own: theirs should do worse."""


@dataclass(frozen=True, eq=False)
class Found:
    """What search says on one split."""

    table: FeatureTable
    block: Block

    def column(self, feature: Feature) -> int:
        at = np.flatnonzero((self.table["layer"] == feature.layer) & (self.table["index"] == feature.index))
        return int(at[0])


@dataclass(frozen=True)
class Candidate:
    """A feature with the size at which it is steered, chosen on discovery."""

    feature: Feature
    sign: int
    """1 where it is more active with the behaviour, −1 where less."""

    coefficient: float
    n_sizes: int
    """Sizes tried."""


@dataclass(frozen=True, eq=False)
class Bench:
    """One challenge: the same for all its candidates."""

    model: Model
    saes: Mapping[int, SAE]
    behaviour: Behaviour
    features: tuple[Feature, ...]
    """The candidates."""

    rivals: Rivals
    counterexamples: Counterexamples
    n_draws: int
    multiples: tuple[float, ...]
    run: Run | None
    seed: int
    folder: Path
    """For blocks of activations."""

    prefixes: Prefixes = field(default_factory=Prefixes)
    _kept: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def discovery(self) -> Found:
        """With the firing rate of every feature on the behaviour's texts and on plain ones."""
        found = self.found("discovery", self.saes, self.behaviour.discovery)
        rows = [self.model.encode(text) for text in (*self.behaviour.showing, *self.behaviour.plain)]
        rates = firing_rates(self.model, self.saes, rows)
        column = np.concatenate([rates[layer] for layer in sorted(rates)])
        return Found(found.table.with_column("firing_rate", column), found.block)

    @cached_property
    def confirmation(self) -> Found:
        return self.found("confirmation", self.saes, self.behaviour.confirmation)

    @cached_property
    def matched(self) -> Found | None:
        sample = self.behaviour.matched
        return None if sample is None else self.found("matched", self.saes, sample)

    @cached_property
    def divergence(self) -> Divergence:
        """KL over clean answers to the first of the rehearsal's prompts."""
        trial = self.behaviour.rehearsal
        assert trial is not None
        prompts = trial.prompts[:KL_PROMPTS]
        return Divergence.over(self.model, prompts, generate(self.model, prompts, max_new_tokens=KL_TOKENS).tokens)

    def direction(self, layer: int) -> Float[Tensor, "d_model"]:
        """DiffMean on discovery."""
        name = f"DiffMean at layer {layer}"
        if name not in self._kept:
            self._kept[name] = diff_mean(self.model, self.behaviour.discovery.examples, [layer])[layer]
        return self._kept[name]

    def baselines(self, layer: int) -> Mapping[str, Float[np.ndarray, "observation"]]:
        """What needs no SAE: learnt on discovery at a layer, one score for each observation of confirmation."""
        name = f"baselines at layer {layer}"
        if name not in self._kept:
            samples = (self.behaviour.discovery, self.behaviour.confirmation)
            train, test = (residuals(self.model, sample.examples, [layer])[layer] for sample in samples)
            probe = probe_scores(train, test, seed=self.seed)
            self._kept[name] = {"DiffMean": diff_mean_scores(train, test), "a logistic probe": probe}
        return self._kept[name]

    def random_features(self, feature: Feature, seed: int) -> list[Feature]:
        """`n_draws` matched features."""
        return matched_features(self.discovery.table, self.saes, feature, self.n_draws, seed=seed)

    @cached_property
    def hashes(self) -> tuple[tuple[int, str], ...]:
        return tuple(hashes(self.saes))

    @cached_property
    def identity(self) -> str:
        """Hash of all that decides a rung's result but the candidate."""
        rivals = self.rivals
        known = {
            "behaviour": self.behaviour,
            "features": self.features,
            "others": [hashes(saes) for saes in rivals.others],
            "frozen": hashes(rivals.frozen or {}),
            "untrained": rivals.untrained and (rivals.untrained[0].hash, hashes(rivals.untrained[1])),
            "counterexamples": _told(self.counterexamples),
            "n_draws": self.n_draws,
            "seed": self.seed,
        }
        return hashlib.sha256(json.dumps(describe(known)).encode()).hexdigest()

    def found(self, name: str, saes: Mapping[int, SAE], sample: Sample, model: Model | None = None) -> Found:
        """What search finds in some SAEs, with p adjusted for all their features; searched once under a name."""
        if name not in self._kept:
            unit = work_unit(model or self.model, "search", saes=saes, sample=sample, seed=self.seed)
            block, kept = self.folder / unit.id, self.folder / f"{unit.id}.parquet"
            if not kept.is_file():
                table = search(model or self.model, saes, sample.examples, block=block)
                add_max_t(table, block, seed=self.seed).save(kept)
            self._kept[name] = Found(FeatureTable.load(kept), Block.open(block))
        return self._kept[name]

    def right(self, trial: Trial, *edits: Intervention) -> Bool[np.ndarray, "item"]:
        return right(self.arm(trial, edits))

    def arm(
        self, trial: Trial, edits: Sequence[Intervention] = (), forced: Sequence[Sequence[int]] | None = None
    ) -> Any:
        """The answer table of a trial under edits, or after forced openings."""

        def compute() -> list[dict[str, Any]]:
            return answers(self.model, self.saes, trial, interventions=edits, forced=forced, prefixes=self.prefixes)

        return self.rows("arm", compute, trial=trial, edits=tuple(edits), forced=forced)

    def rows(self, name: str, compute: Callable[[], list[dict[str, Any]]], **arguments: Any) -> Any:
        """The rows of one piece of work as a pandas table: from the run where they are there, and done once."""
        import pandas as pd

        key = f"{name} {describe(arguments)}"
        if key not in self._kept:
            if self.run is None:
                table = pd.DataFrame(compute())
            else:
                unit = replace(work_unit(self.model, name, **arguments), saes=self.hashes)
                [(_, table)] = inline(self.run, [unit], lambda unit: compute())
            self._kept[key] = table
        return self._kept[key]


def _told(writer: Counterexamples) -> Any:
    """Who writes counterexamples, and how, where that can be told."""
    return [writer.name, describe(writer) if is_dataclass(writer) else ""]
