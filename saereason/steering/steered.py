"""Change features, directions or layers while the model runs, and get a receipt for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from saereason.hooks import Edit, check_layers, edited
from saereason.model import Model
from saereason.receipts import Receipt, Recorder
from saereason.saes import SAE, hashes

from .interventions import Intervention, check_are_interventions, clashing


class SilentEditError(RuntimeError):
    """An edit that never fired: the run it was meant to change is a clean run."""


@dataclass(frozen=True, eq=False)
class Steering:
    """Handle on a steered block; `receipt` says what the edits have done so far."""

    _recorder: Recorder

    @property
    def receipt(self) -> Receipt:
        return self._recorder.receipt


@contextmanager
def steered(
    model: Model, saes: Mapping[int, SAE] | None, *interventions: Intervention, may_be_silent: bool = False
) -> Iterator[Steering]:
    """Within the block the model runs with every intervention in force; interventions of one layer act at once.

    Nested blocks compose: the inner one sees what the outer one left. Raises ValueError for an intervention that does
    not fit model and SAEs, or for two on one feature, block, direction or norm, and SilentEditError at the end if one
    never fired, unless it `may_be_silent` or waits for something that may never come (`After`, `While`).
    """
    saes = saes or {}
    check_fit(model, saes, interventions)
    edits = [
        Edit(
            i.layer,
            str(i),
            i.when.where(model, saes),
            partial(i.delta, saes),
            keep_norm=i.keep_norm,
            reads=i.when.reads,
            about=partial(_about, saes, i),
        )
        for i in interventions
    ]
    with edited(model, edits) as recorder:
        yield Steering(recorder)
    silent = [
        edit.name
        for edit, i in zip(recorder.receipt.edits, interventions, strict=True)
        if edit.firings == 0 and not i.when.may_never_come
    ]
    if silent and not may_be_silent:
        raise SilentEditError(
            f"{silent[0]} never fired: no position it was meant for was run. Check its `when`, and that this model "
            "ran within the block."
        )


def _about(saes: Mapping[int, SAE], intervention: Intervention) -> tuple[Any, ...]:
    """What tells an intervention with these SAEs from any other."""
    used = {layer: saes[layer] for layer in (intervention.layer, *intervention.when.reads) if layer in saes}
    return intervention, hashes(used)


def check_fit(model: Model, saes: Mapping[int, SAE], interventions: tuple[Intervention, ...]) -> None:
    """Raises ValueError for interventions that do not fit model and SAEs, or each other."""
    check_are_interventions(interventions)
    check_layers(model, [layer for i in interventions for layer in (i.layer, *i.when.reads)])
    for intervention in interventions:
        intervention.check(model, saes)
        late = max(intervention.when.reads, default=intervention.layer)
        if late > intervention.layer:
            raise ValueError(
                f"{intervention} acts after block {intervention.layer} and waits for what block {late} gives; let it "
                "look at its own layer or an earlier one."
            )
    target = clashing(interventions)
    if target is not None:
        raise ValueError(f"two interventions act on {target}; make them one, or nest two `steered` blocks.")
