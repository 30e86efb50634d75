"""Delphi's cache of activations: a folder a hookpoint, with safetensors by ranges of features and a `config.json`.

Read from EleutherAI/delphi: `latents/cache.py` (`save_splits`, `save_config`) and `latents/loader.py`.
"""

import re
from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from saereason.runs import write_folder, write_json
from saereason.steering.exchange.reading import json_of, reading

from .fields import check_replaceable
from .firings import Firings
from .lines import text, whole

CONFIG = "config.json"
WANTED = "the cache that Delphi keeps of a hookpoint"
BLOCK = re.compile(r"(?:[^/\\]*\.)?(?:layers|h|blocks)\.(\d{1,9})", re.ASCII)
"""How the output of a block is called."""


def save_delphi(
    folder: str | Path,
    firings: Mapping[int, Firings],
    *,
    n_splits: int = 5,
    pad_token: int | None = None,
    model_name: str | None = None,
) -> Path:
    """Write all firings as Delphi caches them; Delphi then explains and scores the features without a pass of its own.

    It takes all firings, by `feature_firings`, and not dashboards: where a feature has none, Delphi takes it to be
    off. Activations are in float32 (Delphi's own in float16). Delphi cuts rows into pieces of `example_ctx_len`, which
    must divide their length. Rows of several lengths are padded on the right with `pad_token`, and Delphi's rates
    count the padding, and first tokens too. `model_name` is what Delphi loads the tokenizer by. The folder of a
    hookpoint is replaced. Raises ValueError for rows of several lengths without a `pad_token`, firings without rows,
    and a folder that holds anything else.
    """
    folder = Path(folder).absolute()
    if n_splits < 1 or not firings:
        raise ValueError(f"there are {len(firings)} layers for {n_splits} files each; give at least one of both.")
    tokens = {layer: _matrix(each, pad_token) for layer, each in firings.items()}
    for layer, each in firings.items():
        if _layer(_name(each)) != layer:
            raise ValueError(f"the firings at {_name(each)} are given for layer {layer}; give them for their own.")
        check_replaceable(folder / _name(each), (CONFIG, "*_*.safetensors"))
    for layer, each in firings.items():
        with write_folder(folder / _name(each)) as partial:
            _write(partial, each, tokens[layer], n_splits)
            write_json(partial / CONFIG, _config(each, tokens[layer], n_splits, model_name))
    return folder


def load_delphi(
    folder: str | Path,
    hookpoints: Collection[str] | None = None,
    features: Collection[int] | None = None,
    *,
    pad_token: int | None = None,
) -> dict[int, Firings]:
    """By layer, the firings in Delphi's cache: of some hookpoints and features (by index) if told which.

    Only outputs of blocks, such as `layers.9`, are read: what goes by a layer here is the residual stream after it.
    `pad_token` at the end of rows is taken off. Activations are as exact as the file's. Raises ValueError for other
    hookpoints, for a folder without any, and for damaged files.
    """
    folder, found = Path(folder), {}
    there = [folder] if (folder / CONFIG).is_file() else sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    there = [path for path in there if not path.name.startswith(".") or BLOCK.fullmatch(path.name)]  # half written
    chosen = [path for path in there if hookpoints is None or path.name in hookpoints]
    if not chosen or (hookpoints is not None and len(chosen) < len(set(hookpoints))):
        names = [path.name for path in there]
        raise ValueError(
            f"{folder} holds {names} and not all of {sorted(hookpoints or ['a hookpoint'])}; give {WANTED}."
        )
    for path in chosen:
        layer = _layer(path.name)
        if layer in found:
            raise ValueError(f"{found[layer].hookpoint} and {path.name} are both of layer {layer}; give hookpoints=.")
        with reading(path, WANTED):
            found[layer] = _read(path, layer, features, pad_token)
    return found


def _name(firings: Firings) -> str:
    return firings.hookpoint or f"layers.{firings.layer}"


def _layer(name: str) -> int:
    match = BLOCK.fullmatch(name)
    if match is None:
        raise ValueError(f"{name} is not the output of a block, such as layers.9; say which to read by hookpoints=.")
    return int(match[1])


def _matrix(firings: Firings, pad_token: int | None) -> np.ndarray:
    """Token ids, `[row, pos]`."""
    if not firings.rows:
        raise ValueError(f"the firings of layer {firings.layer} are without their tokens; give firings with rows.")
    lengths = sorted({len(row) for row in firings.rows})
    if len(lengths) > 1 and pad_token is None:
        raise ValueError(
            f"the rows have {lengths[0]} to {lengths[-1]} tokens, and Delphi's are of one length; cut them, or give "
            "pad_token=model.pad_token."
        )
    tokens = np.full((len(firings.rows), lengths[-1]), pad_token or 0, dtype=np.int64)
    for n, row in enumerate(firings.rows):
        tokens[n, : len(row)] = row
    return tokens


def _write(folder: Path, firings: Firings, tokens: np.ndarray, n_splits: int) -> None:
    from safetensors.numpy import save_file

    edges = np.unique(np.linspace(0, firings.d_sae, n_splits + 1).astype(np.int64))
    for start, end in zip(edges[:-1].tolist(), (edges[1:] - 1).tolist(), strict=True):
        here = slice(*np.searchsorted(firings.index, [start, end + 1]))
        where = np.stack([firings.row[here], firings.pos[here], firings.index[here] - start], axis=1)
        small = where.max(initial=0) < 2**16
        columns = {
            "locations": where.astype(np.uint16 if small else np.uint32),
            "activations": firings.act[here].copy(),
            "tokens": tokens,
        }
        save_file(columns, folder / f"{start}_{end}.safetensors")


def _config(firings: Firings, tokens: np.ndarray, n_splits: int, model_name: str | None) -> dict[str, Any]:
    return {
        "dataset_repo": firings.dataset,
        "dataset_split": None,
        "dataset_name": "",
        "dataset_column": None,
        "batch_size": None,
        "cache_ctx_len": tokens.shape[1],
        "n_tokens": firings.n_tokens,
        "n_splits": n_splits,
        "model_name": model_name or firings.model,
    }


def _read(folder: Path, layer: int, features: Collection[int] | None, pad_token: int | None) -> Firings:
    config = json_of(folder / CONFIG)
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} is no object")
    ranges = _ranges(folder)
    wanted = None if features is None else np.array(sorted(features), dtype=np.int64)
    pieces, tokens = [], None
    for start, end in ranges:
        if wanted is None or ((wanted >= start) & (wanted <= end)).any() or tokens is None:
            columns, tokens = _split(folder / f"{start}_{end}.safetensors", start, end, tokens)
            kept = slice(None) if wanted is None else np.isin(columns[0], wanted)
            pieces.append([column[kept] for column in columns])
    columns = [np.concatenate(column) for column in zip(*pieces, strict=True)]
    rows = None if tokens is None else _unpadded(tokens, columns, pad_token)
    asked, n = whole(config, "n_tokens"), None if rows is None else sum(map(len, rows))
    return Firings.sort(
        layer,
        columns,
        d_sae=ranges[-1][1] + 1,
        rows=rows,
        n_tokens=n if n is None or asked is None else min(n, asked),  # Delphi says what it was asked for
        model=text(config, "model_name"),
        hookpoint=folder.name,
        dataset=text(config, "dataset_repo"),
    )


def _ranges(folder: Path) -> list[tuple[int, int]]:
    """First and last feature of each file."""
    names = [path.stem for path in folder.glob("*.safetensors")]
    if wrong := [name for name in names if not re.fullmatch(r"\d{1,9}_\d{1,9}", name, re.ASCII)]:
        raise ValueError(f"{wrong[0]}.safetensors is not called by a first and last feature")
    found = sorted((int(first), int(last)) for first, last in (name.split("_") for name in names))
    if not found:
        raise ValueError("there are no safetensors in it")
    if any(after[0] <= before[1] for before, after in pairwise(found)):
        raise ValueError("two of its files hold the same features")
    return found


def _split(path: Path, start: int, end: int, tokens: np.ndarray | None) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Feature, row, position and activation of each firing in a file, and the tokens, if there are any."""
    from safetensors.torch import load_file

    said = load_file(path)
    if missing := {"locations", "activations"} - said.keys():
        raise ValueError(f"{path.name} has no {sorted(missing)[0]}")
    where, act = _whole(said, "locations", 2, path), said["activations"]
    if where.shape[1] != 3 or act.shape != (len(where),) or not act.is_floating_point() or not act.isfinite().all():
        raise ValueError(f"{path.name} has locations {where.shape} and activations {tuple(act.shape)} that do not fit")
    there = _whole(said, "tokens", 2, path) if "tokens" in said else None
    limits = (*((2**31, 2**31) if there is None else there.shape), end - start + 1)
    if ((where < 0) | (where >= np.array(limits))).any():
        raise ValueError(f"{path.name} has a firing outside its {limits} rows, positions and features")
    return [where[:, 2] + start, where[:, 0], where[:, 1], act.float().numpy()], there if tokens is None else tokens


def _whole(said: Mapping[str, Tensor], name: str, n_dims: int, path: Path) -> np.ndarray:
    found = said[name]
    if found.ndim != n_dims or found.is_floating_point() or found.is_complex():
        raise ValueError(f"the {name} of {path.name} are no whole numbers in {n_dims} dimensions")
    return found.long().numpy()


def _unpadded(tokens: np.ndarray, columns: list[np.ndarray], pad_token: int | None) -> tuple[np.ndarray, ...]:
    """Rows without the padding at their ends; a token on which a feature fires is none."""
    if pad_token is None:
        return tuple(tokens)
    real = tokens != pad_token
    real[columns[1], columns[2]] = True
    lengths = np.where(real, np.arange(1, tokens.shape[1] + 1), 0).max(axis=1, initial=0)
    return tuple(row[:length] for row, length in zip(tokens, lengths, strict=True))
