"""SAEs on disk: folders of three formats and packs are read, SAELens's own folders are written."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..loading import cache_folder
from ..runs import write_folder
from .formats import MARKS, UnfitError, read_folder
from .pack import PACKS, unpack
from .sae import SAE, layer_of

PICKLES = (".pt", ".pth", ".pkl", ".bin")


def load_saes(path: str | Path, *, device: str | torch.device = "cpu") -> dict[int, SAE]:
    """Every SAE under a folder, by layer, in float32; or those of a pack, by its name or file.

    The folders may be SAELens's, sparsify's or dictionary_learning's, and lie up to two levels down; a pack
    (`smollm2-135m`, or what `save_pack` wrote) is expanded into the cache once. Raises ValueError for pickles of other
    kinds, damaged files, SAEs that do not say what they read, read anything but the residual stream after a block or
    have a scale for all inputs that is not folded into their weights, and two SAEs of one layer.
    """
    path = _located(path)
    folders = _folders(path)
    if not folders:
        pickles = sorted(p.name for p in path.rglob("*") if p.suffix in PICKLES)
        found = f"only pickles ({pickles[0]}), which are not read" if pickles else "no SAE"
        raise ValueError(f"{path} holds {found}; it should hold folders with cfg.json and sae_weights.safetensors.")
    saes: dict[int, SAE] = {}
    for folder in folders:
        sae = _load(folder, str(device))
        layer = layer_of(sae, str(folder))
        if layer in saes:
            raise ValueError(f"{path} holds two SAEs of layer {layer}; keep one, or load them by their own folders.")
        saes[layer] = sae
    return dict(sorted(saes.items()))


def save_saes(saes: Mapping[int, SAE], path: str | Path) -> Path:
    """Save SAEs in SAELens's own format, one folder a layer; `sae_lens.SAE.load_from_disk` opens each.

    SAEs that are there already are replaced. Raises ValueError where the folder holds anything else.
    """
    path = Path(path).absolute()
    check_folder(path)
    with write_folder(path) as folder:
        for layer, sae in sorted(saes.items()):
            sae.save_model(folder / f"layer_{layer:02d}")  # pyright: ignore[reportAttributeAccessIssue]
    return path


def check_folder(path: str | Path) -> None:
    """Raises ValueError for a folder that saving SAEs into would rob of something else."""
    path = Path(path)
    there = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    others = [entry.name for entry in there if not (entry / "cfg.json").is_file()]
    if others:
        raise ValueError(f"{path} holds {others[0]}, which is no SAE and would be lost; give another folder.")


def ready(sae: Any, name: str) -> SAE:
    """An SAE of SAELens as it serves here: evaluated, frozen, contiguous, decoder norms counted into its encoder.

    Raises ValueError for weights that are not finite.
    """
    if not all(weight.isfinite().all() for weight in sae.state_dict().values()):
        raise ValueError(f"the SAE in {name} is damaged (weights that are not finite); save or fetch it again.")
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        sae.fold_W_dec_norm()
        sae.cfg.rescale_acts_by_decoder_norm = False
    for weight in sae.parameters():
        weight.data = weight.data.contiguous()  # converters transpose, and safetensors refuses to save that
    return sae.eval().requires_grad_(False)


def _located(path: str | Path) -> Path:
    """The folder that a path, or the name or file of a pack, stands for."""
    if str(path) in PACKS:
        file = PACKS[str(path)]
        if not file.is_file():
            raise ValueError(
                f"the pack {path} is missing from this installation ({file}); install saereason again, "
                "or train SAEs with train_saes."
            )
        return _expanded(file)
    path = Path(path)
    if path.suffix in PICKLES:
        raise ValueError(f"{path} is a pickle, which can run code when read; give a folder with safetensors.")
    if path.suffix == ".safetensors" and path.is_file():
        return _expanded(path)
    if not path.is_dir():
        raise ValueError(f"no folder at {path}; give the folder that holds the SAEs, or a pack ({', '.join(PACKS)}).")
    return path


def _folders(path: Path) -> list[Path]:
    """The folders of single SAEs: the path itself, else those in it, else those one level further down."""
    for level in ([path], path.glob("*"), path.glob("*/*")):
        if found := sorted(folder for folder in level if any((folder / mark).is_file() for mark in MARKS)):
            return found
    return []


def _expanded(file: Path) -> Path:
    """A pack as SAELens folders in the user's cache, expanded on the first call, by one process."""
    from filelock import FileLock

    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    folder = cache_folder() / "saes" / f"{file.stem}-{digest}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():  # another process may have been faster
            save_saes(unpack(file), folder)
    return folder


def _load(folder: Path, device: str) -> SAE:
    from safetensors import SafetensorError

    damage = (SafetensorError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, OSError, EOFError)
    try:
        sae = read_folder(folder, device)
    except UnfitError:
        raise
    except damage as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"the SAE in {folder} is damaged or incomplete ({reason}); save or fetch it again.") from error
    return ready(sae, str(folder))
