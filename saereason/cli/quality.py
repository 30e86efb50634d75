"""How good SAEs are, as a table."""

from collections.abc import Sequence
from typing import Any

from .rows import Rows


def evaluated(lm: Any, saes: Any, data: Sequence[str] | None) -> list[Any]:
    """Quality on given data, or on rows that the default training holds out."""
    from saereason.progress import steps
    from saereason.quality import evaluate_saes

    with steps() as bars, bars.step("evaluate SAEs") as bar:
        return evaluate_saes(lm, saes, held_out(lm, data), progress=bar)


def held_out(lm: Any, data: Sequence[str] | None) -> list[Any]:
    """The rows of given sources, or those that the default training holds out."""
    from saereason.training import default_rows, read_rows, split_rows

    return [row for source in data or () for row in read_rows(lm, source)] or split_rows(default_rows(lm))[1]


def quality_rows(found: Sequence[Any], title: str) -> Rows:
    columns = ("explained_variance", "l0", "dead", "loss_clean", "loss_spliced", "loss_mean_ablated", "loss_recovered")
    rows = [(q.layer, *(float(getattr(q, name)) for name in columns)) for q in found]
    return Rows(("layer", *(name.replace("_", " ") for name in columns)), rows, title)


def figures(quality: Any) -> dict[str, Any]:
    """Everything measured, but for one rate a feature."""
    return {name: value for name, value in vars(quality).items() if name != "firing_rate"}
