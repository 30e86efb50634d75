"""What a trial by a feature's own tokens has shown, and the rule that judges it."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from jaxtyping import Float

from saereason.features import Feature
from saereason.stats import Estimate

from .inject import Strategy
from .profile import TokenProfile

LARGE, MEDIUM, SMALL, ALPHA = 0.8, 0.5, 0.2, 0.05
RULE = (
    f"The feature is caught if, with some strategy, its own tokens raise it by a Cohen's d of at least {SMALL} over "
    f"both the plain texts and the same texts with other tokens put in the same places, both with p < {ALPHA} after "
    f"correction for taking the largest of all strategies. It passes if it is not caught and no strategy's interval "
    f"reaches {MEDIUM}. Otherwise this sample cannot tell."
)
"""The pass rule, in words."""


@dataclass(frozen=True)
class StrategyEffect:
    """What one way of putting a feature's tokens in does to its largest activation in a text."""

    strategy: Strategy
    over_plain: Estimate
    """Cohen's d over the untouched texts; intervals hold for all strategies at once."""

    over_control: Estimate
    """Cohen's d over the texts with other tokens, as frequent, in the same places; intervals likewise."""

    paired_over_plain: float
    """Cohen's d_z, in standard deviations of the texts' own differences."""

    paired_over_control: float
    p: float
    """One-sided, corrected for taking the largest d of all strategies; the larger of the two comparisons'."""

    @property
    def d(self) -> float:
        """What is owed to the tokens themselves: the smaller of the two effects."""
        return min(self.over_plain.value, self.over_control.value)

    @property
    def high(self) -> float:
        return min(self.over_plain.high, self.over_control.high)


@dataclass(frozen=True, eq=False)
class CueTrial:
    """How a feature answers to its own tokens in ordinary texts. Prints as one sentence."""

    feature: Feature
    profile: TokenProfile
    cues: tuple[int, ...]
    cue_texts: tuple[str, ...]
    effects: tuple[StrategyEffect, ...]
    chance: float
    """The largest d that chance gives: the 95% quantile under permutation, the larger of the two comparisons'."""

    own: Float[np.ndarray, "own"]
    """Largest activation in each of the feature's own texts; below, in each plain text, without and with tokens."""

    plain: Float[np.ndarray, "text"]
    injected: Float[np.ndarray, "text strategy"]
    control: Float[np.ndarray, "text strategy"]

    @property
    def best(self) -> StrategyEffect:
        return max(self.effects, key=lambda effect: effect.d)

    @property
    def outcome(self) -> Literal["caught", "passed", "undecided"]:
        """By `RULE`."""
        if self._caught:
            return "caught"
        return "passed" if all(effect.high < MEDIUM for effect in self.effects) else "undecided"

    @property
    def tier(self) -> Literal["large", "medium", "small", "negligible"]:
        """Size of the largest effect that catches the feature, by Cohen's conventions; negligible if none does."""
        d = max((effect.d for effect in self._caught), default=0.0)
        return "large" if d >= LARGE else "medium" if d >= MEDIUM else "small" if d >= SMALL else "negligible"

    @property
    def transfer(self) -> float:
        """Rise by the best strategy over the rise from plain to own texts; NaN where own texts are no higher."""
        gap = self.own.mean() - self.plain.mean()
        after = self.injected[:, self.effects.index(self.best)].mean()
        return float((after - self.plain.mean()) / gap) if gap > 0 else float("nan")

    @property
    def published(
        self,
    ) -> Literal["token_driven", "partially_token_driven", "weakly_token_driven", "context_dependent"]:
        """The class by the rule of arXiv 2601.05679's code: the largest d over plain texts and that strategy's own p.

        Nothing is corrected there and there is no control. p is of the unpaired test, by the normal distribution.
        """
        d = max(effect.over_plain.value for effect in self.effects)
        p = 2 * NormalDist().cdf(-abs(d) * (len(self.plain) / 2) ** 0.5)
        if d >= MEDIUM and p < 0.01:
            return "token_driven" if d >= LARGE else "partially_token_driven"
        return "weakly_token_driven" if d >= SMALL and p < 0.05 else "context_dependent"

    @property
    def _caught(self) -> list[StrategyEffect]:
        return [effect for effect in self.effects if effect.d >= SMALL and effect.p < ALPHA]

    def __str__(self) -> str:
        best, words = self.best, ", ".join(repr(text) for text in self.cue_texts[:3])
        says = {
            "caught": f"is driven by its tokens ({self.tier} effect)",
            "passed": "is not switched on by its tokens alone",
            "undecided": "may or may not be driven by its tokens: this sample cannot tell",
        }[self.outcome]
        return (
            f"{self.feature} {says}: d = {_said(best.over_plain)} over {len(self.plain)} plain texts and "
            f"{_said(best.over_control)} over other tokens in the same places ({best.strategy}, the best of "
            f"{len(self.effects)} strategies, p = {best.p:.2g}; chance reaches {self.chance:.2f}); top tokens {words}, "
            f"{self.profile.concentration.value:.0%} of the activation in {self.profile.n_top} tokens."
        )


def _said(estimate: Estimate) -> str:
    """An effect size for the eye, where a group without spread has one of 1e9."""
    value, low, high = (f"{x:.2f}" if abs(x) < 100 else f"{'>' if x > 0 else '<-'}100" for x in vars(estimate).values())
    return f"{value} [{low}, {high}]"
