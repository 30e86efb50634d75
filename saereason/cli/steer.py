"""Answer with one feature changed."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from .shell import Adapter, Gguf, ModelName, Saes, out, plain_errors


def steer(
    prompt: str,
    saes: Saes,
    feature: Annotated[str, typer.Option(help="Such as L19/3374.")],
    add: Annotated[float | None, typer.Option(help="Add this much of the feature.")] = None,
    clamp: Annotated[float | None, typer.Option(help="Hold the feature at this value; 0 ablates.")] = None,
    scale: Annotated[float | None, typer.Option(help="Multiply the feature by this.")] = None,
    when: Annotated[
        str, typer.Option(help="everywhere, prompt, last-prompt-token, generated, steps:2-5 or steps:-3--1.")
    ] = "everywhere",
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    system: str | None = None,
    raw: Annotated[bool, typer.Option(help="No chat format.")] = False,
    tokens: Annotated[int, typer.Option(help="Longest answer.")] = 128,
) -> None:
    """Answer a prompt as the model stands and with one feature changed, with a receipt of what the change did."""
    with plain_errors():
        from saereason.features import Feature
        from saereason.generate import generate
        from saereason.loading import load_model
        from saereason.saes import load_saes
        from saereason.steering import Add, Clamp, Scale, parse_when, steered

        kinds: dict[Callable[..., Any], float | None] = {Add: add, Clamp: clamp, Scale: scale}
        given = {kind: size for kind, size in kinds.items() if size is not None}
        if len(given) != 1:
            raise ValueError(f"{len(given)} of --add, --clamp and --scale were given; give one.")
        [(kind, size)] = given.items()
        edit = kind(Feature.parse(feature), size, parse_when(when))
        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = load_saes(saes, device=lm.device)
        rendered = lm.render(prompt, system, False if raw else None)
        clean = generate(lm, [rendered], max_new_tokens=tokens)
        with steered(lm, loaded, edit):
            changed = generate(lm, [rendered], max_new_tokens=tokens)
        for name, text in (("clean", clean.texts[0]), ("steered", changed.texts[0]), ("receipt", str(changed.receipt))):
            out.rule(name, align="left")
            out.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)
