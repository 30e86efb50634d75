"""Interventions in saereason's own format: a folder with `steering.json` and `steering.safetensors`."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from saereason.model import Model
from saereason.runs import write_folder, write_json
from saereason.saes import SAE, decoder_row, sae_hash

from ..directions import AddVector
from ..interventions import Intervention
from ..on_features import Add, Boost, OnFeature
from .additions import check
from .reading import json_of, reading
from .values import decoded, encoded

SCHEMA = 1
VALUES, TENSORS = "steering.json", "steering.safetensors"
WANTED = "a folder that save_steering wrote"


def save_steering(
    folder: str | Path, model: Model, saes: Mapping[int, SAE] | None, interventions: Sequence[Intervention]
) -> Path:
    """Save interventions, with their tensors, the decoder rows of their features, and what they were made for.

    A folder that holds saved interventions is replaced. Raises ValueError for one that holds anything else, and for
    interventions that do not fit model and SAEs, or are of a class of your own.
    """
    from safetensors.torch import save_file

    folder, saes = Path(folder).absolute(), saes or {}
    there = [folder] if folder.is_file() else sorted(folder.iterdir()) if folder.is_dir() else []
    if others := [path.name for path in there if path.name not in (VALUES, TENSORS)]:
        raise ValueError(f"{folder} holds {others[0]}, which would be lost; give another folder.")
    check(model, saes, interventions)
    used = {layer for i in interventions for layer in (i.layer, *i.when.reads)} & set(saes)
    tensors = _decoder_rows(saes, interventions)
    said = {
        "schema": SCHEMA,
        "model": {"name": model.name, "hash": model.hash},
        "saes": {str(layer): sae_hash(saes[layer]) for layer in sorted(used)},
        "interventions": [encoded(intervention, tensors) for intervention in interventions],
    }
    with write_folder(folder) as partial:
        write_json(partial / VALUES, said)
        save_file(tensors, partial / TENSORS)
    return folder


def load_steering(folder: str | Path, model: Model, saes: Mapping[int, SAE] | None = None) -> tuple[Intervention, ...]:
    """The interventions in a folder, as they were saved; warns where model or SAEs have other weights now.

    An `Add` at a layer without an SAE becomes an `AddVector` of the saved decoder row, which does the same. Raises
    ValueError for a folder that `save_steering` did not write, and for another version of the format.
    """
    from safetensors.torch import load_file

    path, saes = Path(folder) / VALUES, saes or {}
    with reading(path, WANTED):
        said: Any = json_of(path)
        schema, made_for = said["schema"], said.get("model")
    if schema != SCHEMA:
        raise ValueError(f"{path} is of schema {schema!r} and this saereason reads schema {SCHEMA}; update saereason.")
    with reading(path, WANTED):
        if not isinstance(said["interventions"], list) or not said["interventions"]:
            raise ValueError("there is no list of interventions in it")
        tensors = load_file(path.with_name(TENSORS), device=str(model.device))
        found = tuple(decoded(each, tensors) for each in said["interventions"])
        if wrong := [each for each in found if not isinstance(each, Intervention)]:
            raise ValueError(f"{wrong[0]!s:.60} is no intervention")
        differ = [f"{made_for['name']} ({made_for['hash']})"] if made_for["hash"] != model.hash else []
        differ += [f"the SAE {hash}" for at, hash in said["saes"].items() if hash != _hash(saes, int(at), hash)]
    if differ:
        warnings.warn(f"{path} was saved for {' and '.join(differ)}, of other weights than those given.", stacklevel=2)
    return tuple(i if i.layer in saes else _by_itself(i, tensors) for i in found)


def _decoder_rows(saes: Mapping[int, SAE], interventions: Sequence[Intervention]) -> dict[str, Tensor]:
    """What one unit of each feature adds, by name, but where an SAE's unit is another size at each token."""
    features = {i.feature for i in interventions if isinstance(i, OnFeature)}
    features |= {feature for i in interventions if isinstance(i, Boost) for feature in i.features}
    return {
        f"decoder.{feature}": decoder_row(saes[feature.layer], feature.index).cpu().contiguous().clone()
        for feature in features
        if saes[feature.layer].cfg.normalize_activations == "none"
    }


def _hash(saes: Mapping[int, SAE], layer: int, default: str) -> str:
    return sae_hash(saes[layer]) if layer in saes else default


def _by_itself(i: Intervention, tensors: Mapping[str, Tensor]) -> Intervention:
    """An intervention as one that needs no SAE, if it can be had."""
    if not isinstance(i, Add) or f"decoder.{i.feature}" not in tensors:
        return i
    row = tensors[f"decoder.{i.feature}"]
    return AddVector(i.layer, row, i.coefficient, i.when, name=str(i.feature), keep_norm=i.keep_norm)
