"""SAEDashboard's batches: `batch-0.json` and so on, in a folder for each SAE.

Read from jbloomAus/SAEDashboard: `neuronpedia_dashboard.py` and `neuronpedia_converter.py`, and batches in its tests.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saereason.features import Feature
from saereason.runs import write_folder, write_text
from saereason.steering.exchange.reading import json_of, reading

from .dashboard import Dashboard, Excerpt, Origin, plain_id
from .fields import band_of, bins_said, check_replaceable, figures_of, figures_said
from .lines import index_of, number, numbers, objects, text, texts, whole

WANTED = "a batch that SAEDashboard wrote, or a folder of batches"


def save_sae_dashboard(
    folder: str | Path,
    dashboards: Sequence[Dashboard],
    *,
    model_id: str | None = None,
    sae_set: str | None = None,
    batch_size: int = 128,
) -> Path:
    """Write dashboards of one layer as SAEDashboard's Neuronpedia runner does, whose own tools read them.

    Model and set are those of the dashboards' origin where they are not given. A folder of batches is replaced. Lost:
    neighbours, explanations, the hook's name, the largest activation of a feature without excerpts, and the number of
    tokens where it is not rows times a whole number. Raises ValueError for several layers, models or sets, for a
    feature given twice, and for a folder that holds anything else.
    """
    folder = Path(folder).absolute()
    layers = sorted({each.feature.layer for each in dashboards})
    if len(layers) != 1 or batch_size < 1:
        raise ValueError(
            f"there are dashboards of layers {layers}, for batches of {batch_size}; give those of one layer, and at "
            "least 1 for a batch."
        )
    if len({each.feature for each in dashboards}) < len(dashboards):
        raise ValueError("a feature is given twice; give each feature once.")
    models = {plain_id("model_id", model_id, each.origin.model) for each in dashboards}
    sets = {plain_id("sae_set", sae_set, each.origin.sae_set) for each in dashboards}
    if len(models) > 1 or len(sets) > 1:
        raise ValueError(f"the dashboards are of {sorted(models)} and {sorted(sets)}; save those of each apart.")
    check_replaceable(folder, ("batch-*.json",))
    ids = {"model_id": models.pop(), "layer": layers[0], "sae_set": sets.pop()}
    with write_folder(folder) as partial:
        for n, start in enumerate(range(0, len(dashboards), batch_size)):
            some = [_said(each) for each in dashboards[start : start + batch_size]]
            write_text(partial / f"batch-{n}.json", json.dumps({**ids, "features": some}, allow_nan=False))
    return folder


def load_sae_dashboard(path: str | Path) -> tuple[Dashboard, ...]:
    """The dashboards in one of SAEDashboard's batches, or in all of a folder's, by feature.

    The figures have three decimals if SAEDashboard wrote them. The largest activation is what the strongest excerpts
    say that it is. Lost: attributions of tokens, neurons and features that go with it. Raises ValueError, with file
    and feature, for what is malformed.
    """
    path = Path(path)
    found: dict[tuple[Feature, Origin], Dashboard] = {}
    for file in [path] if path.is_file() else sorted(path.glob("batch-*.json")):
        with reading(file, WANTED):
            batch = json_of(file)
            if not isinstance(batch, dict) or not isinstance(batch.get("features"), list):
                raise ValueError("it has no list of features")
            for n, said in enumerate(objects(batch, "features")):
                try:
                    each = _read(said, batch)
                except (ValueError, OverflowError) as error:
                    raise ValueError(f"feature {n} of the batch: {error}") from error
                if found.setdefault((each.feature, each.origin), each) is not each:
                    raise ValueError(f"{each.feature} is in the batches twice")
    if not found and not path.is_file():
        raise ValueError(f"{path} holds no batch-*.json with features; give {WANTED}.")
    return tuple(sorted(found.values(), key=lambda each: each.feature))


def _said(each: Dashboard) -> dict[str, Any]:
    return {
        "feature_index": each.feature.index,
        **figures_said(each),
        "correlated_features_indices": [],
        "correlated_features_l1": [],
        "correlated_features_pearson": [],
        "n_prompts_total": each.origin.n_rows,
        "n_tokens_in_prompt": each.origin.row_length,
        "dataset": each.origin.dataset,
        "activations": [_excerpt_said(shown, each) for shown in each.excerpts],
    }


def _excerpt_said(shown: Excerpt, each: Dashboard) -> dict[str, Any]:
    bins = dict(zip(("bin_min", "bin_max", "bin_contains"), bins_said(shown, each), strict=True))
    return {**bins, "tokens": shown.tokens, "values": shown.acts, "qualifying_token_index": shown.at}


def _read(said: Mapping[str, Any], batch: Mapping[str, Any]) -> Dashboard:
    sae_set, suffix = text(batch, "sae_set"), text(batch, "sae_id_suffix")
    n_rows, length = whole(said, "n_prompts_total"), whole(said, "n_tokens_in_prompt")
    tops = [number(shown, "bin_max") for shown in objects(said, "activations") if number(shown, "bin_contains") == -1]
    return Dashboard(
        feature=Feature(index_of(batch, "layer"), index_of(said, "feature_index")),
        excerpts=tuple(_excerpt(shown) for shown in objects(said, "activations")),
        max_act=max((each for each in tops if each is not None), default=None),
        origin=Origin(
            model=text(batch, "model_id"),
            sae_set=f"{sae_set}__{suffix}" if sae_set and suffix else sae_set,
            dataset=text(said, "dataset"),
            n_rows=n_rows,
            n_tokens=None if n_rows is None or length is None else n_rows * length,
        ),
        **figures_of(said),
    )


def _excerpt(said: Mapping[str, Any]) -> Excerpt:
    band = band_of(number(said, "bin_min"), number(said, "bin_max"), number(said, "bin_contains"))
    return Excerpt(texts(said, "tokens"), numbers(said, "values"), whole(said, "qualifying_token_index"), band)
