"""Answer with a feature changed, beside the answer without."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.rule import Rule
from rich.text import Text

from saereason.visible import visible

from .shell import Adapter, Gguf, Json, ModelName, Saes, out, plain_errors

if TYPE_CHECKING:
    from saereason.model import Model


def steer(
    prompt: Annotated[str, typer.Argument(help="What to answer.")],
    saes: Saes,
    feature: Annotated[
        list[str], typer.Option(help="Such as L19/3374; may be given again, each steers an answer of its own.")
    ],
    add: Annotated[float | None, typer.Option(help="Add this much of the feature.")] = None,
    clamp: Annotated[float | None, typer.Option(help="Hold the feature at this value; 0 ablates.")] = None,
    scale: Annotated[float | None, typer.Option(help="Multiply the feature by this.")] = None,
    when: Annotated[
        str,
        typer.Option(help="everywhere, prompt, last-prompt-token, generated, steps:2-5, steps:-3--1 or after:Wait."),
    ] = "everywhere",
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    system: Annotated[str | None, typer.Option(help="System message, where the chat format has one.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="No chat format.")] = False,
    tokens: Annotated[int, typer.Option(help="Longest answer.")] = 128,
    as_json: Json = False,
) -> None:
    """Answer a prompt as the model stands and with each feature changed, side by side as they are written.

    The answers are rows of one batch. A receipt says what each change did, and by how much it moved the next token.
    """
    with plain_errors(as_json) as show:
        from saereason.generate import generate
        from saereason.loading import load_model
        from saereason.saes import saes_of
        from saereason.steering import Divergence, per_row, steered

        edits = _edits(feature, when, {"add": add, "clamp": clamp, "scale": scale})
        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = saes_of(saes, device=lm.device)
        rendered = lm.render(prompt, system, False if raw else None)
        names = ["clean", *map(str, edits)]
        columns = Columns(lm, names)
        with steered(lm, loaded, *per_row([], *([edit] for edit in edits))) as steering, columns.live():
            written = generate(lm, [rendered] * len(names), max_new_tokens=tokens, on_token=columns.take)
        answers = [
            {"edit": name, "text": text, "tokens": len(row), "finished": finished}
            for name, text, row, finished in zip(names, written.texts, written.tokens, written.finished, strict=True)
        ]
        show({"prompt": prompt, "answers": answers}, *(() if out.is_terminal else _below(answers)))
        budget = Divergence.over(lm, [rendered], [written.tokens[0]])
        moved = [float(budget.first(loaded, [edit])[0]) for edit in edits]
        fired = steering.receipt.edits
        receipt = [{**vars(each), "nats": nats} for each, nats in zip(fired, moved, strict=True)]
        told = [f"{each}{_moved(nats)}" for each, nats in zip(fired, moved, strict=True)]
        show({"receipt": receipt}, _rule("receipt"), *told)


def _edits(features: Sequence[str], when: str, sizes: Mapping[str, float | None]) -> list[Any]:
    """An edit of each feature, of the one kind that has a size."""
    from saereason.features import Feature
    from saereason.steering import Add, Clamp, Scale, parse_when

    kinds: dict[str, Callable[..., Any]] = {"add": Add, "clamp": Clamp, "scale": Scale}
    given = {kinds[name]: size for name, size in sizes.items() if size is not None}
    if len(given) != 1:
        raise ValueError(f"{len(given)} of --add, --clamp and --scale were given; give one.")
    [(kind, size)] = given.items()
    return [kind(Feature.parse(name), size, parse_when(when)) for name in features]


def _below(answers: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The answers one below the other."""
    return [part for answer in answers for part in (_rule(answer["edit"]), answer["text"])]


def _rule(title: str) -> Rule:
    return Rule(Text(title), align="left")


def _moved(nats: float) -> str:
    """By how much an edit moves the next token; nothing where it never fires in the clean answer."""
    return f", {nats:.3g} nats at the first edited step" if math.isfinite(nats) else ""


class Columns:
    """Texts side by side, redrawn as their tokens come; nothing where the output is no terminal."""

    def __init__(self, model: "Model", names: Sequence[str]) -> None:
        self._model, self._names = model, names
        self._tokens: list[list[int]] = [[] for _ in names]
        self._live: Any = None

    def live(self) -> Any:
        """Within the block the columns are on the terminal; they stay there after it."""
        from rich.live import Live

        if not out.is_terminal:
            return nullcontext()
        self._live = Live(console=out, get_renderable=self._drawn, refresh_per_second=12, vertical_overflow="visible")
        return self._live

    def take(self, row: int, token: int) -> None:
        self._tokens[row].append(token)

    def _drawn(self) -> Any:
        from rich.table import Table

        table = Table(expand=True, show_lines=False)
        for name in self._names:
            table.add_column(Text(name), ratio=1, overflow="fold")
        table.add_row(*(Text(visible(self._model.decode(tokens))) for tokens in self._tokens))
        return table
