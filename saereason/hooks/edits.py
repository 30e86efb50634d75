"""Change the residual stream while the model runs, and keep count."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..model import Batch, Model
from ..receipts import Receipt, Recorder
from .passes import attach
from .positions import DECLARED, PositionClock, Positions
from .resuming import Skipped

Rows = Float[Tensor, "row d_model"]

_in_force: ContextVar[tuple["Edit", ...]] = ContextVar("in_force", default=())
_recorders: ContextVar[tuple[Recorder, ...]] = ContextVar("recorders", default=())


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of the residual stream after a block.

    `delta` gets the block's input and output at the visited positions, `[row, d_model]` in float32 (float64 for a
    model in that), and returns what to add to the output.
    """

    layer: int
    name: str
    where: Callable[[Positions], Bool[Tensor, "batch pos"]]
    delta: Callable[[Rows, Rows], Rows]


@contextmanager
def edited(model: Model, edits: Sequence[Edit]) -> Iterator[Recorder]:
    """Within the block, every forward pass applies the edits; those of one layer all see the unedited output."""
    clock, recorder = PositionClock(), Recorder(edits)
    layers = sorted({edit.layer for edit in edits})
    with ExitStack() as stack:
        if edits:
            attach(stack, model.hf.base_model.register_forward_pre_hook(clock.tick, with_kwargs=True))
        for layer in layers:
            hook = _editing([edit for edit in edits if edit.layer == layer], clock, recorder)
            attach(stack, model.blocks[layer].register_forward_hook(hook, with_kwargs=True))
        token = _in_force.set((*_in_force.get(), *edits))
        stack.callback(_in_force.reset, token)
        yield recorder


@contextmanager
def recorded() -> Iterator[Callable[[], Receipt]]:
    """What the edits in force do within the block: call the value for a receipt of it."""
    recorder = Recorder()
    token = _recorders.set((*_recorders.get(), recorder))
    try:
        yield lambda: recorder.receipt
    finally:
        _recorders.reset(token)


def _editing(edits: Sequence[Edit], clock: PositionClock, recorder: Recorder) -> Callable[..., Any]:
    def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        if isinstance(module.forward, Skipped):
            return output
        resid = output[0] if isinstance(output, tuple) else output
        before = args[0] if args else kwargs["hidden_states"]
        at = clock.now
        if at is None:
            raise RuntimeError("a block ran outside the model's forward pass, so its positions are not known.")
        result, exact = resid, torch.promote_types(resid.dtype, torch.float32)
        for edit in edits:
            visited = edit.where(at) & at.valid
            if not visited.any():
                continue
            rows = resid[visited].to(exact)
            delta = edit.delta(before[visited].to(exact), rows)
            result = result.clone() if result is resid else result
            result[visited] = (result[visited].to(exact) + delta).to(result.dtype)
            for each in (recorder, *_recorders.get()):
                each.note(edit, at.position[visited], delta, rows)
        return (result, *output[1:]) if isinstance(output, tuple) else result

    return hook


def spare(batch: Batch) -> bool:
    """True if no edit in force would visit any but the last token of these rows, whose prompts have been declared."""
    declared = DECLARED.get()
    lengths = declared if declared is not None else batch.mask.sum(-1)
    at = Positions(batch.mask.long().cumsum(-1) - 1, batch.mask, lengths.to(batch.mask.device))
    return not any((edit.where(at) & at.valid)[:, :-1].any() for edit in _in_force.get())
