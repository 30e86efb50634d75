"""What a linear probe can read from each layer. What can be read need not be computed there, nor used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from saereason.executors import inline, work_unit
from saereason.model import Model
from saereason.runs import Run
from saereason.tasks.task import Kind

from .localise import Family, UnsuitedError
from .states import last_states

FOLDS = 5
"""Parts into which prompts are drawn; a label must have as many prompts."""

PENALTIES = tuple(10.0**power for power in range(-1, 6))
"""Strengths of the ridge penalty that are tried, each fold by leave-one-out within the rest."""


@dataclass(frozen=True, eq=False)
class Probed:
    """Answers of linear probes by layer, each on prompts that it was not fitted to."""

    family: str
    kind: Kind
    what: str
    """What is read, and where."""

    n_layers: int
    n_labels: int
    right: Float[np.ndarray, "item layer"]
    """1 where the probe is right."""

    usual: Float[np.ndarray, "item"]
    """1 where the label that is most frequent among the other folds is right: what needs no states."""

    shuffled: Float[np.ndarray, "item layer"]
    """As `right`, of probes fitted to labels shuffled among the prompts: what so many dimensions find in nothing."""


@dataclass(frozen=True)
class Place:
    """Texts up to a token, whose states are read, and a label each."""

    what: str
    texts: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]


def answer_place(family: Family) -> Place:
    """The token that predicts the first scored one, and that one as the label."""
    firsts = [item.scored.index(True) for item in family.metric.items]
    texts = (item.prompt + item.continuation[:n] for item, n in zip(family.metric.items, firsts, strict=True))
    labels = tuple(item.continuation[n] for item, n in zip(family.metric.items, firsts, strict=True))
    return Place("first answer token, before it", tuple(texts), labels)


def probed(
    model: Model,
    family: Family,
    place: Place,
    *,
    run: Run,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Probed:
    """Ridge classifiers of the residual stream after every block, with folds by prompt; kept in the run, one work unit.

    Items with a label that fewer than five prompts have are left out. Raises UnsuitedError where fewer than two labels
    are left.
    """
    values, counts = np.unique(np.array(place.labels), return_counts=True)
    frequent = set(values[counts >= FOLDS].tolist())
    kept = [n for n, label in enumerate(place.labels) if label in frequent]
    if len(frequent) < 2:
        raise UnsuitedError(
            f"{len(frequent)} labels of {family.name} ({place.what}) have {FOLDS} prompts; a probe needs two labels."
        )
    texts, labels = [place.texts[n] for n in kept], [place.labels[n] for n in kept]
    unit = work_unit(model, "probe", texts=texts, labels=labels, seed=seed)
    [(_, table)] = inline(run, [unit], lambda _: _rows(model, texts, np.array(labels), seed, progress))
    n, n_layers = len(texts), model.n_layers
    right, shuffled = (table[name].to_numpy(dtype=np.float64).reshape(n, n_layers) for name in ("right", "shuffled"))
    usual = table["usual"].to_numpy(dtype=np.float64).reshape(n, n_layers)[:, 0]
    return Probed(family.name, family.kind, place.what, n_layers, len(frequent), right, usual, shuffled)


def _rows(
    model: Model,
    texts: Sequence[tuple[int, ...]],
    labels: np.ndarray,
    seed: int,
    progress: Callable[[int, int], None],
) -> list[dict[str, float]]:
    """A row for each item and layer."""
    states, fold = last_states(model, texts), folds(labels, seed)
    mixed = labels[np.random.default_rng(seed).permutation(len(labels))]
    usual = np.array([_most_frequent(labels[fold != fold[n]]) == labels[n] for n in range(len(labels))])
    right, shuffled = np.zeros((2, len(labels), model.n_layers))
    for layer, values in enumerate(states):
        right[:, layer] = predicted(values, labels, fold) == labels
        shuffled[:, layer] = predicted(values, mixed, fold) == mixed
        progress(layer + 1, model.n_layers)
    return [
        {"right": right[n, layer], "shuffled": shuffled[n, layer], "usual": float(usual[n])}
        for n in range(len(labels))
        for layer in range(model.n_layers)
    ]


def folds(labels: np.ndarray, seed: int) -> np.ndarray:
    """Which fold each item is in; the labels are spread over folds evenly."""
    rng, found = np.random.default_rng(seed), np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        found[places] = (np.arange(len(places)) + rng.integers(FOLDS)) % FOLDS
    return found


def predicted(values: Float[np.ndarray, "item d_model"], labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """The label that a probe fitted to the other folds gives each item."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = labels.copy()
    for n in np.unique(fold):
        train = fold != n
        if len(np.unique(labels[train])) == 1:
            found[~train] = labels[train][0]
            continue
        probe = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=PENALTIES))
        found[~train] = probe.fit(values[train], labels[train]).predict(values[~train])
    return found


def _most_frequent(labels: np.ndarray) -> int:
    values, counts = np.unique(labels, return_counts=True)
    return int(values[counts.argmax()])
