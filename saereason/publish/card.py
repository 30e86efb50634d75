"""The model card of published SAEs, as Markdown with the front matter the hub reads."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from saereason.quality import Quality
from saereason.saes import SAE, layer_of, sae_hash

COLUMNS = {
    "explained_variance": "explained variance",
    "l0": "L0",
    "dead": "dead share",
    "loss_clean": "loss, clean",
    "loss_spliced": "loss with the SAE",
    "loss_mean_ablated": "loss with the mean",
    "loss_recovered": "loss recovered",
    "mean_norm": "mean norm",
    "n_tokens": "tokens",
}
LIMITS = """\
- A feature is a direction that training found useful, not a proven part of how the model works. A name given to a
  feature is a guess until a test that could have failed has been passed.
- The SAEs belong to the weights named above. On other weights, a fine-tuned or quantised copy among them, features may
  mean something else; measure first (`saereason check`).
- They were trained on the data named above and may explain other text less well. The first token of each text is left
  out of the figures.
- What an SAE does not reconstruct is still in the model: no figure here says that what is missing does not matter.
- Dead features fired on none of the tokens measured; on other text they may.
"""


def write_card(
    saes: Mapping[int, SAE],
    qualities: Sequence[Quality],
    *,
    data: str,
    licence: str,
    base_model: str | None,
    base_licence: str | None,
    repo_id: str,
) -> str:
    """The card's text. Raises ValueError for a layer without figures."""
    figures = {layer: _figures(sae, layer, qualities) for layer, sae in sorted(saes.items())}
    sections = [
        _front(licence, base_model),
        _opening(saes),
        _quality_section(figures),
        _data_section(data, licence, base_model, base_licence),
        _training_section(saes),
        _loading_section(saes, repo_id),
        f"## Limits\n\n{LIMITS}",
    ]
    return "\n".join(sections)


def plain(text: object) -> str:
    """Text of others as one line of Markdown that stays text: no line break, tag, link, table cell or emphasis."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return re.sub(r"([\\`*_\[\]|#~$!])", r"\\\1", html.escape(" ".join(line.split()), quote=False))


def _figures(sae: SAE, layer: int, qualities: Sequence[Quality]) -> dict[str, int | float]:
    if layer_of(sae, f"the SAE at layer {layer}") != layer:
        raise ValueError(f"the SAE given for layer {layer} reads layer {layer_of(sae)}; give it under that layer.")
    found = [vars(quality) for quality in qualities if quality.layer == layer]
    given = found[0] if found else sae.cfg.metadata.quality
    if not isinstance(given, Mapping):
        raise ValueError(f"there are no figures for layer {layer}; measure with `evaluate_saes` and give `qualities`.")
    return {name: given[name] for name in COLUMNS if isinstance(given.get(name), int | float)}


def _front(licence: str, base_model: str | None) -> str:
    from huggingface_hub import ModelCardData

    tags = ["sparse-autoencoder", "mechanistic-interpretability", "saelens", "saereason"]
    card = ModelCardData(library_name="saelens", license=licence, base_model=base_model, tags=tags)
    return f"---\n{card.to_yaml()}\n---\n"


def _opening(saes: Mapping[int, SAE]) -> str:
    models = sorted({str(sae.cfg.metadata.model_name or "an unnamed model") for sae in saes.values()})
    where = ", ".join(map(str, sorted(saes)))
    return (
        f"# SAEs on {plain(', '.join(models))}\n\nSparse autoencoders of the residual stream after the blocks {where} "
        "(counted from 0), in SAELens's format, published with saereason.\n"
    )


def _quality_section(figures: Mapping[int, Mapping[str, int | float]]) -> str:
    shown = [name for name in COLUMNS if any(name in row for row in figures.values())]
    rows = [(layer, *(_number(row.get(name)) for name in shown)) for layer, row in figures.items()]
    return (
        "## How good they are\n\n"
        + _table(("layer", *(COLUMNS[name] for name in shown)), rows)
        + "\nLosses are the next token's cross-entropy, nats per token: as the model stands, with the SAE's output in "
        "place of the residual stream, and with its mean there. Loss recovered is the share of the way from the mean "
        "back to the clean loss. Dead share: features that fired on none of these tokens.\n"
    )


def _data_section(data: str, licence: str, base_model: str | None, base_licence: str | None) -> str:
    base = "Licence of the base model" + (f" ({plain(base_model)})" if base_model else "")
    theirs = plain(base_licence) if base_licence else "not stated here; look it up before use"
    return f"## Data and licences\n\nTrained on: {plain(data)}\n\nLicence of the SAEs: {licence}. {base}: {theirs}.\n"


def _training_section(saes: Mapping[int, SAE]) -> str:
    facts = {layer: _facts(sae) for layer, sae in sorted(saes.items())}
    rows = []
    for name in dict.fromkeys(name for each in facts.values() for name in each):
        by_layer = {layer: str(each.get(name, "not stated")) for layer, each in facts.items()}
        same = len(set(by_layer.values())) == 1
        says = [] if same else [f"layer {layer}: {value}" for layer, value in by_layer.items()]
        rows.append((name, next(iter(by_layer.values())) if same else "; ".join(says)))
    return "## How they were made\n\n" + _table(("", ""), rows)


def _facts(sae: SAE) -> dict[str, object]:
    """What is known of an SAE, by name."""
    card = sae.cfg.metadata
    design = card.design if isinstance(card.design, Mapping) else {}
    known = {
        "model": card.model_name,
        "hash of the model's weights": card.model_hash,
        "architecture": sae.cfg.architecture(),
        "d_model": sae.cfg.d_in,
        "d_sae": sae.cfg.d_sae,
        **{f"design: {name}": value for name, value in design.items() if value is not None},
        "seed": card.seed,
        "training tokens": card.n_tokens,
        "texts begin with BOS": card.prepend_bos,
        "precision of the weights": str(sae.W_dec.dtype).removeprefix("torch."),
        "hash of the SAE": sae_hash(sae),
        "SAELens": card.sae_lens_training_version,
        "saereason": version("saereason"),
    }
    return {name: "not stated" if value is None else value for name, value in known.items()}


def _loading_section(saes: Mapping[int, SAE], repo_id: str) -> str:
    layer = min(saes)
    return f"""## How to load them

With SAELens:

```python
from sae_lens import SAE

sae = SAE.from_pretrained("{repo_id}", "layer_{layer:02d}")
```

With saereason, all layers at once:

```python
from huggingface_hub import snapshot_download
import saereason as sr

saes = sr.load_saes(snapshot_download("{repo_id}"))
model = sr.load_model("…")  # the weights named above
sr.preflight(model, saes)  # do they belong to it?
```
"""


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *([plain(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: int | float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
