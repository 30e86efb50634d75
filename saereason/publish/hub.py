"""SAEs as a folder that can be pushed to the Hugging Face hub, and the push."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saereason.quality import Quality
from saereason.runs import write_folder, write_text
from saereason.saes import SAE, load_saes, save_saes

from .card import write_card

SUFFIXES = (".md", ".json", ".safetensors")
"""What a published folder may hold: no other file is uploaded, a pickle least of all."""


def publishable(
    saes: Mapping[int, SAE],
    path: str | Path,
    *,
    qualities: Sequence[Quality] = (),
    data: str,
    licence: str,
    base_model: str | None = None,
    base_licence: str | None = None,
    repo_id: str = "owner/name",
) -> Path:
    """Write SAEs (SAELens's layout, `layer_XX` each) and their model card (`README.md`) to a new folder, for `push`.

    `data` says in words what the SAEs were trained on; `licence` is the hub's short name of one, such as `apache-2.0`;
    `base_model` is the hub's name of the model, where these are its weights. A layer without a `Quality` takes the
    figures of its SAE's own card. Raises ValueError for a folder that holds anything, and for figures, data or licence
    that are missing or malformed.
    """
    path = Path(path).absolute()
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise ValueError(f"{path} is there already; give a new folder.")
    if not saes or not data.strip():
        raise ValueError(f"there are {len(saes)} SAEs and the data are {data!r}; give at least one, and say what data.")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", licence):
        raise ValueError(f"licence is {licence!r}; give the hub's short name, such as apache-2.0, cc-by-4.0 or other.")
    for name in (base_model, repo_id):
        if name is not None:
            _check_repo(name)
    card = write_card(
        saes,
        qualities,
        data=data,
        licence=licence,
        base_model=base_model,
        base_licence=base_licence,
        repo_id=repo_id,
    )
    with write_folder(path) as folder:
        save_saes(saes, folder)
        write_text(folder / "README.md", card)
    return path


def push(folder: str | Path, repo_id: str, *, private: bool = True, api: Any = None) -> str:
    """Upload a folder that `publishable` wrote to the Hugging Face hub; returns the address.

    Uses the network, with the token that `hf auth login` keeps. The repository is made if need be, private unless said
    otherwise. Raises ValueError for a folder without a card or with files that are no part of it, pickles among them,
    and where `private` is asked for a repository that is public.
    """
    folder = Path(folder)
    _check_repo(repo_id)
    _check_folder(folder)
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    api.create_repo(repo_id, repo_type="model", private=private, exist_ok=True)
    if private and not api.repo_info(repo_id, repo_type="model").private:
        raise ValueError(f"{repo_id} is public; use private=False if that is meant, or give another repository.")
    api.upload_folder(repo_id=repo_id, repo_type="model", folder_path=str(folder), commit_message="SAEs and their card")
    return f"https://huggingface.co/{repo_id}"


def _check_repo(name: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"{name!r} is no name on the hub; give one such as owner/name.") from error
    if name.count("/") != 1:
        raise ValueError(f"{name!r} is no name on the hub; give one such as owner/name.")


def _check_folder(folder: Path) -> None:
    card = folder / "README.md"
    if not card.is_file() or not card.read_bytes().startswith(b"---\n"):
        raise ValueError(f"{folder} has no model card (README.md that begins with ---); write it with `publishable`.")
    for file in sorted(folder.rglob("*")):
        if file.is_symlink() or (file.is_file() and not _harmless(file)):
            raise ValueError(
                f"{file} would be uploaded, and is neither card, settings nor safetensors (a pickle can run code when "
                "read); take it out."
            )
    load_saes(folder)  # raises for damaged ones


def _harmless(file: Path) -> bool:
    """True for what really is safetensors, and for Markdown and JSON that are text."""
    from safetensors import SafetensorError, safe_open

    if file.suffix not in SUFFIXES:
        return False
    try:
        if file.suffix != ".safetensors":
            return "\0" not in file.read_text(encoding="utf8")
        with safe_open(file, framework="pt"):
            return True
    except (SafetensorError, UnicodeDecodeError):
        return False
