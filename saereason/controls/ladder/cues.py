"""Rung 3: is the feature more than its tokens, its text length, its format?"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from saereason.controls.cues import CueTrial, try_cues
from saereason.controls.cues.trial import activations
from saereason.model import Rendered
from saereason.stats import wilson

from .bench import Bench, Candidate
from .correlates import separation
from .rung import ALPHA, Rung, untried

FOOLED, FOUND = 0.2, 0.5
"""At most this share of token-bearing counterexamples may light the feature up, at least this share of paraphrases
must."""


def survives_cues(bench: Bench, candidate: Candidate) -> Rung:
    """Passes if `try_cues` passes the feature; if its tokens in other texts light it up, to half of what it has where
    the behaviour shows, in at most a fifth of them, and paraphrases in at least half, where there are any; and if it
    tells the behaviour (p ≤ 0.05) from matched texts, where there are any.
    """
    if candidate.sign < 0:
        return untried(3, "it is less active with the behaviour, and what is absent cannot be put into a text")
    behaviour, feature = bench.behaviour, candidate.feature
    if not behaviour.showing:
        return untried(3, "the behaviour has no texts that show it")
    own = _peaks(bench, candidate, behaviour.showing)
    if not own.any():
        return Rung(3, False, "it is silent on the texts that show the behaviour", n=len(own))
    trial = try_cues(bench.model, bench.saes, feature, behaviour.showing, plain=behaviour.plain, seed=bench.seed)
    half = float(own[own > 0].mean()) / 2
    writer = bench.counterexamples
    clauses, passed = [_of_tokens(trial)], trial.outcome == "passed"
    against = ["its own tokens, seven ways", "other tokens in the same places"]
    details = {"d": trial.best.d, "concentration": trial.profile.concentration.value, "transfer": trial.transfer}
    for name, texts, bound in (
        ("counterexamples", _bearing(bench, trial), FOOLED),
        ("paraphrases", writer.paraphrases(behaviour, trial.cue_texts), FOUND),
    ):
        if texts:
            lit = int((_peaks(bench, candidate, texts) >= half).sum())
            details[name] = lit / len(texts)
            passed &= lit / len(texts) <= bound if name == "counterexamples" else lit / len(texts) >= bound
            against += [f"{name} by {writer.name}"] if name == "counterexamples" else []
            share = wilson(lit, len(texts))
            clauses.append(
                f"on in {share.value:.0%} [{share.low:.0%}, {share.high:.0%}] of {len(texts)} {name} ({writer.name})"
            )
    if bench.matched is not None:
        column = bench.matched.column(feature)
        figure = separation(bench.matched.block, column, seed=bench.seed)
        p = details["p_matched"] = float(bench.matched.block.max_t(np.array([column]), seed=bench.seed)[0])
        passed &= p <= ALPHA and figure.value > 0.5
        clauses.append(f"AUROC {figure} (p = {p:.2g}) on texts matched in length and format")
    figure, n = trial.best.over_control, len(behaviour.plain)
    return Rung(3, passed, "; ".join(clauses), figure, "Cohen's d", n, tuple(against), details)


def _bearing(bench: Bench, trial: CueTrial) -> list[str | Rendered]:
    """The writer's counterexamples that do bear one of the feature's tokens, as the tokenizer sees them."""
    texts = bench.counterexamples.bearing(bench.behaviour, trial.cue_texts)
    return [text for text in texts if set(trial.cues) & set(bench.model.encode(text))]


def _of_tokens(trial: CueTrial) -> str:
    said = {"caught": "its own tokens switch it on", "passed": "its own tokens do not switch it on"}
    words = ", ".join(repr(text) for text in trial.cue_texts[:3])
    return (
        f"{said.get(trial.outcome, 'whether its tokens switch it on is undecided')} ({trial.best.strategy}, d = "
        f"{trial.best.over_control}, {words})"
    )


def _peaks(bench: Bench, candidate: Candidate, texts: Sequence[str | Rendered]) -> Float[np.ndarray, "text"]:
    """Largest activation in each text, its first token left out."""
    rows = [bench.model.encode(text) for text in texts]
    found = activations(bench.model, bench.saes, candidate.feature, rows)
    return np.array([act[1:].max(initial=0.0) for act in found])
