"""Work units: pure pieces of work, named by the hash of all that decides their result, done once."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .model import Model
from .runs import Run, write_table
from .saes import SAE, hashes

SHOWN_ONLY = ("cli/", "plots/", "report.py", "progress.py", "demo/write.py", "demo/summary.py")
"""Sources that only show results; a change in them does not make a result stale."""


@dataclass(frozen=True)
class WorkUnit:
    """One piece of work. Two units with one id have one result, on any machine that computes alike."""

    name: str

    arguments: str
    """Canonical JSON."""

    weights: str
    """Hash of the model, with quantisation and merged adapter."""

    template: str
    """Hash of the chat template, which decides what a prompt becomes."""

    saes: tuple[tuple[int, str], ...]
    """Hash of each SAE, by layer."""

    dtype: str
    threads: int
    code: str

    @property
    def id(self) -> str:
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return hashlib.sha256(_canonical(said).encode()).hexdigest()[:24]

    def argument(self, name: str) -> Any:
        return json.loads(self.arguments)[name]


Rows = list[dict[str, Any]]
Compute = Callable[[WorkUnit], Rows]


def work_unit(model: Model, name: str, *, saes: Mapping[int, SAE] | None = None, **arguments: Any) -> WorkUnit:
    """The unit of this name, for this model, these SAEs and these arguments (JSON, frozen dataclasses, tensors)."""
    import torch

    return WorkUnit(
        name=name,
        arguments=_canonical(describe(arguments)),
        weights=model.hash,
        template=_digest(str(getattr(model.tokenizer, "chat_template", None))),
        saes=tuple(hashes(saes or {})),
        dtype=str(model.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        code=code_version(),
    )


def inline(run: Run, units: Iterable[WorkUnit], compute: Compute) -> Iterator[tuple[WorkUnit, Any]]:
    """Do the units one after the other in this process, and give each with its rows as a pandas table.

    A unit's result is one Parquet file in the run, named by the unit's id; one that is there is read, not computed.
    """
    import pandas as pd

    for unit in units:
        path = result_path(run, unit)
        if not path.is_file():
            write_table(path, pd.DataFrame(compute(unit)))
        yield unit, pd.read_parquet(path)


def describe(value: Any) -> Any:
    """A value as JSON that tells it from any other: dataclasses by type and the fields they are compared by, tensors by
    a hash.
    """
    import torch

    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw.numpy().tobytes()).hexdigest()[:24]}"
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "": type(value).__name__,
            **{field.name: describe(getattr(value, field.name)) for field in fields(value) if field.compare},
        }
    if isinstance(value, Mapping):
        return {str(key): describe(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [describe(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def result_path(run: Run, unit: WorkUnit) -> Path:
    return run.folder / "results" / f"{unit.name.replace('/', '-')}-{unit.id}.parquet"


@cache
def code_version() -> str:
    """Hash of the sources that compute results."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        if not path.relative_to(package).as_posix().startswith(SHOWN_ONLY):
            digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
