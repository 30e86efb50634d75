"""Files for the model type `steered` of EleutherAI's lm-evaluation-harness (`lm_eval/models/hf_steered.py`).

There the vector is added to what a module gives out, or to the first of a tuple, at every token, in the model's own
precision; modules are named as in `base_model`, and a name that is none is an error.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saereason.model import Model
from saereason.runs import write_file
from saereason.saes import SAE

from ..directions import AddVector
from ..interventions import Intervention
from .additions import added
from .reading import reading


def save_lm_eval(
    path: str | Path, model: Model, saes: Mapping[int, SAE] | None, interventions: Sequence[Intervention]
) -> Path:
    """Write additions for `lm_eval --model steered --model_args pretrained=…,steer_path=<path>`.

    Raises ValueError for another ending than `.pt`, and for anything but `Add` and `AddVector` that act everywhere.
    """
    path = Path(path)
    if path.suffix != ".pt":
        raise ValueError(f"lm-eval tells a steering file by its ending and the path is {path}; let it end in .pt.")
    names, choices = _names(model), {"steering_coefficient": 1.0, "action": "add", "bias": None, "head_index": None}
    vectors = added(model, saes, interventions, "lm-eval")
    with write_file(path) as partial:
        torch.save({names[at]: {"steering_vector": vector, **choices} for at, vector in vectors.items()}, partial)
    return path


def load_lm_eval(path: str | Path, model: Model) -> tuple[AddVector, ...]:
    """The additions in a `.pt` file of lm-eval's; no code in it is run.

    Raises ValueError for any other file, a module that is no block of the model, and for clamps and single heads.
    """
    path = Path(path)
    layers = {name: layer for layer, name in enumerate(_names(model))}
    with reading(path, "a steering file of lm-eval's"):
        said = torch.load(path, weights_only=True, map_location="cpu")
        return tuple(_addition(name, entry, layers, model.d_model) for name, entry in said.items())


def _addition(name: str, entry: Mapping[str, Any], layers: Mapping[str, int], d_model: int) -> AddVector:
    vector, action = entry["steering_vector"], entry["action"]
    if name not in layers:
        raise ValueError(f"{name!r:.60} is no block of the model; they are {', '.join(layers)}")
    if action != "add" or entry.get("bias") is not None or entry.get("head_index") is not None:
        raise ValueError(
            f"{name} is steered by {action!r:.60}, or with a bias or one head, and only additions are read"
        )
    if not isinstance(vector, Tensor) or vector.shape != (d_model,) or not vector.is_floating_point():
        raise ValueError(f"the steering_vector of {name} is no tensor of {d_model} floats")
    return AddVector(layers[name], vector, float(entry.get("steering_coefficient", 1.0)), name=name)


def _names(model: Model) -> list[str]:
    """What lm-eval calls each block."""
    names = {id(module): name for name, module in model.hf.base_model.named_modules()}
    return [names[id(block)] for block in model.blocks]
