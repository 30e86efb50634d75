"""What this machine does best: its device, the precision it multiplies fastest, and how it keeps its memory."""

import ctypes
import os
from functools import cache
from time import perf_counter

import torch


@cache
def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it at least 1.5 times as fast as float32 (measured once), else float32."""
    if device.type == "mps":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    hopeless = _bfloat16_over_float32(128, times=5) < 0.25  # some processors take 300 times as long: no more of that
    return torch.bfloat16 if not hopeless and _bfloat16_over_float32(512, times=40) > 1.5 else torch.float32


def _bfloat16_over_float32(size: int, times: int) -> float:
    """How much faster the processor multiplies: the fastest of so many that other work hardly changes the answer."""
    spent: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(times):
        for dtype, seconds in spent.items():
            a = torch.ones(size, size, dtype=dtype)
            start = perf_counter()
            torch.mm(a, a)
            seconds.append(perf_counter() - start)
    return min(spent[torch.float32]) / min(spent[torch.bfloat16])


@cache
def keep_memory() -> None:
    """Ask glibc to use freed memory again rather than return it to the system after every operation.

    Fetching it back page by page takes a fifth of a forward pass on the processor. Nothing happens with
    another libc.
    """
    no_maps, keep_all, at_a_time = (-4, 0), (-1, 2**31 - 1), (-2, 2**28)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version"):
        for parameter, value in (no_maps, keep_all, at_a_time):
            libc.mallopt(parameter, value)  # pyright: ignore[reportOptionalMemberAccess]


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """A floating-point type by name. Raises ValueError for anything else."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype is {dtype!r}; it must be a floating-point type such as 'bfloat16' or 'float32'.")
    return found


def usable_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the fastest there is."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    usable = [name for name, there in found.items() if there]
    if device is not None and str(device).split(":")[0] not in usable:
        raise ValueError(f"no device {str(device)!r} on this machine; there are {usable}.")
    return torch.device(device if device is not None else usable[0])
