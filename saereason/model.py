"""A causal language model with its tokenizer, and texts as it reads them."""

import copy
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

INCIDENTAL = {
    "architectures",
    "attn_implementation",
    "chunk_size_feed_forward",
    "dtype",
    "quantization_config",
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Settings that say nothing of what a model computes."""

UNBOUNDED = 1 << 20
"""Tokens of a sequence to which neither model nor tokenizer sets an end."""


@dataclass(frozen=True)
class Rendered:
    """A prompt as the model reads it, and how it was made, for the record."""

    text: str
    chat: bool
    system: str | None


@dataclass(frozen=True, eq=False)
class Batch:
    """Token ids with the mask of what is not padding."""

    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]


@dataclass(frozen=True, eq=False)
class Model:
    """A Hugging Face causal language model with its tokenizer; it has no forward pass of its own.

    `hf` is in evaluation mode; `name` says what was loaded; `adapter` names the adapter merged into it, if any.
    """

    hf: Any
    tokenizer: Any
    name: str
    adapter: str | None = None

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        return self._text_config.hidden_size

    @property
    def d_vocab(self) -> int:
        return self._text_config.vocab_size

    @property
    def n_ctx(self) -> int:
        """Longest sequence, in tokens, that the model was built for, or else its tokenizer."""
        built = getattr(self._text_config, "max_position_embeddings", None)
        return built or min(self.tokenizer.model_max_length, UNBOUNDED)

    @property
    def pad_token(self) -> int:
        """Token id to pad with: the tokenizer's, or 0 where it has none (padding is masked out)."""
        token = self.tokenizer.pad_token_id
        return 0 if token is None else token

    @property
    def device(self) -> torch.device:
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.hf.parameters()).dtype

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, in order, whatever the family calls them."""
        n = self._text_config.num_hidden_layers
        lists = [m for m in self.hf.modules() if isinstance(m, nn.ModuleList) and len(m) == n]
        if not lists:
            raise ValueError(
                f"found no list of {n} blocks in a {type(self.hf).__name__}; give a causal language model."
            )
        return lists[0]

    @cached_property
    def final_norm(self) -> nn.Module | None:
        """What the residual stream passes between the last block and the unembedding; None in a model without."""
        holder = next(m for m in self.hf.modules() if any(child is self.blocks for child in m.children()))
        norms = [child for child in holder.children() if "Norm" in type(child).__name__]
        return norms[-1] if norms else None

    @property
    def _text_config(self) -> Any:
        return self.hf.config.get_text_config()

    @property
    def weights(self) -> tuple[tuple[int, int], ...]:
        """Where each weight is and how often it was changed in place: equal to an earlier one if nothing was since.

        Changes through `weight.data` are not counted.
        """
        return tuple((w.data_ptr(), -1 if w.is_inference() else w._version) for w in self.hf.parameters())

    @property
    def hash(self) -> str:
        """SHA-256 of the architecture's settings and the weights, with quantisation and a merged adapter.

        Weights are rounded to bfloat16, so that the precision they were loaded in does not matter; nor do differences
        below that, by which two models of one hash may differ. It is computed again once weights were changed.
        """
        now = self.weights
        if now not in self._hashes:
            self._hashes.clear()
            self._hashes[now] = self._hashed()
        return self._hashes[now]

    @cached_property
    def _hashes(self) -> dict[tuple[tuple[int, int], ...], str]:
        return {}

    def _hashed(self) -> str:
        said = {key: value for key, value in self._text_config.to_dict().items() if not _is_incidental(key)}
        digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
        for name, weight in sorted(_plain_names(self.hf)):
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
        return digest.hexdigest()[:16]

    def render(self, prompt: str, system: str | None = None, chat: bool | None = None) -> Rendered:
        """The prompt in the model's chat format, ready for an answer.

        `chat=None` uses the chat format where the tokenizer has one; `system=None` leaves the system message to the
        template. Raises ValueError for an empty prompt, or `chat=True` without a template.
        """
        if not prompt.strip():
            raise ValueError("the prompt is empty; give at least one word.")
        has_template = getattr(self.tokenizer, "chat_template", None) is not None
        if chat is None:
            chat = has_template
        if not chat:
            if system is not None:
                raise ValueError("a system message needs the chat format; leave `system` out, or use chat=True.")
            return Rendered(prompt, False, None)
        if not has_template:
            raise ValueError(f"the tokenizer of {self.name} has no chat template; use chat=False.")
        messages = [{"role": "user", "content": prompt}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return Rendered(text, True, system)

    def encode(self, prompt: str | Rendered, *, most: int | None = None) -> list[int]:
        """Token ids of one text: special tokens are added unless the chat format has put them there.

        `most` cuts a text after so many tokens, however long it is. Raises ValueError for a text longer than the
        model's context.
        """
        chat = isinstance(prompt, Rendered) and prompt.chat
        text = prompt.text if isinstance(prompt, Rendered) else prompt
        ids = self.tokenizer(text, add_special_tokens=not chat, verbose=False)["input_ids"]
        if not text or not ids:
            raise ValueError("the prompt has no tokens; give at least one word.")
        ids = ids if most is None else ids[: min(most, self.n_ctx - 1)]
        if len(ids) >= self.n_ctx:
            raise ValueError(
                f"the prompt has {len(ids)} tokens and the model's context is {self.n_ctx}; shorten the prompt."
            )
        return ids

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Raises ValueError for token ids that the model does not have."""
        wrong = next((token for token in tokens if not 0 <= token < self.d_vocab), None)
        if wrong is not None:
            raise ValueError(f"there is no token {wrong}; the tokens of {self.name} are 0 to {self.d_vocab - 1}.")

    def fits(self, *texts: str, spare: int = 0) -> bool:
        """True if the texts together, and so many tokens more, fit into the context."""
        return sum(len(self.tokenizer(text, verbose=False)["input_ids"]) for text in texts) + spare < self.n_ctx

    @property
    def special_tokens(self) -> dict[str, int]:
        """Ids of the tokens that no decoded text shows, by what they are called."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        found = {str(token): n for n, token in added.items() if token.special}
        return found | dict(zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True))

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def token_text(self, token: int) -> str:
        """One token by itself: a special one by its name, and with the space that a SentencePiece token begins with."""
        said = self.tokenizer.decode([token], skip_special_tokens=False)
        piece = self.tokenizer.convert_ids_to_tokens(token)
        lost = isinstance(piece, str) and piece.startswith("▁") and not said.startswith((" ", "▁"))
        return f" {said}" if lost else said

    def bridge(self) -> Any:
        """A TransformerLens `TransformerBridge` over a copy of these weights (it rewrites the model it is given)."""
        from transformer_lens.model_bridge import TransformerBridge

        if _is_bridged(self.hf):
            raise ValueError("this model came out of a TransformerBridge; use that bridge.")
        hf, tokenizer = copy.deepcopy((self.hf, self.tokenizer))
        hf.config.architectures = [type(hf).__name__]
        # else TransformerLens loads the tokenizer anew, so that it begins every text with a special token
        tokenizer.init_kwargs |= {"name_or_path": self.name, "add_bos_token": True}
        return TransformerBridge.boot_transformers(
            hf.config._name_or_path or self.name, hf_model=hf, tokenizer=tokenizer, dtype=self.dtype
        )


def pad(rows: Sequence[Sequence[int]], *, pad_token: int, side: str = "left", device: Any = "cpu") -> Batch:
    """Rows of token ids as one tensor, shape `[batch, longest]`."""
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), pad_token)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for n, row in enumerate(rows):
        where = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        tokens[n, where] = torch.tensor(row, dtype=torch.long)
        mask[n, where] = True
    return Batch(tokens.to(device), mask.to(device))


def _is_incidental(key: str) -> bool:
    """True for a setting that does not change what the model computes, or that a library notes for itself."""
    return key.startswith(("_", "output_")) or key in INCIDENTAL


def _is_bridged(hf: Any) -> bool:
    return any("_original_component" in name for name, _ in hf.named_parameters())


def _plain_names(hf: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters by their Hugging Face names, also where a TransformerBridge has renamed them.

    Biases of zero are left out: a TransformerBridge adds one to the LM head.
    """
    for name, weight in hf.named_parameters():
        if not name.endswith("bias") or weight.any():
            yield name.replace("._original_component", ""), weight
