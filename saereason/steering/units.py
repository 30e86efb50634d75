"""Sizes in other units than the operator's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from saereason.model import Model
from saereason.saes import SAE, decoder_row

from .budget import at_kl
from .interventions import Intervention
from .kl import Divergence
from .on_features import Add, SetProjection
from .sizes import largest_acts, mean_norms

UNITS = ("own", "largest-act", "mean-norm", "nats")
NEAR = 0.1
"""How far from the KL that was asked for a size may be, as a share of it."""


def unit_sizes(
    unit: str, model: Model, saes: Mapping[int, SAE], ones: Sequence[Any], texts: Sequence[Any]
) -> list[float]:
    """What a size of 1 is for each intervention on a feature, in the operator's own unit, over some texts.

    In mean-norm it changes the residual stream by the mean norm there. Raises ValueError for a feature that is never
    on, and for an SAE whose unit is another size at each token, where that matters.
    """
    if unit == "mean-norm":
        norms = mean_norms(model, sorted({one.layer for one in ones}), texts)
        return [norms[one.layer] / (1.0 if isinstance(one, SetProjection) else _row_norm(saes, one)) for one in ones]
    largest = largest_acts(model, saes, [one.feature for one in ones], texts)
    for feature, value in largest.items():
        if value == 0:
            raise ValueError(f"{feature} is never on in the prompts and plain texts; give sizes in another unit.")
    return [largest[one.feature] * (_row_norm(saes, one) if isinstance(one, SetProjection) else 1.0) for one in ones]


def _row_norm(saes: Mapping[int, SAE], one: Any) -> float:
    """How far one unit of the feature's activation moves the residual stream."""
    kind = saes[one.layer].cfg.normalize_activations
    if kind != "none":
        raise ValueError(
            f"the SAE at layer {one.layer} normalises its input ({kind}), so a unit of {one.feature} is another size "
            "at each token; give sizes in another unit."
        )
    norm = float(decoder_row(saes[one.layer], one.feature.index).norm())
    if norm == 0:
        raise ValueError(f"the decoder row of {one.feature} is zero, so no size of it moves anything; leave it out.")
    return norm


def moving(budget: Divergence, saes: Mapping[int, SAE], one: Any, nats: float) -> Intervention:
    """An intervention of the size that moves the next token by so many nats."""
    found, kl = at_kl(budget, saes, one.sized, nats, start=None if isinstance(one, Add) else 1.0)
    if abs(kl / nats - 1) > NEAR:
        raise ValueError(
            f"no size of {found} was found that moves the next token by {nats:g} nats (this one moves it by {kl:.3g}); "
            "give sizes in another unit."
        )
    return found.sized(short(found.size))


def short(size: float) -> float:
    """To seven digits, so that names stay short."""
    return float(f"{size:.7g}")
