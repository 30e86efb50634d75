"""Activation patching: where along the text, and after which layer, what decides the answer can be found."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saereason import hooks
from saereason.executors import inline, work_unit
from saereason.model import Batch, Model, pad
from saereason.runs import Run
from saereason.tasks.task import Kind

from .contrasts import POSITIONS, Contrast
from .localise import Curve

ROWS = 16
"""Contrasts that are run together, and a work unit."""

ARRIVAL = "patching: arrival at the answer"
"""Name of the operator whose curve says between which layers the answer reaches the token that predicts it."""

UNIT = "difference of two logits"
"""What is patched is counted in."""

Logits = Float[Tensor, "row"]


@dataclass(frozen=True, eq=False)
class Patching:
    """What one family's states carry, by class of position and layer, as differences of logits of the two answers."""

    family: str
    kind: Kind
    layers: tuple[int, ...]
    n_layers: int

    clean: Float[np.ndarray, "item"]
    """Logit of the clean answer less that of the corrupted one, in the clean run."""

    corrupted: Float[np.ndarray, "item"]
    """The same in the corrupted run."""

    restored: Float[np.ndarray, "item position layer"]
    """Rise of the corrupted run's difference once the clean run's states stand at these positions; NaN where a text has
    none of them. Positions are those of `POSITIONS`.
    """

    broken: Float[np.ndarray, "item position layer"]
    """Fall of the clean run's difference once the corrupted run's states stand there."""

    @property
    def total(self) -> Float[np.ndarray, "item"]:
        return self.clean - self.corrupted

    def arrival(self) -> Curve:
        """What each layer adds to what the answer's own position carries: rises of `restored` from layer to layer.

        Over all layers they sum to the whole difference of the two runs.
        """
        at = self.restored[:, POSITIONS.index("answer")]
        drop = np.diff(at, axis=1, prepend=0.0)
        return Curve(self.family, self.kind, ARRIVAL, self.layers, self.n_layers, drop, self.clean, UNIT)


def patching(
    model: Model,
    contrasts: Sequence[Contrast],
    *,
    family: str,
    kind: Kind,
    run: Run,
    layers: Sequence[int] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Patching:
    """Clean states into the corrupted run and back, at one class of positions and after one layer at a time.

    A pass resumes after the patched layer, from the first patched position on; what is before it is read from a
    key-value cache. Kept in the run, a work unit for 16 contrasts of like length. Raises ValueError without contrasts,
    and for layers that are not there.
    """
    asked = tuple(range(model.n_layers)) if layers is None else tuple(sorted(set(layers)))
    hooks.check_layers(model, asked)
    if not contrasts or not asked:
        raise ValueError(
            f"{len(contrasts)} contrasts of {family} at {len(asked)} layers were given; give at least one."
        )
    order = sorted(range(len(contrasts)), key=lambda n: len(contrasts[n].clean))
    units = {}
    for start in range(0, len(order), ROWS):
        rows = order[start : start + ROWS]
        units[work_unit(model, "patch", contrasts=[contrasts[n] for n in rows], layers=asked)] = rows
    shape = (len(contrasts), len(POSITIONS), len(asked))
    ends, changed = np.full((2, len(contrasts)), np.nan), np.full((2, *shape), np.nan)
    done = 0
    for unit, table in inline(run, units, lambda unit: _rows(model, [contrasts[n] for n in units[unit]], asked)):
        rows = units[unit]
        ends[:, rows] = table[table["position"] == ""][["clean", "corrupted"]].to_numpy().T
        moved = table[table["position"] != ""][["clean", "corrupted"]].to_numpy().T
        changed[:, rows] = moved.reshape(2, len(rows), len(POSITIONS), len(asked))
        done += len(rows)
        progress(done, len(contrasts))
    clean, corrupted = ends
    restored, broken = changed[1] - corrupted[:, None, None], clean[:, None, None] - changed[0]
    return Patching(family, kind, asked, model.n_layers, clean, corrupted, restored, broken)


@torch.no_grad()
def _rows(model: Model, contrasts: Sequence[Contrast], layers: Sequence[int]) -> list[dict[str, object]]:
    """First a row for each contrast with the two runs as they are, then one for each contrast, position and layer, with
    the other's states put into each run.
    """
    sides = [Side.of(model, [getattr(c, name) for c in contrasts], layers) for name in ("clean", "corrupted")]
    answers = torch.tensor([c.answers for c in contrasts], device=model.device)
    found = torch.full((2, len(contrasts), len(POSITIONS), len(layers)), torch.nan, dtype=torch.float64)
    for p, position in enumerate(POSITIONS):
        where = _columns([c.classes()[position] for c in contrasts], sides[0].batch)
        there = where.any(-1).cpu()
        if not there.any():
            continue
        for s, (side, other) in enumerate((sides, sides[::-1])):
            for n, value in enumerate(side.patched(model, other, where, answers, layers)):
                found[s, there, p, n] = value[there]
    plain = [difference.tolist() for difference in (side.difference(answers) for side in sides)]
    names = ("clean", "corrupted")
    rows: list[dict[str, object]] = [
        {"item": i, "position": "", "layer": -1, **{name: plain[s][i] for s, name in enumerate(names)}}
        for i in range(len(contrasts))
    ]
    for i in range(len(contrasts)):
        for p, position in enumerate(POSITIONS):
            for n, layer in enumerate(layers):
                values = {name: float(found[s, i, p, n]) for s, name in enumerate(names)}
                rows.append({"item": i, "position": position, "layer": layer, **values})
    return rows


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two runs: its texts, its residual streams, what it says next."""

    batch: Batch
    resid: Mapping[int, Float[Tensor, "row pos d_model"]]
    logits: Float[Tensor, "row d_vocab"]
    prefixes: dict[int, object] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Model, texts: Sequence[Sequence[int]], layers: Sequence[int]) -> "Side":
        batch = pad([list(text) for text in texts], pad_token=model.pad_token, device=model.device)
        with hooks.reading(model, layers) as resid:
            logits = hooks.run(model, batch, use_cache=False, logits_to_keep=1).logits[:, -1]
        return cls(batch, dict(resid), logits)

    def difference(self, answers: Tensor) -> Logits:
        return _difference(self.logits, answers)

    def patched(
        self,
        model: Model,
        other: "Side",
        where: Bool[Tensor, "row pos"],
        answers: Tensor,
        layers: Sequence[int],
    ) -> Iterator[Logits]:
        """The difference with the other's states at these positions, layer by layer."""
        start = int(where.any(0).nonzero()[0])
        if start and not self.batch.mask[:, :start].any(-1).all():
            start = 0  # a row would be all padding
        cache = self._prefix(model, start)
        for layer in layers:
            mixed = torch.where(where[..., None], other.resid[layer], self.resid[layer])[:, start:]
            with hooks.resumed(model, layer, mixed):
                output = hooks.run(model, self.batch, copy.deepcopy(cache), use_cache=bool(start), logits_to_keep=1)
            yield _difference(output.logits[:, -1], answers)

    def _prefix(self, model: Model, start: int) -> object:
        """A cache of the first columns; None for no columns."""
        if start and start not in self.prefixes:
            before = Batch(self.batch.tokens[:, :start], self.batch.mask[:, :start])
            self.prefixes.clear()
            self.prefixes[start] = hooks.run(model, before, use_cache=True, logits_to_keep=1).past_key_values
        return self.prefixes.get(start)


def _difference(logits: Float[Tensor, "row d_vocab"], answers: Tensor) -> Logits:
    chosen = logits.float().gather(-1, answers).cpu().double()
    return chosen[:, 0] - chosen[:, 1]


def _columns(classes: Sequence[np.ndarray], batch: Batch) -> Bool[Tensor, "row pos"]:
    """Tokens of each text as columns of the padded batch."""
    where = torch.zeros_like(batch.mask)
    for row, each in enumerate(classes):
        where[row, -len(each) :] = torch.from_numpy(each)
    return where
