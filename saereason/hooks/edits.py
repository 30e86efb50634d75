"""Change the residual stream while the model runs, and keep count."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..model import Batch, Model
from ..receipts import Receipt, Recorder
from .passes import attach, hooks_on
from .positions import DECLARED, PositionClock, Positions
from .resuming import Skipped

Rows = Float[Tensor, "row d_model"]

_in_force: ContextVar[tuple["Edit", ...]] = ContextVar("in_force", default=())
_recorders: ContextVar[tuple[Recorder, ...]] = ContextVar("recorders", default=())


@dataclass(frozen=True, eq=False)
class Visit:
    """The positions of one pass that an edit visits, one a row of each tensor."""

    before: Rows
    """The block's input, in float32 (float64 for a model in that)."""

    resid: Rows
    """The block's output, likewise."""

    row: Int[Tensor, "row"]
    """Which row of the batch, or which prompt of `generate`."""

    position: Int[Tensor, "row"]
    """Absolute, from 0 at the row's first token."""


@dataclass(frozen=True, eq=False)
class Edit:
    """One change of the residual stream after a block."""

    layer: int
    name: str

    where: Callable[[Positions], Bool[Tensor, "batch pos"] | Float[Tensor, "batch pos"]]
    """Which positions to visit; as numbers, with what share of the change."""

    delta: Callable[[Visit], Rows]
    """What to add to the block's output."""

    keep_norm: bool = False
    """Whether what comes of it, the share taken, is scaled to the norm that the block's output had."""

    reads: frozenset[int] = frozenset()
    """Layers, this one or earlier, whose residual stream `where` looks at."""

    about: Callable[[], Any] | None = None
    """Gives all that tells it from other edits, as values; None where nothing does."""


@contextmanager
def edited(model: Model, edits: Sequence[Edit]) -> Iterator[Recorder]:
    """Within the block, every forward pass applies the edits; those of one layer all see the unedited output."""
    clock, recorder = PositionClock(), Recorder(edits)
    layers = sorted({layer for edit in edits for layer in (edit.layer, *edit.reads)})
    read = {layer for edit in edits for layer in edit.reads}
    with ExitStack() as stack:
        if edits:
            attach(stack, model.hf.base_model.register_forward_pre_hook(clock.tick, with_kwargs=True))
        for layer in layers:
            of_layer = [edit for edit in edits if edit.layer == layer]
            hook = _editing(of_layer, clock, recorder, keep=layer if layer in read else None)
            attach(stack, model.blocks[layer].register_forward_hook(hook, with_kwargs=True))
        token = _in_force.set((*_in_force.get(), *edits))
        stack.callback(_in_force.reset, token)
        yield recorder


def in_force() -> tuple[Edit, ...]:
    """The edits in force, from the outermost block in."""
    return _in_force.get()


@contextmanager
def recorded() -> Iterator[Callable[[], Receipt]]:
    """What the edits in force do within the block: call the value for a receipt of it, a line for each."""
    recorder = Recorder(_in_force.get())
    token = _recorders.set((*_recorders.get(), recorder))
    try:
        yield lambda: recorder.receipt
    finally:
        _recorders.reset(token)


def _editing(
    edits: Sequence[Edit], clock: PositionClock, recorder: Recorder, *, keep: int | None
) -> Callable[..., Any]:
    """A hook that applies the edits of one layer, once it has kept the unedited output under the number `keep`."""

    def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        if isinstance(module.forward, Skipped):
            return output
        resid = output[0] if isinstance(output, tuple) else output
        before = args[0] if args else kwargs["hidden_states"]
        at = clock.now
        if at is None:
            raise RuntimeError("a block ran outside the model's forward pass, so its positions are not known.")
        if keep is not None:
            at.resid[keep] = resid
        result = resid
        for edit in edits:
            result = _apply(edit, at, before, resid, result, (recorder, *_recorders.get()))
        return (result, *output[1:]) if isinstance(output, tuple) else result

    return hook


def _apply(
    edit: Edit, at: Positions, before: Tensor, resid: Tensor, result: Tensor, recorders: Sequence[Recorder]
) -> Tensor:
    """`result`, to which other edits may have added, with one more edit of `resid` on it."""
    share = edit.where(at) * at.valid
    visited = share.bool()
    if not visited.any():
        return result
    exact = torch.promote_types(resid.dtype, torch.float32)
    batch_row = at.row[:, None].expand_as(visited)
    visit = Visit(before[visited].to(exact), resid[visited].to(exact), batch_row[visited], at.position[visited])
    delta = edit.delta(visit)
    if share.is_floating_point():
        delta = delta * share[visited].to(delta)[:, None]
    if edit.keep_norm:
        delta = _at_norm(visit.resid, delta)
    result = result.clone() if result is resid else result
    result[visited] = (result[visited].to(exact) + delta).to(result.dtype)
    for recorder in recorders:
        recorder.note(edit, visit.row, visit.position, delta, visit.resid)
    return result


def _at_norm(resid: Rows, delta: Rows) -> Rows:
    """The change that also brings the result back to the norm of what was there."""
    moved = resid + delta
    size = resid.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return moved * size - resid


def only_edited(model: Model) -> bool:
    """True if nothing is hooked on the model but edits, and no pass of it is resumed."""
    ours = (__name__, PositionClock.__module__)
    resumed = any(isinstance(block.forward, Skipped) for block in model.blocks)
    return not resumed and all(getattr(hook, "__module__", "") in ours for hook in hooks_on(model))


def spare(batch: Batch, n: int | None = None) -> bool:
    """True if no edit in force would visit the first `n` tokens of these rows (without `n`, any but their last).

    Their prompts have been declared.
    """
    edits, declared, mask = _in_force.get(), DECLARED.get(), batch.mask
    if any(edit.reads for edit in edits):
        return False
    position = mask.long().cumsum(-1) - 1
    lengths = mask.sum(-1) if declared is None else declared.lengths.to(mask.device)
    row = torch.arange(len(mask)) if declared is None or declared.rows is None else declared.rows
    at = Positions(position, mask, lengths, row.to(mask.device), batch.tokens)
    within = mask & (position < (mask.sum(-1)[:, None] - 1 if n is None else n))
    return not any((edit.where(at).bool() & within).any() for edit in edits)
