"""The state of training in one safetensors file, and what it must agree in to be gone on from."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from saereason.runs import write_file

from .design import Design
from .stream import Stream
from .trainee import Trainee

Trainees = Mapping[tuple[int, int], Trainee]
"""SAEs in training by design and layer."""


def kind(stream: Stream, designs: Sequence[Design]) -> str:
    """Whatever decides the bits of the result."""
    texts = hashlib.sha256(repr([list(row) for row in stream.rows]).encode()).hexdigest()
    facts = [stream.model.hash, texts, stream.layers, stream.batch_size, stream.width, str(stream.dtype)]
    more = [stream.n_tokens, sorted(stream.left_out), str(stream.device), torch.get_num_threads()]
    return json.dumps([*facts, *more, [asdict(design) for design in designs]])


def save(path: Path, described: str, step: int, trainees: Trainees) -> None:
    """Write the state after `step` steps, whole or not at all."""
    with write_file(path) as partial:
        save_file(dict(_tensors(trainees)), partial, metadata={"kind": described, "step": str(step)})


def restore(path: Path, described: str, trainees: Trainees) -> int:
    """Put the state of a checkpoint in place; returns the steps done. Raises ValueError for one of other training."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != described:
                raise ValueError(
                    f"{path} is the checkpoint of other training (texts, tokens, layers, designs, model, precision or "
                    "threads differ); remove it, or train into another folder."
                )
            for key, trainee in trainees.items():
                start = _start(key)
                names = [name for name in file.keys() if name.startswith(start)]  # noqa: SIM118  no mapping
                trainee.restore({name.removeprefix(start): file.get_tensor(name) for name in names})
    except SafetensorError as error:
        raise ValueError(f"{path} is no checkpoint, or damaged ({error}); remove it to start afresh.") from error
    return int(metadata["step"])


def _tensors(trainees: Trainees) -> Iterator[tuple[str, Tensor]]:
    for key, trainee in trainees.items():
        for name, value in trainee.state().items():
            yield _start(key) + name, value.contiguous()


def _start(key: tuple[int, int]) -> str:
    return f"{key[0]}/{key[1]}/"
