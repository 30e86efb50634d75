"""What training will need of memory, reckoned before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .design import Design
from .stream import ROWS_A_PASS, Stream

GIGABYTE = 2**30
CONTAINER = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes that training needs beside the model."""

    saes: int
    """Weights, gradients and Adam's two moments, in float32."""

    buffer: int
    """The window of activations that is shuffled, and the pass that fills it."""

    step: int
    """One SAE's step: pre-activations of a batch, and the copies of its weights that gradients go through."""

    def __str__(self) -> str:
        parts = {"SAEs and optimiser": self.saes, "buffer": self.buffer, "a step": self.step}
        said = ", ".join(f"{name} {size / GIGABYTE:.2f}" for name, size in parts.items())
        return f"{self.total / GIGABYTE:.2f} GB of memory beside the model ({said})"

    @property
    def total(self) -> int:
        return self.saes + self.buffer + self.step


def needed(stream: Stream, designs: Sequence[Design]) -> Memory:
    """What training these designs on every layer of a stream takes, to within a quarter or so."""
    d_model, bytes_each = stream.model.d_model, stream.dtype.itemsize
    sizes = [2 * d_model * design.d_sae for design in designs]
    longest = max((len(row) for row in stream.rows), default=0)
    a_pass = ROWS_A_PASS * longest * d_model * (len(stream.layers) + 12) * bytes_each
    widest = max(design.d_sae for design in designs)
    dense = 1 if all(design.by_k for design in designs) else 6
    pre_acts = stream.batch_size * widest * (2 * bytes_each if dense == 1 else 4 * dense)
    step = pre_acts + 4 * 4 * max(sizes) + 8 * 4 * stream.batch_size * d_model
    return Memory(
        16 * sum(sizes) * len(stream.layers), stream.width * d_model * len(stream.layers) * bytes_each + a_pass, step
    )


def check(memory: Memory, device: torch.device) -> None:
    """Raises ValueError where a device has not that much free."""
    free = available(device)
    if free is not None and memory.total > free:
        raise ValueError(
            f"training needs {memory} and {device} has {free / GIGABYTE:.2f} GB free; take fewer layers or designs "
            "at a time, a smaller d_sae, batch_size or buffer_tokens."
        )


def available(device: torch.device) -> int | None:
    """Bytes free on a device, the limit of a container respected; None where nothing is known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    import psutil

    limit, used = (_said(CONTAINER / name) for name in ("memory.max", "memory.current"))
    free = psutil.virtual_memory().available
    return free if limit is None else min(free, limit - (used or 0))


def _said(path: Path) -> int | None:
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdecimal() else None
