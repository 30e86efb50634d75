"""Packs: SAEs in one safetensors file a quarter of their size, the large matrices in 8-bit integers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from ..runs import write_file
from .sae import SAE

PACKS = {name: Path(__file__).parent / "packs" / f"{name}.safetensors" for name in ("smollm2-135m",)}
"""Short names of the packs that ship with saereason."""

FORMAT = "saereason pack 1"
FEATURE_AXIS = {"W_enc": 1, "W_dec": 0}
"""The matrices that are quantised, and which of their axes is the feature's."""


def save_pack(saes: Mapping[int, SAE], path: str | Path) -> Path:
    """Save SAEs as one file, `W_enc` and `W_dec` with one byte a weight and one scale a feature; `load_saes` reads it.

    Raises ValueError for another ending than `.safetensors`.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"a pack is a safetensors file and the path is {path}; let it end in .safetensors.")
    tensors, settings = {}, {}
    for layer, sae in sorted(saes.items()):
        for name, weight in _state(sae).items():
            weight = weight.detach().float().cpu()
            if name in FEATURE_AXIS:
                tensors[f"{layer}.{name}"], tensors[f"{layer}.{name}.scale"] = quantised(weight, FEATURE_AXIS[name])
            else:
                tensors[f"{layer}.{name}"] = weight.contiguous()
        settings[layer] = sae.cfg.to_dict() | {"dtype": "float32", "device": "cpu"}
    with write_file(path) as partial:
        save_file(tensors, partial, metadata={"format": FORMAT, "settings": json.dumps(settings)})
    return path


def unpack(file: Path) -> dict[int, SAE]:
    """The SAEs of a pack by layer, in float32. Raises ValueError for a file that is no pack, or damaged."""
    from safetensors import SafetensorError, safe_open

    saes: dict[int, SAE] = {}
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            if metadata.get("format") == FORMAT:
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
                for layer, cfg in json.loads(metadata["settings"]).items():
                    saes[int(layer)] = _built(cfg, tensors, layer)
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"the pack {file} is damaged ({error}); fetch or save it again.") from error
    if not saes:
        raise ValueError(f"{file} is no pack of SAEs; give the folder that holds the SAEs, or what save_pack wrote.")
    return saes


def quantised(weight: Float[Tensor, "n m"], axis: int) -> tuple[Int8[Tensor, "n m"], Float[Tensor, "_ _"]]:
    """Weights as whole steps of −127 to 127, with the size of a step, which is the same along all axes but `axis`.

    The largest weight of each feature takes 127 steps. Clipping it for the least squared error, fitting the scale, and
    scaling decoder rows back to norm 1 change the explained variance of trained SAEs by less than 2e-5, to and fro.
    """
    largest = weight.abs().amax(1 - axis, keepdim=True)
    scale = (largest / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight / scale).round().to(torch.int8), scale


def _state(sae: Any) -> dict[str, Tensor]:
    """An SAE's weights as SAELens would save them."""
    state = dict(sae.state_dict())
    sae.process_state_dict_for_saving(state)
    return state


def _built(cfg: dict[str, Any], tensors: Mapping[str, Tensor], layer: str) -> Any:
    from sae_lens import SAE as LensSAE

    mine = {name.partition(".")[2]: value for name, value in tensors.items() if name.partition(".")[0] == layer}
    weights = {
        name: value.float() * mine[f"{name}.scale"] if name in FEATURE_AXIS else value
        for name, value in mine.items()
        if not name.endswith(".scale")
    }
    return LensSAE.load_from_disk(layer, converter=lambda *_, **__: (cfg, weights))
