"""What saereason asks of a sparse autoencoder (SAE), and what it reads off one."""

import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..features import Feature
from ..hooks import changed, check_layers
from ..model import Model

POSTS = ("hook_resid_post", "hook_out")
NORMALISED_BY_TOKEN = ("none", "layer_norm", "constant_norm_rescale")
"""Ways to normalise the input, each token by itself or not at all, whose scale can be told from the token alone."""

INSIDE = ("saereason", "torch", "contextlib", "jaxtyping", "beartype")
"""Packages between which and the user's own code a warning points at the user's."""

SAME = 0.7
"""Cosine of decoder rows from which two features count as one (Paulo and Belrose, arXiv 2501.16615)."""

ONE_COLUMN = ("standard", "jumprelu")
"""Architectures whose features do not compete: one encoder column gives one feature."""


@runtime_checkable
class SAE(Protocol):
    """The part of a `sae_lens.SAE` that saereason relies on."""

    cfg: Any
    W_enc: Any
    W_dec: Any
    b_dec: Any

    def encode(self, x: Any) -> Any: ...

    def decode(self, feature_acts: Any) -> Any: ...


def layer_of(sae: SAE, name: str = "the SAE") -> int:
    """The layer whose output an SAE reads, from its metadata. Raises ValueError where it does not say, or cannot."""
    hook_name = getattr(sae.cfg.metadata, "hook_name", None)
    if not hook_name:  # SAELens answers None for whatever it lacks
        raise ValueError(f"{name} does not say which hook point it reads; set sae.cfg.metadata.hook_name.")
    parts = str(hook_name).split(".")
    if len(parts) != 3 or parts[0] != "blocks" or not parts[1].isdecimal() or parts[2] not in POSTS:
        raise ValueError(
            f"{name} reads {hook_name}; only the residual stream after a block is served, blocks.L.hook_resid_post."
        )
    kind = sae.cfg.normalize_activations
    if kind not in NORMALISED_BY_TOKEN:
        raise ValueError(
            f"{name} normalises its input ({kind}), so its activations are not in the residual stream's units; "
            "fold the scale into its weights first (SAELens: fold_activation_norm_scaling_factor)."
        )
    if getattr(sae.cfg, "reshape_activations", "none") != "none":
        raise ValueError(
            f"{name} reshapes its input ({sae.cfg.reshape_activations}); give one for the residual stream."
        )
    if sae.cfg.architecture() == "temporal":
        raise ValueError(
            f"{name} is a temporal SAE, whose features read earlier tokens too; give one that reads one token."
        )
    return int(parts[1])


def check_saes(model: Model, saes: Mapping[int, SAE]) -> None:
    """Raises ValueError for SAEs that cannot serve this model; warns once of SAEs of other weights."""
    check_serving(model, saes)
    for layer, sae in saes.items():
        made_for = getattr(sae.cfg.metadata, "model_hash", None)
        if made_for is not None and made_for != model.hash:
            warn_of_weights(layer, made_for, f"{model.name} has {model.hash}")


def check_serving(model: Model, saes: Mapping[int, SAE]) -> None:
    """Raises ValueError for SAEs that cannot serve this model."""
    check_layers(model, list(saes))
    for layer, sae in saes.items():
        if layer_of(sae, f"the SAE at layer {layer}") != layer:
            raise ValueError(f"the SAE given for layer {layer} reads layer {layer_of(sae)}; give it under that layer.")
        if sae.W_dec.shape[1] != model.d_model:
            raise ValueError(
                f"the SAE at layer {layer} is for d_model {sae.W_dec.shape[1]} and {model.name} has {model.d_model}; "
                "it belongs to another model."
            )


@cache
def warn_of_weights(layer: int, made_for: str, model_has: str) -> None:
    """Once a process: everything that reads SAEs checks them, and a study does so a hundred times.

    It points at the first line that is not of saereason or of what stands between its functions.
    """
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(
        f"the SAE at layer {layer} was trained on weights {made_for} and {model_has}: its features may mean something "
        "else here.",
        stacklevel=level,
    )


def check_in_units_of_resid(saes: Mapping[int, SAE]) -> None:
    """Raises ValueError for an SAE that normalises its input: a unit of activation is another size at each token."""
    for layer, sae in saes.items():
        if sae.cfg.normalize_activations != "none":
            raise ValueError(
                f"the SAE at layer {layer} normalises its input ({sae.cfg.normalize_activations}), so the size of an "
                "activation cannot be compared between tokens; steer with it, but choose features with another."
            )


def sae_at(saes: Mapping[int, SAE], feature: Feature) -> SAE:
    """The SAE a feature belongs to. Raises ValueError for a layer without one, or an index it does not have."""
    if feature.layer not in saes:
        raise ValueError(f"no SAE at layer {feature.layer}; there are SAEs at layers {sorted(saes)}.")
    sae = saes[feature.layer]
    if not 0 <= feature.index < len(sae.W_dec):
        raise ValueError(f"{feature} is out of range; the SAE has features 0 to {len(sae.W_dec) - 1}.")
    return sae


def feature_acts(sae: SAE, resid: Float[Tensor, "row d_model"], index: int) -> Float[Tensor, "row"]:
    """One feature's activations.

    Where features do not compete (ReLU, JumpReLU) one encoder column suffices; elsewhere the SAE encodes in full.
    """
    if sae.cfg.architecture() not in ONE_COLUMN or sae.cfg.normalize_activations != "none":
        return sae.encode(resid)[:, index].to(resid.dtype)
    weights = sae.W_enc[:, index]
    centred = resid.to(weights.dtype) - sae.b_dec * sae.cfg.apply_b_dec_to_input
    acts = (centred @ weights + sae.b_enc[index]).relu()  # pyright: ignore[reportAttributeAccessIssue]
    if sae.cfg.architecture() == "jumprelu":
        acts = acts * (acts > sae.threshold[index])  # pyright: ignore[reportAttributeAccessIssue]
    return acts.to(resid.dtype)


def decoder_row(sae: SAE, index: int) -> Float[Tensor, "d_model"]:
    """What one unit of a feature's activation adds to the reconstruction, float32."""
    return _unscaled(sae, sae.W_dec[index])


def decoder_rows(sae: SAE) -> Float[Tensor, "d_sae d_model"]:
    """`decoder_row` of every feature."""
    return _unscaled(sae, sae.W_dec)


def _unscaled(sae: SAE, rows: Tensor) -> Tensor:
    """Rows as they are added, which SAEs that count activations in their norms have at a norm of 1."""
    rows = rows.detach().float()
    return rows / rows.norm(dim=-1, keepdim=True) if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False) else rows


def unit_of(sae: SAE, resid: Float[Tensor, "row d_model"]) -> Float[Tensor, "row 1"] | float:
    """By what an SAE that normalises its input multiplies its output at each token; 1 for any other.

    One unit of a feature's activation adds this times `decoder_row` to the residual stream there.
    """
    match sae.cfg.normalize_activations:
        case "layer_norm":
            return resid.std(dim=-1, keepdim=True)
        case "constant_norm_rescale":
            return resid.norm(dim=-1, keepdim=True) / resid.shape[-1] ** 0.5
        case _:
            return 1.0


def encode_changed(
    sae: SAE, resid: Float[Tensor, "row d_model"], change: Callable[[Tensor], Tensor]
) -> Float[Tensor, "row d_model"]:
    """What the SAE's output gains when its pre-activations `[row, d_sae]` are changed, before features compete."""
    before = sae.encode(resid)
    point = sae.hook_sae_acts_pre  # pyright: ignore[reportAttributeAccessIssue]
    with changed(point, change):
        gained = sae.encode(resid) - before
    rows = sae.W_dec.detach()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        rows = rows / rows.norm(dim=-1, keepdim=True)
    return (gained.to(rows) @ rows).to(resid) * unit_of(sae, resid)


def decoder_cosines(sae: SAE, direction: Float[Tensor, "d_model"]) -> Float[Tensor, "d_sae"]:
    """Cosine of each feature's decoder row with a direction, float32."""
    return cosine_similarity(sae.W_dec.detach().float(), direction.float()[None], dim=-1)


def check_rows(saes: Mapping[int, SAE]) -> None:
    """Raises ValueError for decoder rows that are not numbers, of which no direction can be told."""
    for layer, sae in saes.items():
        wrong = (~sae.W_dec.isfinite().all(dim=-1)).nonzero().flatten().tolist()
        if wrong:
            raise ValueError(
                f"{len(wrong)} decoder rows of the SAE at layer {layer} are not finite, the first that of feature "
                f"{wrong[0]}; its weights are broken, so load or train it again."
            )


def copies(saes: Mapping[int, SAE], feature: Feature) -> list[Feature]:
    """Other features of its SAE whose decoder row has a cosine of at least 0.7 with its own: parts of a split one."""
    sae = sae_at(saes, feature)
    near = (decoder_cosines(sae, decoder_row(sae, feature.index)) >= SAME).nonzero().flatten().tolist()
    return [Feature(feature.layer, index) for index in near if index != feature.index]


def sae_hash(sae: SAE) -> str:
    """SHA-256 of an SAE's weights and of the settings that decide what it does with them (`k`, for one)."""
    settings = {key: value for key, value in sae.cfg.to_dict().items() if key not in ("metadata", "device", "dtype")}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, weight in sorted(sae.state_dict().items()):  # pyright: ignore[reportAttributeAccessIssue]
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def hashes(saes: Mapping[int, SAE]) -> Sequence[tuple[int, str]]:
    return tuple((layer, sae_hash(sae)) for layer, sae in sorted(saes.items()))
