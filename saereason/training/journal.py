"""The live log of training: JSON lines while it runs, Parquet when it ends."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO

from saereason.runs import write_table, write_text

from .train import Log

if TYPE_CHECKING:
    from pandas import DataFrame

LINES, TABLE = "log.jsonl", "log.parquet"


class Journal:
    """Writes a line for every SAE, at most every `seconds`, and at the last step.

    A line's `tokens_per_second` is over all that was done since the line before, forward passes included; the first
    line's since the journal was opened.
    """

    def __init__(self, folder: Path, file: TextIO, seconds: float) -> None:
        self._folder, self._file, self._seconds = folder, file, seconds
        self._next: float | None = None
        self._written, self._tokens = monotonic(), 0

    def note(self, log: Log) -> None:
        if self._next is None:
            self._forget(log.tokens)
            self._tokens = log.tokens - log.tokens // log.step
        if self._next is not None and monotonic() < self._next and log.step < log.n_steps:
            return
        now = monotonic()
        rate = (log.tokens - self._tokens) / max(now - self._written, 1e-9)
        self._next, self._written, self._tokens = now + self._seconds, now, log.tokens
        so_far = {"tokens": log.tokens, "n_tokens": log.n_tokens, "tokens_per_second": round(rate, 1)}
        for sae in log.saes:
            said = asdict(sae)
            own = {"step_tokens_per_second": round(said.pop("tokens_per_second"), 1)}
            self._file.write(json.dumps({**so_far, **said, **own}) + "\n")
        self._file.flush()

    def _forget(self, tokens: int) -> None:
        """Drop what training that was cut short wrote of steps that are now done again."""
        kept = [line for line in _whole(self._folder / LINES) if line["tokens"] < tokens]
        self._file.seek(0)
        self._file.truncate()
        self._file.writelines(json.dumps(line) + "\n" for line in kept)


@contextmanager
def journal(folder: Path, *, seconds: float = 2.0) -> Iterator[Journal]:
    """A journal in a folder, `log.jsonl`, which goes on where an earlier one ended; `log.parquet` at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / LINES).exists():
        write_text(folder / LINES, "")
    with (folder / LINES).open("r+", encoding="utf8") as file:
        yield Journal(folder, file, seconds)
    write_table(folder / TABLE, read_log(folder))


def read_log(folder: Path) -> "DataFrame":
    """What a journal has noted so far, a row for every SAE and time. Raises ValueError where there is none."""
    import pandas

    if not (folder / LINES).is_file():
        raise ValueError(f"no training log at {folder / LINES}; give the folder of a training run.")
    return pandas.DataFrame(list(_whole(folder / LINES)))


def _whole(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal; the last may have been cut short by a kill."""
    for line in path.read_text(encoding="utf8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
