"""Interventions that other programs can make: the same vector added to the residual stream everywhere."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from saereason.hooks import check_layers
from saereason.model import Model
from saereason.saes import SAE, decoder_row

from ..directions import AddVector
from ..interventions import Intervention
from ..on_features import Add
from ..when import Everywhere


def check(model: Model, saes: Mapping[int, SAE], interventions: Sequence[Intervention]) -> None:
    """Raises ValueError for interventions that do not fit the model and its SAEs, and where there are none."""
    if not interventions:
        raise ValueError("there is nothing to save; give at least one intervention.")
    check_layers(model, [layer for i in interventions for layer in (i.layer, *i.when.reads)])
    for intervention in interventions:
        intervention.check(model, saes)
        intervention.when.where(model, saes)


def additions(
    model: Model, saes: Mapping[int, SAE], interventions: Sequence[Intervention], program: str
) -> list[Add | AddVector]:
    """The interventions; raises ValueError for whatever does more than add the same vector everywhere."""
    check(model, saes, interventions)
    found: list[Add | AddVector] = []
    for i in interventions:
        if not isinstance(i, Add | AddVector):
            raise ValueError(f"{i} depends on the residual stream and a file for {program} can only add; give an Add.")
        if i.when != Everywhere():
            raise ValueError(f"{i} acts at {i.when} and {program} at every token; give `when=Everywhere()`.")
        if i.keep_norm:
            raise ValueError(f"{i} keeps the norm and {program} does not; give `keep_norm=False`.")
        if isinstance(i, Add) and (kind := saes[i.layer].cfg.normalize_activations) != "none":
            raise ValueError(
                f"{i} is another vector at each token, since its SAE normalises its input ({kind}), and {program} adds "
                "one; give an AddVector."
            )
        found.append(i)
    return found


def added(
    model: Model, saes: Mapping[int, SAE] | None, interventions: Sequence[Intervention], program: str
) -> dict[int, Float[Tensor, "d_model"]]:
    """What all the interventions together add after each layer, float32. Raises ValueError as `additions` does."""
    saes, sums = saes or {}, dict[int, Tensor]()
    for i in additions(model, saes, interventions, program):
        vector = decoder_row(saes[i.layer], i.feature.index) if isinstance(i, Add) else i.vector
        sums[i.layer] = sums.get(i.layer, 0) + i.coefficient * vector.detach().double().cpu()
    narrow = {layer: sums[layer].float() for layer in sorted(sums)}
    large = next((layer for layer, vector in narrow.items() if not vector.isfinite().all()), None)
    if large is not None:
        raise ValueError(f"what is added after layer {large} is too large for float32; give a smaller coefficient.")
    return narrow
