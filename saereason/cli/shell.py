"""What all commands share: options that several take, errors in one sentence, and how results are shown."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from saereason.visible import visible

from .rows import Rows, as_document

COMMANDS = ("challenge", "compare", "demo", "layers", "sweep", "train")
"""Commands that leave a manifest."""

MODELS, PACKS, ADAPTERS = ("smollm2-135m",), ("smollm2-135m",), ("taught",)
BEHAVIOURS, SUITES = ("cot-mode", "step-words"), ("demo", "quick")
"""Names that a shell completes; the modules that own them take long to import."""

Part = Rows | Path | RenderableType
Show = Callable[..., None]
"""Takes what was found, by name, and then the parts that a terminal shows of it."""

out = Console(width=None if sys.stdout.isatty() else 120)


def one_of(names: tuple[str, ...]) -> Callable[[str], list[str]]:
    """The names that begin with what has been typed."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


ModelName = Annotated[
    str,
    typer.Option(
        "--model",
        help="smollm2-135m, a hub name, a local folder or a GGUF file.",
        autocompletion=one_of(MODELS),
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(help="A PEFT folder to merge, or `taught`, the one that ships.", autocompletion=one_of(ADAPTERS)),
]
Gguf = Annotated[Path | None, typer.Option(help="A GGUF file with the weights.")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        help="Text, .jsonl, .parquet, .npy or .safetensors (tokens), a folder that `datasets` saved, or "
        "hub:owner/name; may be given again. Without it, problem texts and plain English.",
    ),
]
Layers = Annotated[str, typer.Option(help="Layers, such as 10,14,18.")]
SomeLayers = Annotated[str | None, typer.Option("--layers", help="These layers alone, such as 10,14,18.")]
Saes = Annotated[
    str,
    typer.Option(help="Folder of SAEs, smollm2-135m, or hub:RELEASE:ID,ID of a release.", autocompletion=one_of(PACKS)),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
TaskFile = Annotated[Path | None, typer.Option("--task", help="JSON lines with question and answer.")]
Direct = Annotated[str | None, typer.Option(help="Instruction of the direct prompt.")]
Cot = Annotated[str | None, typer.Option(help="Instruction of the CoT prompt.")]
Seed = Annotated[int, typer.Option(help="Of all that is drawn at random.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document and nothing else.")]


def example_of(arguments: str) -> str:
    """How a command's help ends: a line to copy."""
    return f"Example:\n\nsaereason {arguments}"


@contextmanager
def plain_errors(as_json: bool = False) -> Iterator[Show]:
    """Bad input ends in one sentence and exit code 2; what is a bug keeps its traceback. A warning is shown once.

    Gives `show`: it prints the parts that it is given after what was found. With `as_json` it prints none, and when the
    block ends everything found is one JSON document on standard output; whatever else is printed is on standard error.
    """
    found: dict[str, Any] = {}

    def show(more: Mapping[str, Any], *parts: Part) -> None:
        found.update(more)
        for part in () if as_json else parts:
            _put(part)

    aside = redirect_stdout(sys.stderr) if as_json else nullcontext()
    try:
        with _warnings_once(), aside:
            yield show
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; run the same command again to go on from here.")
        raise typer.Exit(130) from None
    except Exception as error:
        if not _is_plain(error):
            raise
        _write(found if as_json else {})
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False)
        raise typer.Exit(2) from error
    _write(found if as_json else {})


def _put(part: Part) -> None:
    if isinstance(part, Rows):
        out.print(part.fitted(out))
    elif isinstance(part, str | Path):
        out.print(Text(visible(str(part))), soft_wrap=True)
    else:
        out.print(part)


def _write(found: Mapping[str, Any]) -> None:
    if found:
        sys.stdout.write(as_document(found))


def _is_plain(error: Exception) -> bool:
    """True for what the user can put right."""
    if isinstance(error, ValueError | OSError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    from saereason.steering import SilentEditError

    return isinstance(error, SilentEditError)


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
