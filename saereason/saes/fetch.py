"""SAEs from the Hugging Face hub, through SAELens's directory of releases and its converters."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pickle import UnpicklingError
from typing import Any

import torch

from .disk import load_saes, ready
from .sae import SAE, layer_of

HUB = "hub:"
"""Begins the names of SAEs that are to be had from the Hugging Face hub."""


def fetch_saes(release: str, sae_ids: str | Sequence[str], *, device: str | torch.device = "cpu") -> dict[int, SAE]:
    """SAEs of a release that SAELens lists (or of a hub repository in its format), by layer, in float32.

    `sae_ids` are SAELens's, one or several. This goes to the network for what the hub's cache does not hold. Raises
    ValueError for names that SAELens does not list, with those that come close, for what the hub does not give, and as
    `load_saes` does.
    """
    ids = [sae_ids] if isinstance(sae_ids, str) else list(sae_ids)
    _check_names(release, ids)
    saes: dict[int, SAE] = {}
    for sae_id in ids:
        name = f"{release}/{sae_id}"
        sae = ready(_download(release, sae_id, str(device)), name)
        layer = layer_of(sae, name)
        if layer in saes:
            raise ValueError(f"{sae_id} of {release} is a second SAE of layer {layer}; ask for one a layer.")
        saes[layer] = sae
    return dict(sorted(saes.items()))


def saes_of(name: str, *, device: str | torch.device = "cpu") -> dict[int, SAE]:
    """SAEs as a command line or a plan names them: a folder or a pack, or `hub:RELEASE:ID,ID` for `fetch_saes`.

    Raises ValueError as the two do, and for a hub name without a release or an id.
    """
    if not name.startswith(HUB):
        return load_saes(name, device=device)
    release, _, ids = name.removeprefix(HUB).partition(":")
    wanted = [part.strip() for part in ids.split(",") if part.strip()]
    if not release or not wanted:
        raise ValueError(
            f"the SAEs are {name!r}; name a release and its SAEs, such as "
            "hub:gemma-scope-2b-pt-res:layer_12/width_16k/average_l0_82,layer_20/width_16k/average_l0_71."
        )
    return fetch_saes(release, wanted, device=device)


def _check_names(release: str, ids: Sequence[str]) -> None:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    directory: Mapping[str, Any] = get_pretrained_saes_directory()
    if not ids:
        raise ValueError(f"no SAE of {release} is asked for; give one id or several.")
    if release in directory:
        there = directory[release].saes_map
        for sae_id in ids:
            if sae_id not in there:
                raise ValueError(f"{release} has no SAE {sae_id!r}; {_near(sae_id, there)}.")
    elif listed := [name for name, entry in directory.items() if entry.repo_id == release]:
        raise ValueError(f"{release} is a repository that SAELens lists as {', '.join(listed[:5])}; give that name.")
    elif "/" not in release:
        raise ValueError(f"SAELens lists no release {release!r}; {_near(release, directory)}.")


def _near(name: str, names: Iterable[str]) -> str:
    """The names that come closest, or some of those there are, as the end of a sentence."""
    names = sorted(names)
    close = get_close_matches(name, names, n=3, cutoff=0.5)
    return f"close ones are {', '.join(close)}" if close else f"there are {len(names)}, such as {', '.join(names[:3])}"


def _download(release: str, sae_id: str, device: str) -> Any:
    from huggingface_hub.errors import EntryNotFoundError
    from sae_lens import SAE as LensSAE
    from safetensors import SafetensorError

    try:
        return LensSAE.from_pretrained(release, sae_id, device=device, dtype="float32")
    except (OSError, EntryNotFoundError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"the hub did not give {sae_id} of {release} ({reason}); check the name, the network, or HF_HUB_OFFLINE."
        ) from error
    except (SafetensorError, UnpicklingError, RuntimeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ValueError(
            f"{sae_id} of {release} is damaged or of an unknown kind ({reason}); fetch it again."
        ) from error
