"""The demo."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .rows import Rows
from .shell import (
    Adapter,
    Cot,
    Direct,
    Gguf,
    Json,
    ModelName,
    Out,
    Seed,
    SomeLayers,
    TaskFile,
    numbers,
    plain_errors,
)


def demo(
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    task: TaskFile = None,
    direct: Direct = None,
    cot: Cot = None,
    layers: SomeLayers = None,
    seed: Seed = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: a look at how it works, not at what it finds.")
    ] = False,
    folder: Out = Path("runs/demo"),
    as_json: Json = False,
) -> None:
    """The whole story: train SAEs, find a reasoning feature, switch it, doubt it, and plot the layers."""
    with plain_errors(as_json) as show:
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
        files = {"summary": folder / "summary.json", "report": folder / "report.html"}
        show({**result.summary, "files": files}, *_told(result), *files.values())


def _told(result: Any) -> list[Any]:
    """What the demo found: the SAEs, the arms, and its sentences."""
    summary, saes = result.summary, result.summary["saes"]
    return [
        Rows(tuple(saes[0]), [tuple(sae.values()) for sae in saes], "SAEs"),
        f"{summary['features_searched']} features searched on {summary['n_discovery']} discovery problems, "
        f"{summary['candidates_tried']} candidates tried; chosen: {summary['feature']}",
        Rows(result.header, result.rows, f"{summary['n']} confirmation problems"),
        *(f"- {sentence}" for sentence in summary["words"]),
    ]
