"""Neuronpedia's exports: gzipped JSONL of features, of their activations and of explanations.

Read from hijohnnylin/neuronpedia (`export-data.py`, `schema.prisma`, `api/admin/import`), docs.neuronpedia.org
(`api-and-data/exports`) and SAEDashboard (`neuronpedia_export.py`).
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saereason.features import Feature
from saereason.runs import write_folder, write_text

from .dashboard import Dashboard, Excerpt, Explanation, Origin, plain_id
from .fields import band_of, bins_said, check_replaceable, figures_of, figures_said
from .lines import each_line, index_of, number, numbers, paired, text, texts, whole, write_lines

AT_ONCE = 1024
"""Features in a file, as in the exports."""

OURS = ("features", "activations", "explanations", "source.jsonl")
OTHERS = {f"{name}.jsonl" for name in ("model", "release", "sourceset", "inference_hosts")}
WANTED = "a file of a Neuronpedia export"

Key = tuple[str, str, int]
"""Model, source and index."""


def save_neuronpedia_features(
    folder: str | Path,
    dashboards: Sequence[Dashboard],
    *,
    model_id: str | None = None,
    sae_set: str | None = None,
    creator_id: str | None = None,
) -> Path:
    """Write dashboards as Neuronpedia's exports are: `<model>/<layer>-<set>/features/batch-0.jsonl.gz`, and so on.

    Model and set are those of each dashboard's origin where they are not given. A source's folder is written whole, in
    place of one that is there. Of what Neuronpedia imports, `model.jsonl`, `sourceset.jsonl` and `release.jsonl` are
    yours to add, and it wants the id of a creator. Texts and tokens are told of a source, by its first dashboard. Lost:
    neighbours in other layers, and the number of tokens where it is not rows times a whole number. Raises ValueError
    without dashboards, for ids that a path cannot hold, a feature given twice, and a folder that holds anything else.
    """
    folder, sources = Path(folder).absolute(), {}
    if not dashboards:
        raise ValueError("there are no dashboards to save; give at least one.")
    for each in dashboards:
        model = plain_id("model_id", model_id, each.origin.model)
        source = f"{each.feature.layer}-{plain_id('sae_set', sae_set, each.origin.sae_set)}"
        known = sources.setdefault((model, source), {})
        if each.feature.index in known:
            raise ValueError(f"{each.feature} of {model}/{source} is given twice; give each feature once.")
        known[each.feature.index] = each
    for model, source in sources:
        check_replaceable(folder / model / source, OURS)
    for (model, source), known in sources.items():
        ids = {"modelId": model, "layer": source}
        with write_folder(folder / model / source) as partial:
            _write(partial, list(known.values()), ids, creator_id)
    return folder


def load_neuronpedia_features(path: str | Path, features: Collection[Feature] | None = None) -> tuple[Dashboard, ...]:
    """The dashboards in a file of a Neuronpedia export, or in all files of a folder, by feature; some, if told which.

    What each line holds is seen by its fields, so files may be called anything that ends in `.jsonl` or `.jsonl.gz`.
    Lost: losses and attributions of tokens, correlations, vectors and embeddings. Raises ValueError, with file and
    line, for what is malformed.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no {path}; give {WANTED}, or a folder of such files.")
    kept = None if features is None else set(features)
    found: dict[Key, Dashboard] = {}
    seen: set[Key] = set()
    read_from: dict[tuple[str, str], Origin] = {}

    def use(said: dict[str, Any]) -> None:
        if {"id", "setName"} <= said.keys():
            model, source = _named(said, "modelId"), _named(said, "id")
            read_from[model, source] = _origin(said)
            return
        key = (_named(said, "modelId"), _named(said, "layer"), index_of(said, "index"))
        layer, sae_set = _parts(key[1])
        feature = Feature(layer, key[2])
        if kept is None or feature in kept:
            if "frac_nonzero" in said and key in seen:
                raise ValueError(f"{feature} is in the files twice")
            seen.update({key} if "frac_nonzero" in said else ())
            found[key] = _with(found.get(key) or Dashboard(feature, origin=Origin(key[0], sae_set)), said)

    for file in _files(path):
        each_line(file, WANTED, use)
    for (model, source, index), each in found.items():
        known = read_from.get((model, source), Origin())
        origin = replace(each.origin, dataset=known.dataset, n_rows=known.n_rows, n_tokens=known.n_tokens)
        found[model, source, index] = replace(each, origin=origin)
    return tuple(found[key] for key in sorted(found, key=lambda key: (found[key].feature, key)))


def _files(path: Path) -> list[Path]:
    """The files of lines at a path, but those that say nothing of features."""
    there = [path] if path.is_file() else sorted([*path.rglob("*.jsonl"), *path.rglob("*.jsonl.gz")])
    hidden = {file for file in there if any(part.startswith(".") for part in file.relative_to(path).parts)}
    files = [file for file in there if file.name not in OTHERS and file not in hidden]
    if not files:
        raise ValueError(
            f"{path} holds no features, activations or explanations as .jsonl or .jsonl.gz; give {WANTED}."
        )
    return files


def _with(known: Dashboard, said: Mapping[str, Any]) -> Dashboard:
    """What is known of a feature, and what a line adds to it."""
    if {"tokens", "values"} <= said.keys():
        band = band_of(number(said, "binMin"), number(said, "binMax"), number(said, "binContains"))
        at = whole(said, "qualifyingTokenIndex")
        read = Excerpt(texts(said, "tokens"), numbers(said, "values"), at, band)
        return replace(known, excerpts=(*known.excerpts, read))
    if "description" in said:
        methods = text(said, "explanationModelName"), text(said, "typeName")
        read = Explanation(_named(said, "description"), *methods)
        return replace(known, explanations=tuple(dict.fromkeys((*known.explanations, read))))
    if "frac_nonzero" not in said:
        raise ValueError(f"with {sorted(said)!s:.200} it is no feature, activation or explanation")
    near = paired(numbers(said, "topkCosSimIndices"), numbers(said, "topkCosSimValues"), "topkCosSimIndices")
    return replace(
        known,
        **figures_of(said),
        max_act=number(said, "maxActApprox"),
        neighbours=tuple((Feature(known.feature.layer, int(index)), cosine) for index, cosine in near),
        origin=replace(known.origin, hook_name=text(said, "hookName")),
    )


def _origin(said: Mapping[str, Any]) -> Origin:
    n_rows, length = whole(said, "num_prompts"), whole(said, "num_tokens_in_prompt")
    n_tokens = None if n_rows is None or length is None else n_rows * length
    return Origin(dataset=text(said, "dataset"), n_rows=n_rows, n_tokens=n_tokens)


def _named(said: Mapping[str, Any], key: str) -> str:
    found = text(said, key)
    if found is None:
        raise ValueError(f"it has no {key}, only {sorted(said)!s:.200}")
    return found


def _parts(source: str) -> tuple[int, str | None]:
    """Layer and set of a source such as `20-gemmascope-res-16k`."""
    match = re.fullmatch(r"(\d{1,9})(?:-(.+))?", source, re.ASCII)
    if match is None:
        raise ValueError(f"its layer is {source!r:.60}, which is no source such as 20-gemmascope-res-16k")
    return int(match[1]), match[2]


def _write(folder: Path, dashboards: Sequence[Dashboard], ids: Mapping[str, str], creator_id: str | None) -> None:
    for n, start in enumerate(range(0, len(dashboards), AT_ONCE)):
        some = dashboards[start : start + AT_ONCE]
        write_lines(folder / f"features/batch-{n}.jsonl.gz", (_figures(each, ids, creator_id) for each in some))
        write_lines(folder / f"activations/batch-{n}.jsonl.gz", _excerpts(some, ids, creator_id))
        if any(each.explanations for each in some):
            write_lines(folder / f"explanations/batch-{n}.jsonl.gz", _explanations(some, ids, creator_id))
    origin, source = dashboards[0].origin, ids["layer"]
    said = {
        "id": source,
        "modelId": ids["modelId"],
        "setName": source.partition("-")[2],
        "creatorId": creator_id,
        "hasDashboards": True,
        "dataset": origin.dataset,
        "num_prompts": origin.n_rows,
        "num_tokens_in_prompt": origin.row_length,
    }
    write_text(folder / "source.jsonl", json.dumps(said, allow_nan=False) + "\n")


def _figures(each: Dashboard, ids: Mapping[str, str], creator_id: str | None) -> dict[str, Any]:
    near = [(feature.index, cosine) for feature, cosine in each.neighbours if feature.layer == each.feature.layer]
    return {
        **ids,
        "index": str(each.feature.index),
        "creatorId": creator_id,
        "sourceSetName": ids["layer"].partition("-")[2],
        "maxActApprox": each.max_act,
        "hookName": each.origin.hook_name,
        "topkCosSimIndices": [index for index, _ in near],
        "topkCosSimValues": [cosine for _, cosine in near],
        "hasVector": False,
        "vector": [],
        **figures_said(each),
    }


def _excerpts(dashboards: Sequence[Dashboard], ids: Mapping[str, str], creator_id: str | None) -> Iterator[dict]:
    for each in dashboards:
        for n, shown in enumerate(each.excerpts):
            low, high, share = bins_said(shown, each)
            largest, least = max(shown.acts, default=0.0), min(shown.acts, default=0.0)
            yield {
                "id": _id(*ids.values(), each.feature.index, n),
                **ids,
                "index": str(each.feature.index),
                "creatorId": creator_id,
                "tokens": shown.tokens,
                "values": shown.acts,
                "maxValue": largest,
                "maxValueTokenIndex": shown.acts.index(largest) if shown.acts else 0,
                "minValue": least,
                "binMin": low,
                "binMax": high,
                "binContains": share,
                "qualifyingTokenIndex": shown.at,
                "dataSource": each.origin.dataset,
                "dfaValues": [],
                "dfaMaxValue": None,
                "dfaTargetIndex": None,
                "lossValues": [],
            }


def _explanations(dashboards: Sequence[Dashboard], ids: Mapping[str, str], author: str | None) -> Iterator[dict]:
    for each in dashboards:
        for n, said in enumerate(each.explanations):
            yield {
                "id": _id(*ids.values(), each.feature.index, "explanation", n),
                **ids,
                "index": str(each.feature.index),
                "authorId": author,
                "description": said.text,
                "typeName": said.method,
                "explanationModelName": said.author,
            }


def _id(*parts: Any) -> str:
    """An id for the database of Neuronpedia: the same for the same thing."""
    return "s" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
