"""What all commands share: the app, options that several take, errors in one sentence, tables."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

COMMANDS = ("challenge", "compare", "demo", "layers", "sweep", "train")
"""Commands that leave a manifest."""

out = Console(width=None if sys.stdout.isatty() else 120)

ModelName = Annotated[str, typer.Option("--model", help="smollm2-135m, a hub name, a local folder or a GGUF file.")]
Adapter = Annotated[str | None, typer.Option(help="A PEFT folder to merge, or `taught`, the one that ships.")]
Gguf = Annotated[Path | None, typer.Option(help="A GGUF file with the weights.")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        help="Text, .jsonl, .parquet, .npy or .safetensors (tokens), a folder that `datasets` saved, or "
        "hub:owner/name; may be given again. Without it, problem texts and plain English.",
    ),
]
Layers = Annotated[str, typer.Option(help="Layers, such as 10,14,18.")]
Saes = Annotated[str, typer.Option(help="Folder of SAEs, smollm2-135m, or hub:RELEASE:ID,ID of a release.")]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
TaskFile = Annotated[Path | None, typer.Option("--task", help="JSON lines with question and answer.")]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Bad input ends in one sentence and exit code 2; what is a bug keeps its traceback. A warning is shown once."""
    from saereason.steering import SilentEditError

    try:
        with _warnings_once():
            yield
    except (ValueError, SilentEditError, OSError) as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False)
        raise typer.Exit(2) from error
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; run the same command again to go on from here.")
        raise typer.Exit(130) from None


@contextmanager
def _warnings_once() -> Iterator[None]:
    """Within the block a warning to the user is a line on standard error, and shown once whatever warns again."""
    shown: set[str] = set()
    before = warnings.showwarning

    def show(message: Any, category: Any, filename: Any, lineno: Any, file: Any = None, line: Any = None) -> None:
        if category is not UserWarning:
            before(message, category, filename, lineno, file, line)
        elif str(message) not in shown:
            shown.add(str(message))
            Console(stderr=True, soft_wrap=True).print(f"warning: {message}", markup=False, highlight=False)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def check_own(folder: Path, command: str) -> None:
    """Raises ValueError for a folder that holds what another command wrote."""
    if not (folder / "manifest.json").is_file():
        return
    from saereason.runs import Run

    wrote = next((word for word in Run.open(folder).manifest.get("command", []) if word in COMMANDS), command)
    if wrote != command:
        raise ValueError(f"{folder} holds what `saereason {wrote}` wrote; give another folder.")


def numbers(text: str, what: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{what} are {text!r}; write numbers with commas between, such as 10,14,18.") from error


def show_table(header: tuple[str, ...], rows: list[tuple[Any, ...]], title: str) -> None:
    table = Table(title=Text(title), title_justify="left")
    for n, name in enumerate(header):
        table.add_column(name, justify="left" if n == 0 else "right")
    for row in rows:
        table.add_row(*map(str, row))
    out.print(table)
