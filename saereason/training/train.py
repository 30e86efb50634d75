"""Train SAEs on every layer asked for, from one forward pass."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from saereason.hooks import check_layers
from saereason.loading import fast_dtype
from saereason.model import Model
from saereason.runs import write_file
from saereason.saes import SAE

from .design import Design
from .stream import Stream
from .trainee import Trainee


@dataclass(frozen=True)
class Log:
    """What `train_saes` reports after every step, the mappings by layer."""

    tokens: int
    n_tokens: int
    explained_variance: Mapping[int, float]
    """Of this batch."""

    l0: Mapping[int, float]
    dead: Mapping[int, float]
    """Share of features that have been silent for the design's `dead_after` tokens."""


def train_saes(
    model: Model,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    design: Design = Design(),
    *,
    batch_size: int = 512,
    buffer_tokens: int = 32_768,
    checkpoint: Path | None = None,
    checkpoint_every: int = 200_000,
    progress: Callable[[Log], None] = lambda log: None,
) -> dict[int, SAE]:
    """SAEs (SAELens's classes) of some layers' residual streams, trained on rows of token ids, once through.

    They read and write the residual stream's own units, with decoder rows of norm 1; their metadata records the model's
    hash and the design. With `checkpoint`, a file, the state is kept there every `checkpoint_every` tokens: training
    that was cut short goes on from it and ends with the bits of training that was not. Raises ValueError for layers
    that are not there, too few tokens, or a checkpoint of other training.
    """
    check_layers(model, layers)
    stream = _stream(model, rows, layers, design, batch_size, buffer_tokens)
    trainees = {layer: Trainee(model, layer, design) for layer in sorted(layers)}
    kind, start = _kind(stream, design), 0
    if checkpoint is not None and checkpoint.is_file():
        start = _restore(checkpoint, kind, trainees)
    else:
        _, first = next(stream.windows())
        for layer, trainee in trainees.items():
            trainee.look(first[layer])
    saved = start
    for step, batch in enumerate(stream.batches(start), start):
        share = step / stream.n_steps
        for layer, trainee in trainees.items():
            trainee.step(batch[layer], pace(step, stream.n_steps), share)
        progress(_log((step + 1) * batch_size, stream.n_tokens, trainees))
        if checkpoint is not None and (step + 1 - saved) * batch_size >= checkpoint_every:
            saved = step + 1
            _save(checkpoint, kind, saved, trainees)
    facts = {
        "n_tokens": stream.n_steps * batch_size,
        "model_name": model.name,
        "model_hash": model.hash,
        "seed": design.seed,
        "design": asdict(design),
    }
    saes = {layer: trainee.finish(facts) for layer, trainee in trainees.items()}
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return saes


def pace(step: int, n_steps: int) -> float:
    """Share of the learning rate: linear warm-up over the first 5% of steps, linear decay over the last 30%."""
    share = step / n_steps
    return min(1.0, (share + 1 / n_steps) / 0.05, max(0.01, (1 - share) / 0.30))


def _stream(
    model: Model,
    rows: Sequence[Sequence[int]],
    layers: Sequence[int],
    design: Design,
    batch_size: int,
    buffer_tokens: int,
) -> Stream:
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers are {list(layers)}; give at least one, each once.")
    if not 0 < batch_size <= buffer_tokens:
        raise ValueError(f"batch_size is {batch_size} and buffer_tokens {buffer_tokens}; the buffer must hold a batch.")
    dtype = torch.bfloat16 if fast_dtype(model.device) == torch.bfloat16 else torch.float32
    stream = Stream(model, rows, tuple(sorted(layers)), dtype, batch_size, buffer_tokens, design.seed)
    if stream.n_tokens < batch_size:
        raise ValueError(f"the texts have {stream.n_tokens} tokens and one batch needs {batch_size}; give more text.")
    return stream


def _log(tokens: int, n_tokens: int, trainees: Mapping[int, Trainee]) -> Log:
    def by_layer(value: Callable[[Trainee], float]) -> dict[int, float]:
        return {layer: value(trainee) for layer, trainee in trainees.items()}

    return Log(
        tokens,
        n_tokens,
        by_layer(lambda t: t.explained_variance),
        by_layer(lambda t: t.l0),
        by_layer(lambda t: t.dead),
    )


def _kind(stream: Stream, design: Design) -> str:
    """What a checkpoint must agree in: whatever decides the bits of the result."""
    texts = hashlib.sha256(repr([list(row) for row in stream.rows]).encode()).hexdigest()
    facts = [stream.model.hash, texts, stream.layers, stream.batch_size, stream.width, str(stream.dtype)]
    return json.dumps([*facts, torch.get_num_threads(), asdict(design)])


def _tensors(trainees: Mapping[int, Trainee]) -> Iterator[tuple[str, Any]]:
    for layer, trainee in trainees.items():
        for name, value in trainee.state().items():
            yield f"{layer}/{name}", value.contiguous()


def _save(path: Path, kind: str, step: int, trainees: Mapping[int, Trainee]) -> None:
    with write_file(path) as partial:
        save_file(dict(_tensors(trainees)), partial, metadata={"kind": kind, "step": str(step)})


def _restore(path: Path, kind: str, trainees: Mapping[int, Trainee]) -> int:
    """Put the state of a checkpoint in place; returns the steps done."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        if metadata.get("kind") != kind:
            raise ValueError(
                f"{path} is the checkpoint of other training (texts, layers, design, model or threads differ); remove "
                "it, or train into another folder."
            )
        for layer, trainee in trainees.items():
            start = f"{layer}/"
            names = [name for name in file.keys() if name.startswith(start)]  # noqa: SIM118  no mapping
            trainee.restore({name.removeprefix(start): file.get_tensor(name) for name in names})
    return int(metadata["step"])
