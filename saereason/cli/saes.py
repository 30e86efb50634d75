"""Check SAEs, and publish them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .quality import evaluated, figures, quality_rows
from .rows import Rows
from .shell import Adapter, Data, Gguf, Json, ModelName, Saes, plain_errors


def check(
    saes: Saes,
    model: ModelName = "smollm2-135m",
    gguf: Gguf = None,
    adapter: Adapter = None,
    data: Data = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only whether they fit, not how good they are.")] = False,
    as_json: Json = False,
) -> None:
    """Do these SAEs belong to this model, and how good are they on it? Ends with exit code 2 if one does not fit."""
    with plain_errors(as_json) as show:
        from saereason.loading import load_model
        from saereason.preflight import preflight
        from saereason.saes import saes_of

        lm = load_model(model, adapter=adapter, gguf=gguf)
        loaded = saes_of(saes, device=lm.device)
        fits = preflight(lm, loaded, strict=False)
        notes = [f"- layer {fit.layer}: {note}" for fit in fits for note in fit.notes]
        title = f"Do the SAEs of {saes} belong to {lm.name}? ({fits[0].n_tokens} tokens)"
        show({"model": lm.name, "saes": saes, "fits": fits}, _fit_rows(fits, title), *notes)
        unfit = [fit.layer for fit in fits if not fit.fits]
        if unfit:
            raise ValueError(f"the SAEs at layers {unfit} do not fit {lm.name}; the notes say why.")
        if not quick:
            found = evaluated(lm, loaded, data)
            show({"qualities": [figures(each) for each in found]}, quality_rows(found, saes))


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
    as_json: Json = False,
) -> None:
    """Write SAEs and a model card to a folder, and push it to the Hugging Face hub if a repository is named."""
    with plain_errors(as_json) as show:
        from saereason.loading import load_model
        from saereason.publish import publishable
        from saereason.publish import push as upload
        from saereason.saes import saes_of

        loaded, qualities = saes_of(saes), []
        if model is not None:
            qualities = evaluated(load_model(model, adapter=adapter, device="cpu"), loaded, None)
        said: Any = {"data": data, "licence": licence, "base_model": base_model, "base_licence": base_licence}
        folder = publishable(loaded, to, qualities=qualities, repo_id=push or "owner/name", **said)
        show({"folder": folder, "qualities": [figures(each) for each in qualities]}, folder)
        if push is not None:
            address = upload(to, push, private=not public)
            show({"address": address}, address)


def _fit_rows(fits: Sequence[Any], title: str) -> Rows:
    measured = ("explained_variance", "l0", "mean_norm")
    header = ("layer", "fits", *(f"{name}, here / card" for name in ("explained variance", "L0", "mean norm")))
    rows = [
        (f.layer, "yes" if f.fits else "NO", *(_pair(getattr(f, n), getattr(f, f"card_{n}")) for n in measured))
        for f in fits
    ]
    return Rows(header, rows, title)


def _pair(here: float, card: float | None) -> str:
    return f"{here:.3f} / {'–' if card is None else f'{card:.3f}'}"
