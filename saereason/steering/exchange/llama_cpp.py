"""Control vectors for llama.cpp, as GGUF.

llama.cpp adds `direction.N` to what its block N gives out (`build_cvec`, before `l_out`), at every token. Blocks count
from 0: the loader puts `direction.N` at `(N - 1) · n_embd` and block `il` takes what is at `(il - 1) · n_embd`, so N is
the layer as it is counted here, and block 0 cannot be steered.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from saereason.model import Model
from saereason.runs import write_file
from saereason.saes import SAE

from ..directions import AddVector
from ..interventions import Intervention
from .additions import added
from .reading import reading

ARCHITECTURE = "controlvector"


def save_control_vector(
    path: str | Path, model: Model, saes: Mapping[int, SAE] | None, interventions: Sequence[Intervention]
) -> Path:
    """Write additions as a GGUF control vector, for llama.cpp's `--control-vector`.

    Raises ValueError for anything but `Add` and `AddVector` that act everywhere, and for layer 0.
    """
    from gguf import GGUFWriter

    path, vectors = Path(path), added(model, saes, interventions, "llama.cpp")
    if 0 in vectors:
        raise ValueError("there is an addition after layer 0 and llama.cpp steers from layer 1 on; leave layer 0 out.")
    with write_file(path) as partial:
        writer = GGUFWriter(partial, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", model.hf.config.model_type)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(vectors))
        for layer, vector in vectors.items():
            writer.add_tensor(f"direction.{layer}", vector.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path


def load_control_vector(path: str | Path) -> tuple[AddVector, ...]:
    """The additions of a GGUF control vector at strength 1, by layer. Raises ValueError for any other file."""
    from gguf import GGUFReader

    path = Path(path)
    with reading(path, "a GGUF control vector"):
        reader = GGUFReader(path)
        said = reader.fields["general.architecture"].contents()
        if said != ARCHITECTURE:
            raise ValueError(f"its architecture is {said}")
        return tuple(sorted(map(_addition, reader.tensors), key=lambda addition: addition.layer))


def _addition(tensor: Any) -> AddVector:
    match = re.fullmatch(r"direction\.([1-9][0-9]{0,5})", tensor.name)
    if match is None or tensor.tensor_type.name != "F32" or tensor.data.ndim != 1:
        raise ValueError(f"{tensor.name} is no float32 vector by the name of direction.1, direction.2 and so on")
    return AddVector(int(match[1]), torch.from_numpy(tensor.data.copy()), name=tensor.name)
