"""One forward pass, and hooks that go with the block that registered them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from ..model import Batch, Model

Resid = Float[Tensor, "batch pos d_model"]


def run(
    model: Model, batch: Batch, cache: Any = None, *, heads: Bool[Tensor, "batch kept"] | None = None, **options: Any
) -> Any:
    """One forward pass of the plain Hugging Face model, with positions counted from each row's first token.

    Tokens whose keys and values the cache holds are not run again. With `heads` the LM head runs at these positions
    alone, of those kept by `logits_to_keep`; the logits are then `[1, position, d_vocab]`, row by row.
    """
    mask, n_past = batch.mask.long(), 0 if cache is None else int(cache.get_seq_length())
    position = (mask.cumsum(-1) - 1).clamp(min=0)[:, n_past:]
    with _lean_head(model, heads):
        return model.hf(
            input_ids=batch.tokens[:, n_past:],
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            **options,
        )


@contextmanager
def _lean_head(model: Model, heads: Tensor | None) -> Iterator[None]:
    """Within the block the LM head gets contiguous rows; torch else copies its weights for every row of a batch."""

    def gathered(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001
        if not args:
            return args
        return (args[0].contiguous() if heads is None else args[0][heads][None], *args[1:])

    with ExitStack() as stack:
        head = model.hf.get_output_embeddings()
        if head is not None:
            attach(stack, head.register_forward_pre_hook(gathered))
        yield


@contextmanager
def changed(module: Any, change: Callable[[Any], Any]) -> Iterator[None]:
    """Within the block, a module gives what `change` makes of its output."""
    with ExitStack() as stack:
        attach(stack, module.register_forward_hook(lambda module, args, output: change(output)))
        yield


def hooked(model: Model) -> bool:
    """True if anything is hooked on a module of the model, by whomever but transformers, which only takes notes."""
    return bool(hooks_on(model))


def hooks_on(model: Model) -> list[Any]:
    """What is hooked on its modules, but by transformers."""
    there = [(*module._forward_hooks.values(), *module._forward_pre_hooks.values()) for module in model.hf.modules()]
    found = [hook for each in there for hook in each]
    return [hook for hook in found if not str(getattr(hook, "__module__", "")).startswith("transformers.")]


def check_layers(model: Model, layers: Sequence[int]) -> None:
    """Raises ValueError for a layer the model does not have."""
    wrong = sorted({layer for layer in layers if not 0 <= layer < model.n_layers})
    if wrong:
        raise ValueError(
            f"{model.name} has no layer {wrong[0]}; its layers are 0 to {model.n_layers - 1}, counted from 0."
        )


class EnoughError(Exception):
    """Ends a forward pass whose remaining blocks nobody needs."""


def enough(*passed: Any) -> None:  # noqa: ARG001
    raise EnoughError


def attach(stack: ExitStack, handle: Any) -> None:
    stack.callback(handle.remove)
