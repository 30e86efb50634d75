"""The demo."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .shell import Adapter, Gguf, Layers, ModelName, Out, TaskFile, numbers, out, plain_errors, show_table


def demo(
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    task: TaskFile = None,
    direct: Annotated[str | None, typer.Option(help="Instruction of the direct prompt.")] = None,
    cot: Annotated[str | None, typer.Option(help="Instruction of the CoT prompt.")] = None,
    layers: Layers | None = None,
    seed: int = 0,
    quick: Annotated[bool, typer.Option(help="Small sizes: a look at how it works, not at what it finds.")] = False,
    folder: Out = Path("runs/demo"),
) -> None:
    """The whole story: train SAEs, find a reasoning feature, switch it, doubt it, and plot the layers."""
    with plain_errors():
        from saereason.demo import Settings, run_demo
        from saereason.demo.settings import QUICK, Sizes

        own = model != "smollm2-135m" or gguf is not None or task is not None
        default = Settings()
        settings = Settings(
            out=folder,
            model=model,
            gguf=gguf,
            adapter=adapter or (None if own else "taught"),
            task=task,
            direct=default.direct if direct is None else direct,
            cot=default.cot if cot is None else cot,
            layers=numbers(layers, "layers") if layers else default.layers,
            seed=seed,
            sizes=QUICK if quick else Sizes(),
        )
        result = run_demo(settings, command=sys.argv)
        saes = result.summary["saes"]
        show_table(tuple(saes[0]), [tuple(sae.values()) for sae in saes], "SAEs")
        out.print(
            f"{result.summary['features_searched']} features searched on {result.summary['n_discovery']} discovery "
            f"problems, {result.summary['candidates_tried']} candidates tried; chosen: {result.summary['feature']}",
            highlight=False,
        )
        show_table(result.header, result.rows, f"{result.summary['n']} confirmation problems")
        for sentence in result.summary["words"]:
            out.print(f"- {sentence}", markup=False, highlight=False)
        out.print(f"{folder / 'summary.json'}\n{folder / 'report.html'}", highlight=False)
