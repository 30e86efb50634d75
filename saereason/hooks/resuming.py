"""Resume a forward pass after a block, from a residual stream of one's own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model import Model
from .passes import EnoughError, Resid, check_layers


@contextmanager
def resumed(model: Model, layer: int, resid: Resid) -> Iterator[None]:
    """Within the block, a pass resumes after block `layer`, which gives `resid`; it and the blocks before do no work.

    Give the residual stream as `read` returns it, changed or not: the logits are those of the full pass, to the bit.
    Edits of these blocks are not applied (again): what `resid` was read under, it holds. Raises ValueError for a layer
    that is not there, and where a pass is not of `resid`'s shape, as a step on a key-value cache.
    """
    check_layers(model, [layer])
    in_tuples = _gives_tuples(model)
    with ExitStack() as stack:
        for n, block in enumerate(model.blocks[: layer + 1]):
            _replace_forward(stack, block, Skipped(resid if n == layer else None, in_tuples))
        yield


@dataclass(frozen=True, eq=False)
class Skipped:
    """The forward of a block that does no work: it passes its input on, or gives `resid` in its place."""

    resid: Tensor | None
    in_tuples: bool

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs["hidden_states"]
        if self.resid is not None and self.resid.shape != given.shape:
            raise ValueError(
                f"the residual stream to resume from is {tuple(self.resid.shape)} and the pass {tuple(given.shape)}; "
                "run the rows it was read from, without a key-value cache."
            )
        output = given if self.resid is None else self.resid.to(given)
        return (output,) if self.in_tuples else output


def _gives_tuples(model: Model) -> bool:
    """True for the families whose blocks answer with a tuple: one token, run through the first block, tells."""
    block, found = model.blocks[0], []

    def first(*args: Any, **kwargs: Any) -> None:
        found.append(type(block).forward(block, *args, **kwargs))
        raise EnoughError

    with ExitStack() as stack, torch.no_grad():
        _replace_forward(stack, block, first)
        stack.enter_context(suppress(EnoughError))
        tokens = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        model.hf.base_model.forward(input_ids=tokens, use_cache=False)  # not its call, which hooks attend
    return isinstance(found[0], tuple)


def _replace_forward(stack: ExitStack, block: Any, forward: Callable[..., Any]) -> None:
    own = vars(block)  # not setattr, which a TransformerBridge hands on to the block beneath
    before = own.get("forward")
    own["forward"] = forward
    stack.callback(own.pop, "forward") if before is None else stack.callback(own.update, forward=before)
