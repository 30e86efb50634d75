"""A run: one directory with a manifest and result files, the only thing saereason keeps on disk."""

import errno
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("saereason", "torch", "transformers", "transformer-lens", "sae-lens", "peft", "numpy")


@dataclass(frozen=True)
class Run:
    """A directory of results. Everything in it is written whole or not at all."""

    folder: Path

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """The run at a folder, which is made if need be. Raises ValueError where a file is in the way."""
        path = Path(folder)
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path} is a file; give a folder for the run.")
        path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    def write_manifest(self, *, command: Sequence[str], **facts: Any) -> None:
        """Write `manifest.json`: versions, machine, git revision, command, and whatever decides the results."""
        manifest = {
            "command": list(command),
            "versions": {name: installed(name) for name in PACKAGES},
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "git_revision": git_revision(),
            **facts,
        }
        write_json(self.folder / "manifest.json", manifest)

    def con(self) -> Any:
        """A DuckDB connection, in memory, that has every Parquet file of the run as a view.

        A view is called as its file is, with the folders before it (`"training/log"`). The results of work units of one
        name are one view, `"results/<name>"`, with the file that each row is from in `filename`. Files that come later
        need another connection.
        """
        import duckdb

        con = duckdb.connect()
        for name, files in _tables(self.folder).items():
            shown = ", filename=true, union_by_name=true" if name.startswith("results/") else ""
            listed = ", ".join(_quoted(_literal(str(file)), "'") for file in files)
            con.execute(f"CREATE VIEW {_quoted(name, chr(34))} AS FROM read_parquet([{listed}]{shown})")
        return con

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_text(encoding="utf8"))


def _tables(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files under a folder by the name of their view; those half written, which are hidden, left out."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        parts = path.relative_to(folder).with_suffix("").parts
        if any(part.startswith(".") for part in parts):
            continue
        name = "/".join(parts)
        found.setdefault(name.rpartition("-")[0] if parts[0] == "results" else name, []).append(path)
    return found


def _literal(path: str) -> str:
    """The path for DuckDB, which takes some characters for patterns."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _quoted(text: str, mark: str) -> str:
    return mark + text.replace(mark, 2 * mark) + mark


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git_revision() -> str | None:
    """The revision of the checkout saereason runs from, `+` added where files differ from it; None elsewhere."""
    here = Path(__file__).parent.parent
    if not (here / ".git").exists() or shutil.which("git") is None:
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    revision = git("rev-parse", "HEAD")
    return f"{revision}+" if revision and git("status", "--porcelain") else revision or None


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Within the block no other process works on this folder; a lock file beside it says so, and goes with a kill.

    Raises ValueError if another process is at work.
    """
    from filelock import FileLock, Timeout

    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process is at work on {folder}; wait for it, or give another folder.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def write_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its final name only when the block ends well; it replaces one that is there."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)) for _ in range(2))
    try:
        yield partial
        partial.chmod(0o755)
        while True:  # another process may put its own there in between
            with suppress(FileNotFoundError):
                folder.rename(old / f"{len(list(old.iterdir()))}")
            try:
                partial.rename(folder)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def write_file(path: Path) -> Iterator[Path]:
    """A path to write to, which takes its final name only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with write_file(path) as partial:
        partial.write_text(text, encoding="utf8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, frame: Any) -> None:
    """Write a pandas table as Parquet."""
    with write_file(path) as partial:
        frame.to_parquet(partial, index=False)
