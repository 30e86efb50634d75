"""What the suite does beside the comparison: taking features out, forms, changed chains, samples, steps and weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from saereason import hooks
from saereason.controls import matched_features
from saereason.effects import accuracy, against, right
from saereason.features import Feature
from saereason.mechanisms import (
    Adapted,
    ChainOfThought,
    Comparison,
    Following,
    Mechanism,
    Without,
    Written,
    along,
    changed_chains,
    demonstrated,
    follow,
    raised,
    right_of,
    states_at,
    weight_change,
)
from saereason.mechanisms.comparison import DIRECT
from saereason.mechanisms.forms import Form
from saereason.model import pad
from saereason.progress import Step
from saereason.stats import Estimate, mean_interval, pass_at_k, wilson
from saereason.tasks import TAUGHT, problems

from .chosen import Chosen
from .ground import PROBLEMS, Ground

COT = ChainOfThought()
FORMS_SHOWN: tuple[Form, ...] = ("valid", "invalid", "irrelevant", "shuffled")
WINDOWS = ((-1, -1), (0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63))
"""Decoding steps, from first to last; -1 is the last token of the prompt."""


@dataclass(frozen=True, eq=False)
class Undone:
    """A mechanism without the features that it shares with the CoT prompt, and without others like them."""

    mechanism: str
    features: tuple[Feature, ...]
    whole: Estimate
    """Accuracy as it is."""

    without: Estimate
    matched: float
    """Accuracy without matched features, mean over draws."""

    beyond: Estimate
    """What taking the shared features out costs beyond taking matched ones out, paired by item."""


@dataclass(frozen=True, eq=False)
class Parts:
    undone: Sequence[Undone]
    shared: Mapping[str, tuple[Sequence[Feature], Sequence[Feature]]]
    """By mechanism, the features that it shares with the CoT prompt, and those of its own."""

    forms: Mapping[str, dict[str, Any]]
    """By form of the worked examples, what became of the answers, against the CoT prompt without examples."""

    followed: Mapping[str, Mapping[Following, int]]
    """By mechanism, what became of answers once the first result in the chain was changed."""

    samples: Mapping[str, dict[int, Estimate]]
    """By arm, pass@k."""

    steps: Mapping[str, Float[np.ndarray, "window sae"]]
    """By mechanism, the cosine of its change at each step and layer with the CoT prompt's over whole answers."""

    weights: Float[np.ndarray, "layer"] | None
    """By layer, how far the adapter's weights are from the base's; None without one."""

    moved: Float[np.ndarray, "layer"] | None
    """By layer, how far it moves the residual stream, on the same tokens."""


def measure_parts(chosen: Chosen, found: Comparison) -> Parts:
    """All parts, one after the other; what the run holds is not computed again."""
    ground, bars = chosen.ground, chosen.ground.bars
    with bars.step(f"{ground.name}: take shared features out") as show:
        shared, undone = shared_of(chosen, found), undo(chosen, found, show)
    with bars.step(f"{ground.name}: other forms") as show:
        forms = try_forms(ground, found, show)
    with bars.step(f"{ground.name}: change a result"):
        followed = change_chains(ground, found)
    with bars.step(f"{ground.name}: sample") as show:
        samples = sample(ground, show)
    with bars.step(f"{ground.name}: step by step") as show:
        steps = step_by_step(ground, found, show)
    changed = ground.changed
    weights = None if changed is None else weight_change(ground.model, changed)
    moved = None if changed is None else resid_change(ground, found)
    return Parts(undone, shared, forms, followed, samples, steps, weights, moved)


def shared_of(chosen: Chosen, found: Comparison) -> dict[str, tuple[list[Feature], list[Feature]]]:
    """For each mechanism but the direct and the CoT prompt."""
    states, n = found.states, chosen.ground.sizes.n_shared
    return {
        each.name: raised(states[DIRECT.name], states[each.name], states[COT.name], n)
        for each in found.mechanisms
        if each.name not in (DIRECT.name, COT.name)
    }


def undo(chosen: Chosen, found: Comparison, show: Step) -> list[Undone]:
    """For the mechanisms that help the most, the CoT prompt among them: is it undone without what it shares?

    The CoT prompt shares with the mechanism that helps most beside it.
    """
    ground, made = chosen.ground, []
    names = _helping(found, ground.sizes.n_undone)
    total = len(names) * (1 + ground.sizes.n_draws)
    for place, name in enumerate(names):
        mechanism = next(each for each in found.mechanisms if each.name == name)
        other = COT.name if name != COT.name else next((each for each in names if each != name), COT.name)
        states = found.states
        features = tuple(raised(states[DIRECT.name], states[name], states[other], ground.sizes.n_shared)[0])
        if features:
            made.append(_undone(chosen, found, mechanism, features))
        show((place + 1) * (1 + ground.sizes.n_draws), total)
    return made


def _helping(found: Comparison, n: int) -> list[str]:
    """The mechanisms with the largest rise in right answers on the first task, the largest first."""
    clean = right(found.of(DIRECT.name)).mean()
    rise = {each.name: right(found.of(each.name)).mean() - clean for each in found.mechanisms if each != DIRECT}
    return [name for name in sorted(rise, key=lambda name: -rise[name]) if rise[name] > 0][:n]


def _undone(chosen: Chosen, found: Comparison, mechanism: Mechanism, features: tuple[Feature, ...]) -> Undone:
    ground = chosen.ground
    task = ground.tasks[PROBLEMS]
    whole = found.of(mechanism.name)
    drawn = _matched(chosen, features)
    tables = [ground.answers(Without(mechanism, each), task)[0] for each in (features, *drawn)]
    without, matched = right(tables[0]), np.mean([right(table) for table in tables[1:]], axis=0)
    return Undone(
        mechanism.name,
        features,
        accuracy(whole),
        accuracy(tables[0]),
        float(matched.mean()),
        mean_interval(matched - without),
    )


def _matched(chosen: Chosen, features: Sequence[Feature]) -> list[tuple[Feature, ...]]:
    """Sets of as many features of the same layers and about the same firing rates, none of them shared or twice in one.

    The draws of one feature differ, and so do the features of one draw.
    """
    n_draws, sets = chosen.ground.sizes.n_draws, []
    for draw in range(n_draws):
        one: list[Feature] = []
        for place, feature in enumerate(features):
            seed, besides = 1000 * draw + place, (*features, *one)
            one += matched_features(
                chosen.table, chosen.ground.saes, feature, 1, seed=seed, near=10 * n_draws, besides=besides
            )
        sets.append(tuple(one))
    return sets


def try_forms(ground: Ground, found: Comparison, show: Step) -> dict[str, dict[str, Any]]:
    """Worked examples of every form before the question: does it matter that they are true?"""
    clean = found.of(COT.name)
    return {form: against(table, clean) for form, table in form_answers(ground, show).items()}


def form_answers(ground: Ground, show: Step) -> dict[Form, Any]:
    """The rows of the CoT prompt's answers after worked examples, by their form."""
    shown = problems(ground.sizes.n_examples, seed=ground.seed + 1, split="discovery", templates=TAUGHT)
    tables: dict[Form, Any] = {}
    for done, form in enumerate(FORMS_SHOWN, 1):
        tables[form] = ground.answers(demonstrated(shown, form), ground.tasks[PROBLEMS])[0]
        show(done, len(FORMS_SHOWN))
    return tables


def change_chains(ground: Ground, found: Comparison) -> dict[str, dict[Following, int]]:
    """For every mechanism that asks or steers: do answers follow a changed result?

    The chain goes on under the CoT prompt of the model that wrote it.
    """
    task, counts = ground.tasks[PROBLEMS], {}
    for each in found.mechanisms:
        if each != COT and not isinstance(each, Adapted):
            continue
        model = each.changed if isinstance(each, Adapted) else ground.model
        chains = changed_chains(task, found.written[each.name], seed=ground.seed)

        def compute(model: Any = model, chains: Any = chains) -> list[dict[str, Any]]:
            made = follow(model, task, chains, max_new_tokens=ground.sizes.most)
            return [{"outcome": one.value} for one in made]

        table = ground.kept("changed chains", compute, by=model, chains=list(chains), task=task) if chains else None
        outcomes = [] if table is None else [Following(value) for value in table["outcome"]]
        counts[each.name] = {one: outcomes.count(one) for one in Following}
    return counts


def sample(ground: Ground, show: Step) -> dict[str, dict[int, Estimate]]:
    """pass@k of the direct and the CoT prompt and of the adapter; nothing without one, which they are compared with."""
    if ground.changed is None:
        return {}
    sizes, task = ground.sizes, ground.tasks[PROBLEMS]
    arms: list[Mechanism] = [DIRECT, COT, Adapted("adapter", ground.changed)]
    ks = [k for k in (1, 2, 4, 8, 16) if k <= sizes.samples]
    found = {}
    for done, arm in enumerate(arms, 1):

        def compute(arm: Mechanism = arm) -> list[dict[str, Any]]:
            counts = right_of(
                ground.model, ground.saes, arm, task, sizes.samples, max_new_tokens=sizes.most, seed=ground.seed
            )
            return [{"right": int(count)} for count in counts]

        table = ground.kept("samples", compute, arm=arm, task=task, n=sizes.samples, most=sizes.most)
        found[arm.name] = pass_at_k(table["right"].to_numpy(), sizes.samples, ks)
        show(done, len(arms))
    return found


def step_by_step(ground: Ground, found: Comparison, show: Step) -> dict[str, Float[np.ndarray, "window sae"]]:
    """At which decoding step and layer each mechanism is on the way to what the CoT prompt does over whole answers.

    The change is against the direct answers over the same steps, on items that have both.
    """
    some = slice(ground.sizes.n_followed)
    whole = found.states[DIRECT.name].part(some)
    target = found.states[COT.name].part(some).less(whole)
    clean = _at_steps(ground, DIRECT, found.written[DIRECT.name].part(some))
    made = {}
    for done, each in enumerate(found.mechanisms, 1):
        if each != DIRECT:
            at = _at_steps(ground, each, found.written[each.name].part(some))
            pairs = zip(at, clean, strict=True)
            made[each.name] = np.stack([along(_less(one, other, whole), target) for one, other in pairs])
        show(done, len(found.mechanisms))
    return made


def _at_steps(ground: Ground, mechanism: Mechanism, written: Written) -> list[Any]:
    return states_at(ground.model, ground.saes, mechanism, written, WINDOWS)


def _less(one: Any, clean: Any, whole: Any) -> Any:
    """One's states at a step less the direct answer's there, or less all of it where the direct answer is over."""
    filled = type(clean)(
        {layer: np.where(np.isfinite(x), x, whole.resid[layer]) for layer, x in clean.resid.items()},
        {layer: np.where(np.isfinite(x), x, whole.acts[layer]) for layer, x in clean.acts.items()},
    )
    return one.less(filled)


@torch.no_grad()
def resid_change(ground: Ground, found: Comparison) -> Float[np.ndarray, "layer"]:
    """By layer, `‖h_changed − h‖ / ‖h‖`, mean over the tokens of what the adapter wrote, both models reading it."""
    assert ground.changed is not None
    written = found.written["adapter"]
    layers = list(range(ground.model.n_layers))
    totals, n = np.zeros(len(layers)), 0
    for prompt, tokens in zip(written.prompts, written.tokens, strict=True):
        batch = pad([[*prompt, *tokens]], pad_token=ground.model.pad_token, device=ground.model.device)
        sides = [hooks.read(model, batch, layers) for model in (ground.model, ground.changed)]
        after = slice(len(prompt) - 1, None)
        for layer in layers:
            base, changed = (side[layer][0, after].float() for side in sides)
            totals[layer] += float(((changed - base).norm(dim=-1) / base.norm(dim=-1)).sum())
        n += len(tokens) + 1
    return totals / n


def following_row(counts: Mapping[Following, int]) -> tuple[int, Estimate | None]:
    """How many chains were changed, and the share of answers that follow."""
    n = sum(counts.values())
    return n, wilson(counts[Following.FOLLOWS], n) if n else None
