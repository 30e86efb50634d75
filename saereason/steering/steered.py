"""Change features, directions or layers while the model runs, and get a receipt for it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from saereason.hooks import Edit, check_layers, edited
from saereason.model import Model
from saereason.receipts import Receipt, Recorder
from saereason.saes import SAE, check_saes, sae_at

from .interventions import AddVector, Intervention, OnFeature, targets


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
def steered(model: Model, saes: Mapping[int, SAE] | None, *interventions: Intervention) -> Iterator[Steering]:
    """Within the block the model runs with every intervention in force; interventions of one layer act at once.

    Nested blocks compose: the inner one sees what the outer one left. Raises ValueError for an intervention that does
    not fit model and SAEs, or for two on one feature, and SilentEditError at the end if one never fired.
    """
    saes = saes or {}
    _check(model, saes, interventions)
    edits = [Edit(i.layer, str(i), i.when, partial(i.delta, saes)) for i in interventions]
    with edited(model, edits) as recorder:
        yield Steering(recorder)
    silent = [edit.name for edit in recorder.receipt.edits if edit.firings == 0]
    if silent:
        raise SilentEditError(
            f"{silent[0]} never fired: no position it was meant for was run. Check its `when`, and that this model "
            "ran within the block."
        )


def _check(model: Model, saes: Mapping[int, SAE], interventions: tuple[Intervention, ...]) -> None:
    check_layers(model, [i.layer for i in interventions])
    used = {i.layer for i in interventions if isinstance(i, OnFeature)}
    for intervention in interventions:
        if isinstance(intervention, OnFeature):
            sae_at(saes, intervention.feature)
        if isinstance(intervention, AddVector) and intervention.vector.shape != (model.d_model,):
            raise ValueError(
                f"the vector for layer {intervention.layer} has shape {tuple(intervention.vector.shape)}; "
                f"{model.name} needs [{model.d_model}]."
            )
    check_saes(model, {layer: saes[layer] for layer in used})
    acted_on = targets(interventions)
    twice = [target for target in acted_on if acted_on.count(target) > 1]
    if twice:
        raise ValueError(f"two interventions act on {twice[0]}; make them one, or nest two `steered` blocks.")
