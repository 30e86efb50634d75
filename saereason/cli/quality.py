"""How good SAEs are, as a table."""

from typing import Any

from .shell import show_table


def evaluated(lm: Any, saes: Any, data: list[str] | None) -> list[Any]:
    """Quality on given data, or on rows that the default training holds out."""
    from saereason.progress import steps
    from saereason.quality import evaluate_saes
    from saereason.training import default_rows, read_rows, split_rows

    rows = [row for source in data or () for row in read_rows(lm, source)] or split_rows(default_rows(lm))[1]
    with steps() as bars, bars.step("evaluate SAEs") as show:
        return evaluate_saes(lm, saes, rows, progress=show)


def show_quality(found: list[Any], title: str) -> None:
    columns = ("explained_variance", "l0", "dead", "loss_clean", "loss_spliced", "loss_mean_ablated", "loss_recovered")
    rows = [(q.layer, *(f"{getattr(q, name):.3f}" for name in columns)) for q in found]
    show_table(("layer", *(name.replace("_", " ") for name in columns)), rows, title)
