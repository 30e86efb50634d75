"""Read the residual stream, with gradients or without."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from ..model import Batch, Model
from .passes import EnoughError, Resid, attach, check_layers, enough, run
from .resuming import Skipped


@torch.no_grad()
def read(
    model: Model, batch: Batch, layers: Sequence[int], at: Tensor | None = None, cache: Any = None
) -> dict[int, Tensor]:
    """The residual stream after some blocks, `[batch, pos, d_model]` each; `[token, d_model]` with `at`, a mask of
    tokens, of which alone it is then kept.

    One forward pass, which ends after the last block asked for and never reaches the LM head. Of tokens whose keys and
    values the `cache` holds nothing is read.
    """
    if not layers:
        return {}
    with ExitStack() as stack:
        found = stack.enter_context(reading(model, layers, at))
        attach(stack, model.blocks[max(layers)].register_forward_hook(enough))
        stack.enter_context(suppress(EnoughError))
        run(model, batch, cache, use_cache=cache is not None)
    return {layer: found[layer] for layer in layers}


@contextmanager
def reading(model: Model, layers: Sequence[int], at: Tensor | None = None) -> Iterator[dict[int, Tensor]]:
    """Within the block, each forward pass leaves the residual stream after these blocks in the dictionary, that of all
    tokens or of those of a mask.
    """
    check_layers(model, layers)
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:  # noqa: ARG001
            if isinstance(module.forward, Skipped) and module.forward.resid is None:
                raise ValueError(
                    f"a pass resumed after a later layer has nothing to read at layer {layer}; read before."
                )
            resid = output[0] if isinstance(output, tuple) else output
            found[layer] = resid if at is None else resid[at]

        return hook

    with ExitStack() as stack:
        for layer in set(layers):
            attach(stack, model.blocks[layer].register_forward_hook(keep(layer)))
        yield found


@contextmanager
def traced(model: Model, layers: Sequence[int]) -> Iterator[dict[int, Resid]]:
    """As `reading`, with gradients: once what the pass gives is taken backward, each residual stream has its `.grad`.

    The graph begins after the first of the layers, so the model's weights and the blocks before cost nothing.
    """
    check_layers(model, layers)
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., Any]:
        def hook(module: Any, args: Any, output: Any) -> Any:  # noqa: ARG001
            resid = output[0] if isinstance(output, tuple) else output
            if layer == min(layers):
                resid = resid.detach().requires_grad_()
            resid.retain_grad()
            found[layer] = resid
            return (resid, *output[1:]) if isinstance(output, tuple) else resid

        return hook

    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        for layer in set(layers):
            attach(stack, model.blocks[layer].register_forward_hook(keep(layer)))
        yield found
