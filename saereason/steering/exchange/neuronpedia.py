"""Steering as Neuronpedia's API takes it (`/api/steer`, `/api/steer-chat`), and as its interp-engine does."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from saereason.features import Feature
from saereason.model import Model
from saereason.runs import write_json, write_text
from saereason.saes import SAE, sae_at

from ..interventions import Intervention
from ..on_features import Add
from .additions import added, additions
from .reading import json_of, reading

CHOICES = {"steer_method": "SIMPLE_ADDITIVE", "steer_special_tokens": True}
"""Of what a request to Neuronpedia can ask, what means adding at every token."""


def save_neuronpedia(
    path: str | Path, model: Model, saes: Mapping[int, SAE], interventions: Sequence[Intervention]
) -> Path:
    """Write additions of features as the part of a request to Neuronpedia that says how to steer.

    Model and source go by the SAEs' `cfg.metadata.neuronpedia_id`. Raises ValueError for anything but `Add` that acts
    everywhere, an SAE without that id, and SAEs of two models.
    """
    features = []
    for i in additions(model, saes, interventions, "Neuronpedia"):
        if not isinstance(i, Add):
            raise ValueError(f"{i} adds a vector of your own and Neuronpedia steers with its features; give an Add.")
        name, _, source = str(_id(saes[i.layer])).partition("/")
        if not source:
            raise ValueError(
                f"the SAE at layer {i.layer} does not say what it is on Neuronpedia; set cfg.metadata.neuronpedia_id, "
                "such as gemma-2-2b/20-gemmascope-res-16k."
            )
        strength = float(i.coefficient)
        features.append({"modelId": name, "layer": source, "index": i.feature.index, "strength": strength})
    models = sorted({feature["modelId"] for feature in features})
    if len(models) > 1:
        raise ValueError(f"the SAEs are of the models {', '.join(models)} and a request is for one; save them apart.")
    path = Path(path)
    write_json(path, {"modelId": models[0], "features": features, "strength_multiplier": 1, **CHOICES})
    return path


def load_neuronpedia(path: str | Path, saes: Mapping[int, SAE]) -> tuple[Add, ...]:
    """The additions that a request to Neuronpedia asks for; a feature that it names twice is added up.

    Raises ValueError for any other file, for other ways to steer than adding at every token, and for a source that is
    none of the SAEs, by their `cfg.metadata.neuronpedia_id`.
    """
    path, sums = Path(path), {}
    layers = {_id(sae): layer for layer, sae in saes.items()}
    with reading(path, "a request to Neuronpedia"):
        said = json_of(path)
        if wrong := [key for key, value in CHOICES.items() if said.get(key, value) != value]:
            raise ValueError(f"its {wrong[0]} is {said[wrong[0]]!r:.60}, which is no addition at every token")
        for each in said["features"]:
            source = f"{each['modelId']}/{each['layer']}"
            if source not in layers:
                raise ValueError(f"it steers with {source!r:.80}, and the SAEs given are {sorted(map(str, layers))}")
            feature = Feature(layers[source], int(str(each["index"])))
            sae_at(saes, feature)
            strength = float(each["strength"]) * float(said.get("strength_multiplier", 1))
            sums[feature] = sums.get(feature, 0.0) + strength
        return tuple(Add(feature, strength) for feature, strength in sums.items())


def save_interp_engine(
    path: str | Path, model: Model, saes: Mapping[int, SAE] | None, interventions: Sequence[Intervention]
) -> Path:
    """Write additions as what `steering` is in a request to interp-engine's server.

    Raises ValueError for anything but `Add` and `AddVector` that act everywhere.
    """
    layers = {
        layer: [{"method": "additive", "vector": vector.tolist(), "scale": 1.0}]
        for layer, vector in added(model, saes, interventions, "interp-engine").items()
    }
    path = Path(path)
    write_text(path, json.dumps([{"point": "resid_post", "layers": layers}], allow_nan=False) + "\n")
    return path


def _id(sae: SAE) -> str | None:
    return getattr(sae.cfg.metadata, "neuronpedia_id", None)
