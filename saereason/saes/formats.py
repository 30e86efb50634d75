"""Folders of single SAEs: SAELens's own, and those of EleutherAI's sparsify and of dictionary_learning, converted.

SAELens 6.54 has converters for both, which are not called: the one for sparsify transposes `W_dec` and leaves `b_dec`
in the encoder's input where the decoder is normalised, and the one for dictionary_learning reads the hub alone and
takes every SAE for one of the residual stream.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .sae import ONE_COLUMN

MARKS = ("cfg.json", "ae.pt")
"""A folder with one of these holds an SAE."""


class UnfitError(ValueError):
    """An SAE that is whole, and of a kind that cannot be served."""


def read_folder(folder: Path, device: str) -> Any:
    """The SAE in a folder as SAELens's class, in float32; raises whatever a damaged one raises."""
    from sae_lens import SAE as LensSAE

    options: dict[str, Any] = {"device": device, "dtype": "float32"}
    if (folder / "ae.pt").is_file():
        sae: Any = LensSAE.load_from_disk(folder, converter=dictionary_learning, **options)
        if sae.cfg.architecture() in ONE_COLUMN:  # as its from_pretrained does; the reconstruction stays
            sae.fold_W_dec_norm()
        return sae
    if (folder / "sae.safetensors").is_file():
        return LensSAE.load_from_disk(folder, converter=sparsify, **options)
    return LensSAE.load_from_disk(folder, **options)


def sparsify(
    path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and weights for SAELens of one sparsify folder (`layers.10/` with cfg.json and sae.safetensors).

    Source: github.com/EleutherAI/sparsify, `SparseCoder`: Top-K of relu(W_enc (x − b_dec) + b_enc).
    """
    from safetensors.torch import load_file

    folder = Path(path).absolute()
    cfg = _read(folder / "cfg.json")
    extras = [name for name in ("transcode", "skip_connection", "embed_skip", "gram_lookup", "signed") if cfg.get(name)]
    if extras or cfg.get("activation", "topk") != "topk":
        kind = extras[0] if extras else cfg["activation"]
        raise UnfitError(f"{folder} is a sparsify coder of kind {kind}; only its plain Top-K autoencoders are read.")
    hookpoint = folder.parent if re.fullmatch(r"seed\d+", folder.name) else folder
    layer = re.fullmatch(r"(?:layers|h)\.(\d+)", hookpoint.name)
    if layer is None:
        raise UnfitError(
            f"{folder} is a sparsify SAE of the hookpoint {hookpoint.name}; only the residual stream after a block is "
            "served, a folder named layers.N."
        )
    weights = load_file(folder / "sae.safetensors", device=device)
    run = hookpoint.parent / "config.json"
    settings = {
        "architecture": "topk",
        "d_in": cfg["d_in"],
        "d_sae": cfg.get("num_latents") or cfg["d_in"] * cfg["expansion_factor"],
        "k": cfg["k"],
        "metadata": {"model_name": _read(run).get("model") if run.is_file() else None},
    }
    names = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "W_dec", "b_dec": "b_dec"}
    return _finished(settings, int(layer[1]), device, cfg_overrides), _renamed(weights, names)


@dataclass(frozen=True)
class DictClass:
    """How a class of dictionary_learning maps to SAELens: its architecture, and its name for each weight."""

    architecture: str
    names: Mapping[str, str]
    centres: bool = True
    """Whether the decoder's bias is subtracted from the input."""

    others: tuple[str, ...] = ()
    """Values in its state that encoding does not use, or that stand in the settings too."""


_LINEAR = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight"}
_PLAIN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")}

DICT_CLASSES = {
    "AutoEncoder": DictClass("standard", _LINEAR | {"b_dec": "bias"}),
    "AutoEncoderNew": DictClass("standard", _LINEAR | {"b_dec": "decoder.bias"}, centres=False),
    "AutoEncoderTopK": DictClass("topk", _LINEAR | {"b_dec": "b_dec"}, others=("k", "threshold")),
    "BatchTopKSAE": DictClass("jumprelu", _LINEAR | {"b_dec": "b_dec", "threshold": "threshold"}, others=("k",)),
    "MatryoshkaBatchTopKSAE": DictClass("jumprelu", _PLAIN, others=("k", "group_sizes")),
    "JumpReluAutoEncoder": DictClass("jumprelu", _PLAIN, centres=False),
}
"""Source: github.com/saprmarks/dictionary_learning, `dictionary.py` and `trainers/`."""


def dictionary_learning(
    path: str | Path, device: str = "cpu", cfg_overrides: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and weights for SAELens of one dictionary_learning folder (`trainer_0/` with config.json and ae.pt)."""
    folder = Path(path)
    config = _read(folder / "config.json")
    trainer = config["trainer"]
    kind = DICT_CLASSES.get(trainer.get("dict_class"))
    if kind is None:
        raise UnfitError(
            f"{folder} holds a dictionary of class {trainer.get('dict_class')}; "
            f"these classes are read: {', '.join(DICT_CLASSES)}."
        )
    layer, buffer = trainer["layer"], config.get("buffer", {})
    if trainer.get("submodule_name") != f"resid_post_layer_{layer}" or buffer.get("io", "out") != "out":
        raise UnfitError(
            f"{folder} reads {trainer.get('submodule_name')} ({buffer.get('io', 'out')}) by its config.json; only the "
            f"residual stream after a block is served, with submodule_name resid_post_layer_{layer}."
        )
    state = _state(folder / "ae.pt", device)
    weights = _renamed(state, kind.names, kind.others)
    d_in, d_sae = trainer["activation_dim"], trainer["dict_size"]
    settings = {
        "architecture": kind.architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "apply_b_dec_to_input": kind.centres,
        "metadata": {"model_name": trainer.get("lm_name"), "context_size": buffer.get("ctx_len")},
    }
    if kind.architecture == "jumprelu":
        weights["threshold"] = _thresholds(weights["threshold"], d_sae, folder)
    if kind.architecture == "topk":
        settings["k"] = trainer["k"]
        if int(state.get("k", trainer["k"])) != trainer["k"]:
            raise ValueError(f"config.json says k = {trainer['k']} and ae.pt says {int(state['k'])}")
    return _finished(settings, layer, device, cfg_overrides), weights


def _thresholds(threshold: Float[Tensor, "*d_sae"], d_sae: int, folder: Path) -> Float[Tensor, "d_sae"]:
    """BatchTopK keeps one threshold for all, which is −1 until training has set it."""
    if threshold.ndim == 0 and threshold < 0:
        raise UnfitError(
            f"{folder} was never given a threshold ({threshold:g}), without which every positive feature fires; "
            "train it beyond threshold_start_step."
        )
    return threshold.expand(d_sae).clone()


def _state(file: Path, device: str) -> dict[str, Any]:
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except UnpicklingError as error:  # whose own text recommends to run the code
        raise UnfitError(
            f"{file} is damaged or holds more than tensors, which can run code when read; save the plain state dict."
        ) from error


def _read(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf8"))
    if not isinstance(content, dict):
        raise TypeError(f"{file.name} is no JSON object")
    return content


def _renamed(
    weights: Mapping[str, Tensor], names: Mapping[str, str], others: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Weights under SAELens's names, those of `nn.Linear` transposed. Raises ValueError for any that have no place."""
    beyond = sorted(set(weights) - set(names.values()) - set(others))
    if beyond:
        raise ValueError(f"its weights have a {beyond[0]}, which SAEs of this kind do not have")
    return {ours: weights[name].T if name.endswith(".weight") else weights[name] for ours, name in names.items()}


def _finished(settings: dict[str, Any], layer: int, device: str, overrides: dict[str, Any] | None) -> dict[str, Any]:
    """Settings with what every converted SAE has. Raises ValueError for a `k` that cannot be."""
    import sae_lens

    k, d_sae = settings.get("k", 1), settings["d_sae"]
    if not isinstance(k, int) or not 0 < k <= d_sae:
        raise ValueError(f"k is {k!r} of {d_sae} features")
    known = {key: value for key, value in settings["metadata"].items() if value is not None}
    known |= {"hook_name": f"blocks.{layer}.hook_resid_post", "sae_lens_version": sae_lens.__version__}
    return {**settings, "metadata": known, "device": device, **(overrides or {})}
