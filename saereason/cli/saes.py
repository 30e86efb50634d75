"""Check SAEs, and publish them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .quality import evaluated, show_quality
from .shell import Adapter, Data, Gguf, ModelName, Saes, out, plain_errors, show_table


def check(
    saes: Saes,
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    data: Data = None,
    quick: Annotated[bool, typer.Option(help="Only whether they fit, not how good they are.")] = False,
) -> None:
    """Do these SAEs belong to this model, and how good are they on it? Ends with exit code 2 if one does not fit."""
    with plain_errors():
        from saereason.loading import load_model
        from saereason.preflight import preflight
        from saereason.saes import saes_of

        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = saes_of(saes, device=lm.device)
        fits = preflight(lm, loaded, strict=False)
        figures = ("explained_variance", "l0", "mean_norm")
        header = ("layer", "fits", *(f"{name}, here / card" for name in ("explained variance", "L0", "mean norm")))
        rows = [
            (f.layer, "yes" if f.fits else "NO", *(_pair(getattr(f, n), getattr(f, f"card_{n}")) for n in figures))
            for f in fits
        ]
        show_table(header, rows, f"Do the SAEs of {saes} belong to {lm.name}? ({fits[0].n_tokens} tokens)")
        for fit in fits:
            for note in fit.notes:
                out.print(f"- layer {fit.layer}: {note}", markup=False, highlight=False, soft_wrap=True)
        unfit = [fit.layer for fit in fits if not fit.fits]
        if unfit:
            raise ValueError(f"the SAEs at layers {unfit} do not fit {lm.name}; the notes say why.")
        if not quick:
            show_quality(evaluated(lm, loaded, data), str(saes))


def publish(
    saes: Saes,
    to: Annotated[Path, typer.Option(help="New folder for the SAEs and their model card.")],
    data: Annotated[str, typer.Option(help="What the SAEs were trained on, in words.")],
    licence: Annotated[str, typer.Option(help="Licence of the SAEs, by the hub's short name, such as apache-2.0.")],
    base_model: Annotated[
        str | None, typer.Option(help="The hub's name of the model, if these are its weights.")
    ] = None,
    base_licence: Annotated[str | None, typer.Option(help="Licence of the base model.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Measure on this model; without it, the figures are those on the SAEs' cards.")
    ] = None,
    adapter: Adapter = None,
    push: Annotated[str | None, typer.Option(help="Upload to this repository on the hub, owner/name.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the repository public.")] = False,
) -> None:
    """Write SAEs and a model card to a folder, and push it to the Hugging Face hub if a repository is named."""
    with plain_errors():
        from saereason.loading import load_model
        from saereason.publish import publishable
        from saereason.publish import push as upload
        from saereason.saes import saes_of

        loaded, qualities = saes_of(saes), []
        if model is not None:
            qualities = evaluated(load_model(model, adapter=adapter, device="cpu"), loaded, None)
        said: Any = {"data": data, "licence": licence, "base_model": base_model, "base_licence": base_licence}
        out.print(publishable(loaded, to, qualities=qualities, repo_id=push or "owner/name", **said), highlight=False)
        if push is not None:
            out.print(upload(to, push, private=not public), highlight=False)


def _pair(here: float, card: float | None) -> str:
    return f"{here:.3f} / {'–' if card is None else f'{card:.3f}'}"
