"""The mechanisms of the suite, as what was chosen makes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from saereason.mechanisms import (
    Adapted,
    AsManyTokens,
    BackwardCheck,
    ChainOfThought,
    CognitiveTools,
    CoTDecoding,
    ForcedPrefix,
    Mechanism,
    Steered,
    ThinkLonger,
    chain_of_draft,
)
from saereason.mechanisms.steering import COMPRESSED
from saereason.progress import Step
from saereason.writing import Budget

from .chosen import Chosen

WAIT = "\nWait, let me check that."
LEAST = 2 / 3
"""Share of the longest answer that budget forcing asks for."""

TOOL_TOKENS = 48
Makers = Sequence[tuple[str, Callable[[], Sequence[Mechanism]]]]

FEWER = (
    *("CoT-decoding", "cognitive tools", "backward check", "budget forcing"),  # several calls or paths, or many tokens
    *("ReasonScore features", "random features", "random directions", "LiReF scaling", "trained vectors of one layer"),
)
"""Makers whose mechanisms are asked the problems of the taught kind and the facts, and no others."""


@dataclass(frozen=True, eq=False)
class Arms:
    every: Sequence[Mechanism]
    """Asked all tasks."""

    fewer: Sequence[Mechanism]
    left_out: Mapping[str, str]
    """Mechanisms that cannot be had on this model, and why."""


def arms_of(chosen: Chosen, show: Step) -> Arms:
    """All mechanisms that can be had on this model."""
    makers = [*_asking(chosen), *_steering(chosen), *_training(chosen)]
    every, fewer, left_out = [], [], {}
    for done, (name, make) in enumerate(makers, 1):
        try:
            (fewer if name in FEWER else every).extend(make())
        except ValueError as error:  # no draft is shorter, say, or none of the words occur
            left_out[name] = str(error)
        show(done, len(makers))
    return Arms(every, fewer, left_out)


def _asking(chosen: Chosen) -> Makers:
    """Other prompts and other decoding."""
    sizes = chosen.ground.sizes
    tools = CognitiveTools(most=min(TOOL_TOKENS, sizes.most))
    budget = Budget(max(1, int(LEAST * sizes.most)), wait=WAIT)
    return (
        ("CoT prompt", lambda: [ChainOfThought()]),
        ("Chain of Draft", lambda: [chain_of_draft()]),
        ("forced prefix", lambda: [ForcedPrefix(chosen.opening)]),
        ("CoT-decoding", lambda: [CoTDecoding(k=sizes.paths)]),
        ("budget forcing", lambda: [ThinkLonger(budget)]),
        ("cognitive tools", lambda: [tools, AsManyTokens(tools)]),
        ("backward check", lambda: [BackwardCheck()]),
    )


def _steering(chosen: Chosen) -> Makers:
    """Edits of the residual stream, and chance of the same size."""
    return (
        ("one feature, boosted", lambda: [Steered("one feature, boosted", (chosen.boosted,))]),
        ("one feature, added", lambda: [Steered("one feature, added", (chosen.added,))]),
        ("ReasonScore features", lambda: [Steered("ReasonScore features", chosen.reasoning)]),
        (
            "random features",
            lambda: [Steered(f"random feature {n}", (each,)) for n, each in enumerate(chosen.random_features(), 1)],
        ),
        (
            "random directions",
            lambda: [Steered(f"random direction {n}", (each,)) for n, each in enumerate(chosen.random_vectors(), 1)],
        ),
        (
            "DiffMean",
            lambda: [Steered("DiffMean", (chosen.vector("DiffMean", chosen.directions[chosen.added.layer]),))],
        ),
        (COMPRESSED, lambda: [chosen.compressed()]),
        ("LiReF scaling", lambda: [Steered("LiReF scaling", (chosen.reflective,))]),
    )


def _training(chosen: Chosen) -> Makers:
    """What trains: vectors, and an adapter where there is one."""
    ground = chosen.ground
    every = tuple(range(ground.model.n_layers))
    layers = sorted(ground.saes)[1::2]
    single = (
        "trained vectors of one layer",
        lambda: [chosen.trained(f"trained vector L{layer}", (layer,)) for layer in layers],
    )
    all_layers = ("trained vectors", lambda: [chosen.trained("trained vectors, all layers", every)])
    if ground.changed is None:
        return (single, all_layers)
    changed = ground.changed
    adapted = [Adapted("adapter", changed), Adapted("adapter, CoT prompt", changed, cot=True)]
    return (single, all_layers, ("adapter", lambda: adapted))
