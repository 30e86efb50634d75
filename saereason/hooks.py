"""Read and edit the residual stream, and resume from it; the only file that registers a hook on a model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .model import Batch, Model
from .receipts import Receipt, Recorder

Resid = Float[Tensor, "batch pos d_model"]
Rows = Float[Tensor, "row d_model"]

_declared: ContextVar["Prompts | None"] = ContextVar("declared", default=None)
_in_force: ContextVar[tuple["Edit", ...]] = ContextVar("in_force", default=())
_recorders: ContextVar[tuple[Recorder, ...]] = ContextVar("recorders", default=())


@dataclass(frozen=True, eq=False)
class Positions:
    """Where each token of one forward pass stands in its row, whatever the padding and the cache."""

    position: Int[Tensor, "batch pos"]
    """Absolute, from 0 at the row's first token."""

    valid: Bool[Tensor, "batch pos"]
    """False on padding."""

    prompt_length: Int[Tensor, "batch"] | None
    """Tokens of each row's prompt; None if nobody said and the pass alone cannot tell."""

    @property
    def step(self) -> Int[Tensor, "batch pos"]:
        """Decoding step: 0 at the first generated token, -1 at the last token of the prompt."""
        if self.prompt_length is None:
            raise ValueError(
                "cannot tell where the prompt ends in this forward pass (generation without a key-value cache, or a "
                "cache filled elsewhere or in chunks); use saereason's generate, or wrap the call in "
                "hooks.prompts(lengths)."
            )
        return self.position - self.prompt_length[:, None]


@dataclass(frozen=True, eq=False)
class Prompts:
    """What a caller declares of the rows it is about to run."""

    lengths: Int[Tensor, "batch"]
    over: Bool[Tensor, "batch"] | None


class PositionClock:
    """Follows a model's forward passes and says where in its row every token stands.

    A pass without a filled cache starts anew, and all it holds is prompt unless `prompts` says otherwise; a pass of
    one token on a filled cache goes on where the last one ended.
    """

    def __init__(self) -> None:
        self.now: Positions | None = None
        self._tokens: Tensor | None = None
        self._mask: Tensor | None = None

    def tick(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:  # noqa: ARG002
        tokens = kwargs.get("input_ids", args[0] if args else None)
        given = tokens if tokens is not None else kwargs["inputs_embeds"]
        batch, width = given.shape[:2]
        cache = kwargs.get("past_key_values")
        n_past = int(cache.get_seq_length()) if cache is not None else 0
        mask = kwargs.get("attention_mask")
        if mask is None:
            mask = torch.ones(batch, n_past + width, dtype=torch.bool, device=given.device)
        if not torch.is_tensor(mask) or mask.shape != (batch, n_past + width):
            shape = tuple(mask.shape) if torch.is_tensor(mask) else type(mask).__name__
            raise ValueError(
                f"the attention mask is {shape} and the pass reaches token {n_past + width} in {batch} rows; "
                "give a mask of shape [batch, tokens so far]."
            )
        mask = mask.bool()
        prompt_length = self._prompt_length(mask, n_past, tokens)
        position, valid = (mask.long().cumsum(-1) - 1)[:, n_past:], mask[:, n_past:]
        declared = _declared.get()
        if declared is not None and declared.over is not None:
            valid = valid & ~declared.over.to(mask.device)[:, None]
        self.now = Positions(position, valid, prompt_length)
        self._tokens, self._mask = tokens if n_past == 0 else None, mask

    def _prompt_length(self, mask: Tensor, n_past: int, tokens: Tensor | None) -> Tensor | None:
        declared = _declared.get()
        if declared is not None:
            lengths = declared.lengths
            if len(lengths) != len(mask):
                raise ValueError(f"{len(lengths)} prompt lengths were declared for a batch of {len(mask)} rows.")
            return lengths.to(mask.device)
        if n_past == 0:
            return None if self._goes_on(tokens) else mask.sum(-1)
        if self.now is None or self._mask is None or mask.shape[1] != n_past + 1:
            return None
        return self.now.prompt_length if torch.equal(mask[:, :n_past], self._mask) else None

    def _goes_on(self, tokens: Tensor | None) -> bool:
        """True if these are the last pass's rows, in any order, with a token more: generation without a cache."""
        last = self._tokens
        if last is None or tokens is None or tokens.shape != (len(last), last.shape[1] + 1):
            return False
        return bool((tokens[:, None, :-1] == last).all(-1).any(-1).all())


@contextmanager
def prompts(lengths: Int[Tensor, "batch"], over: Bool[Tensor, "batch"] | None = None) -> Iterator[None]:
    """Within the block, the first `lengths[row]` tokens of each row are its prompt and the rest is generated.

    Edits do not visit a row that is `over`; whoever generates sets this in place as rows end.
    """
    token = _declared.set(Prompts(lengths, over))
    try:
        yield
    finally:
        _declared.reset(token)


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
            _hook(stack, model.hf.base_model.register_forward_pre_hook(clock.tick, with_kwargs=True))
        for layer in layers:
            hook = _editing([edit for edit in edits if edit.layer == layer], clock, recorder)
            _hook(stack, model.blocks[layer].register_forward_hook(hook, with_kwargs=True))
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
        if isinstance(module.forward, _Skipped):
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


@torch.no_grad()
def read(model: Model, batch: Batch, layers: Sequence[int]) -> dict[int, Resid]:
    """The residual stream after some blocks, `[batch, pos, d_model]` each.

    One forward pass, which ends after the last block asked for and never reaches the LM head.
    """
    if not layers:
        return {}
    with ExitStack() as stack:
        found = stack.enter_context(reading(model, layers))
        _hook(stack, model.blocks[max(layers)].register_forward_hook(_enough))
        stack.enter_context(suppress(_EnoughError))
        run(model, batch, use_cache=False)
    return {layer: found[layer] for layer in layers}


@contextmanager
def reading(model: Model, layers: Sequence[int]) -> Iterator[dict[int, Resid]]:
    """Within the block, each forward pass leaves the residual stream after these blocks in the dictionary."""
    check_layers(model, layers)
    found: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Any) -> None:  # noqa: ARG001
            if isinstance(module.forward, _Skipped) and module.forward.resid is None:
                raise ValueError(
                    f"a pass resumed after a later layer has nothing to read at layer {layer}; read before."
                )
            found[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    with ExitStack() as stack:
        for layer in set(layers):
            _hook(stack, model.blocks[layer].register_forward_hook(keep(layer)))
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
            _hook(stack, model.blocks[layer].register_forward_hook(keep(layer)))
        yield found


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
            _replace_forward(stack, block, _Skipped(resid if n == layer else None, in_tuples))
        yield


@dataclass(frozen=True, eq=False)
class _Skipped:
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
        raise _EnoughError

    with ExitStack() as stack, torch.no_grad():
        _replace_forward(stack, block, first)
        stack.enter_context(suppress(_EnoughError))
        tokens = torch.zeros(1, 1, dtype=torch.long, device=model.device)
        model.hf.base_model.forward(input_ids=tokens, use_cache=False)  # not its call, which hooks attend
    return isinstance(found[0], tuple)


def _replace_forward(stack: ExitStack, block: Any, forward: Callable[..., Any]) -> None:
    own = vars(block)  # not setattr, which a TransformerBridge hands on to the block beneath
    before = own.get("forward")
    own["forward"] = forward
    stack.callback(own.pop, "forward") if before is None else stack.callback(own.update, forward=before)


def run(model: Model, batch: Batch, **options: Any) -> Any:
    """One forward pass of the plain Hugging Face model, with positions counted from each row's first token."""
    mask = batch.mask.long()
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    with lean_head(model):
        return model.hf(input_ids=batch.tokens, attention_mask=mask, position_ids=position, **options)


@contextmanager
def lean_head(model: Model) -> Iterator[None]:
    """Within the block the LM head gets contiguous rows; torch else copies its weights for every row of a batch."""

    def gathered(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001
        return (args[0].contiguous(), *args[1:]) if args else args

    with ExitStack() as stack:
        head = model.hf.get_output_embeddings()
        if head is not None:
            _hook(stack, head.register_forward_pre_hook(gathered))
        yield


def spare(batch: Batch) -> bool:
    """True if no edit in force would visit any but the last token of these rows, whose prompts have been declared."""
    declared = _declared.get()
    lengths = declared.lengths if declared is not None else batch.mask.sum(-1)
    at = Positions(batch.mask.long().cumsum(-1) - 1, batch.mask, lengths.to(batch.mask.device))
    return not any((edit.where(at) & at.valid)[:, :-1].any() for edit in _in_force.get())


def check_layers(model: Model, layers: Sequence[int]) -> None:
    """Raises ValueError for a layer the model does not have."""
    wrong = sorted({layer for layer in layers if not 0 <= layer < model.n_layers})
    if wrong:
        raise ValueError(
            f"{model.name} has no layer {wrong[0]}; its layers are 0 to {model.n_layers - 1}, counted from 0."
        )


class _EnoughError(Exception):
    """Ends a forward pass whose remaining blocks nobody needs."""


def _enough(*passed: Any) -> None:  # noqa: ARG001
    raise _EnoughError


def _hook(stack: ExitStack, handle: Any) -> None:
    stack.callback(handle.remove)
