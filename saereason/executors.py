"""Work units: pure pieces of work, named by the hash of all that decides their result, done once."""

import ctypes
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from . import hooks
from .model import Model
from .runs import Run, write_table
from .saes import SAE, hashes

SHOWN_ONLY = (
    "cli/",
    "explorer/",
    "plots/",
    "report.py",
    "progress.py",
    "visible.py",
    "stored.py",
    "demo/write.py",
    "demo/summary.py",
    "study/lab/page.py",
    "study/lab/tables.py",
    "study/suite/page.py",
    "study/suite/tables.py",
)
"""Sources that only show results; a change in them does not make a result stale."""

KNOWN = ("saereason", "builtins", "typing", "enum")
"""Whose classes the code's version, or Python's, tells."""


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
T = TypeVar("T")


def work_unit(model: Model, name: str, *, saes: Mapping[int, SAE] | None = None, **arguments: Any) -> WorkUnit:
    """The unit of this name, for this model, these SAEs and these arguments (JSON, frozen dataclasses, tensors).

    Edits in force (an outer `steered`) are part of it. Raises ValueError for what cannot be told from others.
    """
    import torch

    outer = _in_force()
    arguments |= {"in force": outer} if outer else {}
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


def side_by_side(works: Sequence[Callable[[], T]], helpers: Sequence[Callable[[], object]] = ()) -> list[T]:
    """What each gives, all at work at once with an equal part of torch's threads, which on small models is faster.

    `helpers` give nothing: one begins whenever a work has ended and others go on, and they are stopped once all have.
    None of them all may share a model or SAEs. The first error, or Ctrl-C, stops the others and is raised.
    """
    import torch

    each = max(1, torch.get_num_threads() // len(works))
    done, begin, later = SimpleQueue[tuple[int, Any, BaseException | None]](), SimpleQueue[bool](), SimpleQueue[bool]()
    every = [*((begin, work) for work in works), *((later, helper) for helper in helpers)]

    def do(place: int, context: Context) -> None:
        told, work = every[place]
        if not told.get():  # once all have been started: Ctrl-C on the way leaves none that is not known to be alive
            return
        torch.set_num_threads(each)
        try:
            done.put((place, context.run(work), None))
        except BaseException as error:
            done.put((place, None, error))

    threads = [Thread(target=do, args=(n, copy_context()), daemon=True) for n in range(len(every))]
    found: dict[int, Any] = {}
    try:
        for thread in threads:
            thread.start()
        for _ in works:
            begin.put(True)  # in one piece, which Ctrl-C cannot leave half done as it can an Event's `set`
        while len(found) < len(works):
            place, result, error = _wait(done)
            if error is not None:
                raise error
            if place < len(works):
                found[place] = result
                later.put(len(found) < len(works))
    finally:
        for told, _ in every:
            told.put(False)
        _stop(threads)
    return [found[place] for place in range(len(works))]


def _wait(queue: SimpleQueue[T]) -> T:
    """The next of a queue. It looks up now and then: Ctrl-C just before a wait begins does not end that wait."""
    while True:
        try:
            return queue.get(timeout=0.5)
        except Empty:
            continue


def _stop(threads: Iterable[Thread]) -> None:
    """End threads at their next line of Python, with what their `with` and `finally` ask for, half a minute of it."""
    for thread in threads:
        if thread.is_alive():
            thread.join(0.1)  # whoever has done its work, or never began, ends by itself
        while thread.is_alive():
            told = ctypes.pythonapi.PyThreadState_SetAsyncExc
            told(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
            thread.join(30.0)


def _in_force() -> list[Any]:
    """What is known of the edits in force."""
    edits = hooks.in_force()
    unknown = next((edit.name for edit in edits if edit.about is None), None)
    if unknown is not None:
        raise ValueError(f"results under the edit {unknown!r} cannot be told from others on disk; use `steered`.")
    return [edit.about() for edit in edits if edit.about is not None]


def describe(value: Any) -> Any:
    """A value as JSON that tells it from any other: dataclasses by type and the fields they are compared by, and by
    their source where they are not saereason's own, tensors by a hash. Raises ValueError for anything else.
    """
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw.numpy().tobytes()).hexdigest()[:24]}"
    if isinstance(value, Model):
        return f"model {value.hash} {value.dtype}"
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "": _kind(type(value)),
            **{field.name: describe(getattr(value, field.name)) for field in fields(value) if field.compare},
        }
    if isinstance(value, Mapping):
        return {str(key): describe(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [describe(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    raise ValueError(f"{value!r:.80} cannot be told from others on disk; give a frozen dataclass in its place.")


@cache
def _kind(kind: type) -> str:
    """The name of a class, and a hash of its source and its bases' where they are not saereason's own."""
    others = [each for each in kind.__mro__ if each.__module__.partition(".")[0] not in KNOWN]
    return kind.__name__ + "".join(f" {_digest(_source(each))}" for each in others)


def _source(kind: type) -> str:
    """A class as it is written, or, where that is not to be had, the code of its methods."""
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        codes = [method.__code__ for method in vars(kind).values() if inspect.isfunction(method)]
        said = [(code.co_code, code.co_names, [c for c in code.co_consts if not inspect.iscode(c)]) for code in codes]
        return f"{kind.__module__}.{kind.__qualname__} {said}"


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
