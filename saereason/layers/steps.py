"""Where each intermediate result of a worked solution can be read, and where it is lost: layer by step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from saereason.metrics import LogProb, Scored
from saereason.model import Model
from saereason.runs import Run

from .localise import Curve, Family, UnsuitedError, localise
from .operators import Operator, SkipBlock
from .probes import Place, Probed, probed

SKIP = SkipBlock()


@dataclass(frozen=True, eq=False)
class StepMap:
    """Of each intermediate result, the layers that it needs and the layers and places it can be read at."""

    family: str
    n_layers: int
    lost: Sequence[Curve]
    """By step: what changing each layer costs the result right after its equals sign."""

    read: Sequence[Probed]
    """For each result and each place at which it may be read, in the order of the text."""

    names: Sequence[tuple[int, int]]
    """Of each of `read`: which result, and which place, both from 0; place 0 is the end of the prompt, place k the
    token that predicts result k.
    """

    left_out: Sequence[str]


def results_of(item: Scored) -> list[range]:
    """The stretches of the continuation that are scored, one a result."""
    found: list[range] = []
    for place, scored in enumerate(item.scored):
        if scored and found and found[-1].stop == place:
            found[-1] = range(found[-1].start, place + 1)
        elif scored:
            found.append(range(place, place + 1))
    return found


def step_family(family: Family, step: int) -> Family:
    """The items with so many results, scored at this one alone (from 0)."""
    items, numeric = [], []
    for n, item in enumerate(family.metric.items):
        results = results_of(item)
        if step < len(results):
            end = results[step].stop
            scored = tuple(place in results[step] for place in range(end))
            items.append(Scored(item.prompt, item.continuation[:end], scored))
            numeric += family.numeric[n : n + 1]
    if len(items) < 2:
        raise UnsuitedError(f"{len(items)} items of {family.name} have a result {step + 1}; nothing can be compared.")
    metric = LogProb(tuple(items), family.metric.batch_size)
    return Family(f"{family.name}, result {step + 1}", family.kind, metric, tuple(numeric))


def places_of(family: Family, step: int, place: int) -> Place:
    """Texts up to a place, labelled with the first token of result `step`, over the items that have both."""
    texts, labels = [], []
    for item in family.metric.items:
        results = results_of(item)
        if step < len(results) and place <= len(results):
            end = 0 if place == 0 else results[place - 1].start
            texts.append(item.prompt + item.continuation[:end])
            labels.append(item.continuation[results[step].start])
    where = "at the end of the prompt" if place == 0 else f"before result {place}"
    return Place(f"first digit of result {step + 1}, {where}", tuple(texts), tuple(labels))


def step_map(
    model: Model,
    family: Family,
    *,
    run: Run,
    operator: Operator = SKIP,
    n_steps: int | None = None,
    read_in: Family | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> StepMap:
    """Each result's loss with a layer changed, and probes of its first digit at the end of the prompt and before every
    result; probes, which need more items, may have those of another family, `read_in`.

    Before a later result an earlier one has been written, and what is read there may be a copy. Raises UnsuitedError
    for a family whose items have fewer than two results.
    """
    counts = [len(results_of(item)) for item in family.metric.items]
    n = max(counts) if n_steps is None else n_steps
    if n < 2:
        raise UnsuitedError(f"the items of {family.name} have {max(counts)} result; a map needs items with two.")
    lost, read, names, left_out = [], [], [], []
    for step in range(n):
        progress(step * (n + 2), n * (n + 2))
        try:
            part = step_family(family, step)
        except UnsuitedError as error:
            left_out.append(str(error))
            continue
        lost += localise(model, None, [part], [operator], run=run)
        for place in range(n + 1):
            progress(step * (n + 2) + 1 + place, n * (n + 2))
            try:
                read.append(probed(model, part, places_of(read_in or family, step, place), run=run))
                names.append((step, place))
            except UnsuitedError as error:
                left_out.append(str(error))
    progress(n * (n + 2), n * (n + 2))
    return StepMap(family.name, model.n_layers, tuple(lost), tuple(read), tuple(names), tuple(left_out))


def gained(found: Probed) -> Float[np.ndarray, "layer"]:
    """How much more often the probe is right than the most frequent label, by layer."""
    return found.right.mean(0) - found.usual.mean()
