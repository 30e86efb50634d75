"""Train SAEs on every layer asked for, from one forward pass."""

import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import Any, overload

import torch

from saereason.hooks import check_layers
from saereason.machine import fast_dtype
from saereason.model import Model
from saereason.saes import SAE

from . import checkpoint as checkpoints
from .design import Design
from .memory import check, needed
from .sources import as_rows
from .stream import Stream
from .trainee import Trainee

PRECISIONS = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Standing:
    """How one SAE stands after a step."""

    design: int
    """Its place among the designs."""

    layer: int
    loss: float
    """Squared error and penalties, of inputs scaled to a mean norm of √d_model."""

    explained_variance: float
    """Of this batch, as a share of the variance of the first window."""

    l0: float
    dead: float
    """Share of features that have been silent for the design's `dead_after` tokens."""

    tokens_per_second: float
    """Of this SAE's own step."""


@dataclass(frozen=True)
class Log:
    """What `train_saes` reports after every step."""

    step: int
    """Steps done."""

    n_steps: int
    tokens: int
    n_tokens: int
    tokens_per_second: float
    """Of all there is to do, forward passes included, since the report before."""

    saes: tuple[Standing, ...]


@dataclass(frozen=True)
class Plan:
    """What is going to be trained on what: a stream of activations and designs for every one of its layers."""

    stream: Stream
    designs: tuple[Design, ...]

    def __str__(self) -> str:
        stream, n = self.stream, len(self.designs) * len(self.stream.layers)
        tokens = stream.n_steps * stream.batch_size
        place = f"activations in {str(stream.dtype).removeprefix('torch.')}, weights in float32, on {stream.device}"
        return f"{n} SAEs, {tokens:,} tokens; {place}; {needed(stream, self.designs)}"


def plan(
    model: Model,
    texts: Sequence[str] | Sequence[Sequence[int]],
    layers: Sequence[int],
    design: Design | Sequence[Design] = Design(),
    *,
    n_tokens: int | None = None,
    batch_size: int = 512,
    buffer_tokens: int = 32_768,
    left_out: Collection[int] = (),
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> Plan:
    """What `train_saes` does with the same arguments; `needed(plan.stream, plan.designs)` is the memory it takes."""
    check_layers(model, layers)
    designs = (design,) if isinstance(design, Design) else tuple(design)
    if not designs or len(set(designs)) < len(designs):
        raise ValueError(f"there are {len(designs)} designs, {len(set(designs))} of them different; give each once.")
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers are {list(layers)}; give at least one, each once.")
    if not 0 < batch_size <= buffer_tokens:
        raise ValueError(f"batch_size is {batch_size} and buffer_tokens {buffer_tokens}; the buffer must hold a batch.")
    if n_tokens is not None and n_tokens < batch_size:
        raise ValueError(f"n_tokens is {n_tokens} and one batch needs {batch_size}; give more tokens.")
    if dtype not in (None, *PRECISIONS):
        raise ValueError(f"dtype is {dtype}; activations can be in {', '.join(map(str, PRECISIONS))}.")
    stream = Stream(
        model,
        as_rows(model, texts),
        tuple(sorted(layers)),
        dtype or fast_dtype(model.device),
        batch_size,
        buffer_tokens,
        designs[0].seed,
        torch.device(device) if device is not None else model.device,
        frozenset(left_out),
        n_tokens,
    )
    if stream.n_tokens < batch_size:
        raise ValueError(f"the texts have {stream.n_tokens} tokens and one batch needs {batch_size}; give more text.")
    return Plan(stream, designs)


@overload
def train_saes(
    model: Model, texts: Any, layers: Sequence[int], design: Design = ..., **options: Any
) -> dict[int, SAE]: ...


@overload
def train_saes(
    model: Model, texts: Any, layers: Sequence[int], design: Sequence[Design], **options: Any
) -> tuple[dict[int, SAE], ...]: ...


def train_saes(  # pyright: ignore[reportInconsistentOverload]  the options are spelt out here
    model: Model,
    texts: Sequence[str] | Sequence[Sequence[int]],
    layers: Sequence[int],
    design: Design | Sequence[Design] = Design(),
    *,
    n_tokens: int | None = None,
    batch_size: int = 512,
    buffer_tokens: int = 32_768,
    left_out: Collection[int] = (),
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 200_000,
    progress: Callable[[Log], None] = lambda log: None,
) -> dict[int, SAE] | tuple[dict[int, SAE], ...]:
    """SAEs (SAELens's classes) of some layers' residual streams, trained on texts or on rows of token ids.

    Several designs (seeds, widths, controls) train on the same activations in one pass, and come back in their order.
    Training goes once through the texts, or to `n_tokens`, as often through them as that takes. Left out are each row's
    first token and the token ids `left_out` (`model.tokenizer.all_special_ids`, say). `dtype` is the precision of the
    buffer and of the encoder's products (bfloat16 where the device is fast at it), weights and updates are float32;
    `device` is where the SAEs live. They read and write the residual stream's own units, with decoder rows of norm 1;
    their metadata records the model's hash and the design.

    With `checkpoint`, a file, the state is kept there every `checkpoint_every` tokens and on Ctrl-C: training that was
    cut short goes on from it and ends with the bits of training that was not. The file stays: remove it once the SAEs
    are saved. Raises ValueError for layers that are not
    there, too few tokens, more memory than there is, or a checkpoint of other training.
    """
    sizes = {"n_tokens": n_tokens, "batch_size": batch_size, "buffer_tokens": buffer_tokens}
    planned = plan(model, texts, layers, design, **sizes, left_out=left_out, dtype=dtype, device=device)
    stream, designs = planned.stream, planned.designs
    check(needed(stream, designs), stream.device)
    if checkpoint is not None and checkpoint.is_dir():
        raise ValueError(f"{checkpoint} is a folder; give the name of a file for the checkpoint.")
    trainees = {
        (n, layer): Trainee(model, layer, each, stream.device)
        for n, each in enumerate(designs)
        for layer in stream.layers
    }
    _train(stream, trainees, designs, checkpoint, checkpoint_every, progress)
    facts = _facts(stream)
    saes = tuple(
        {
            layer: trainees[n, layer].finish({**facts, "seed": each.seed, "design": asdict(each)})
            for layer in stream.layers
        }
        for n, each in enumerate(designs)
    )
    return saes[0] if isinstance(design, Design) else saes


def pace(step: int, n_steps: int) -> float:
    """Share of the learning rate: linear warm-up over the first 5% of steps, linear decay over the last 30%."""
    share = step / n_steps
    return min(1.0, (share + 1 / n_steps) / 0.05, max(0.01, (1 - share) / 0.30))


def _train(
    stream: Stream,
    trainees: checkpoints.Trainees,
    designs: Sequence[Design],
    checkpoint: Path | None,
    every: int,
    progress: Callable[[Log], None],
) -> None:
    """Every step from the checkpoint's on, or from the first."""
    described, start = checkpoints.kind(stream, designs) if checkpoint is not None else "", 0
    if checkpoint is not None and checkpoint.is_file():
        start = checkpoints.restore(checkpoint, described, trainees)
        windows = stream.windows(start // stream.steps_a_window)
    else:
        windows = stream.windows()
        number, first = next(windows)
        for (_, layer), trainee in trainees.items():
            trainee.look(first[layer])
        windows = chain([(number, first)], windows)
    saved, began, n_tokens = start, perf_counter(), stream.n_steps * stream.batch_size
    with _patient() as asked:
        for step, batch in enumerate(stream.batches(start, windows), start):
            standing = [
                _step(n, trainee, batch[layer], step, stream.n_steps) for (n, layer), trainee in trainees.items()
            ]
            rate, began = stream.batch_size / (perf_counter() - began), perf_counter()
            tokens = (step + 1) * stream.batch_size
            progress(Log(step + 1, stream.n_steps, tokens, n_tokens, rate, tuple(standing)))
            due = (step + 1 - saved) * stream.batch_size >= every
            if checkpoint is not None and (due or asked()):
                saved = step + 1
                checkpoints.save(checkpoint, described, saved, trainees)
            if asked():
                raise KeyboardInterrupt
    if checkpoint is not None and saved < stream.n_steps:
        checkpoints.save(checkpoint, described, stream.n_steps, trainees)


def _step(n: int, trainee: Trainee, batch: torch.Tensor, step: int, n_steps: int) -> Standing:
    start = perf_counter()
    trainee.step(batch, pace(step, n_steps), step / n_steps)
    rate = len(batch) / (perf_counter() - start)
    return Standing(
        n, trainee.layer, trainee.loss, trainee.explained_variance, trainee.l0, trainee.dead, tokens_per_second=rate
    )


@contextmanager
def _patient() -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C waits for the step to end: the value says whether it has come."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    usual = signal.getsignal(signal.SIGINT)

    def wait(number: int, frame: Any) -> None:  # noqa: ARG001
        asked.append(number)
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, wait)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, usual)


def _facts(stream: Stream) -> dict[str, Any]:
    """What an SAE's metadata says of its training."""
    model, bos = stream.model, stream.model.tokenizer.bos_token_id
    starts = [row[0] for row in stream.rows if len(row) > 1]
    return {
        "n_tokens": stream.n_steps * stream.batch_size,
        "model_name": model.name,
        "model_hash": model.hash,
        "prepend_bos": bos is not None and 2 * sum(token == bos for token in starts) > len(starts),
        "context_size": max(map(len, stream.rows)),
        "precision": str(stream.dtype).removeprefix("torch."),
        "batch_size": stream.batch_size,
    }
