"""Rows of a benchmark from the Hugging Face hub, the only place here that fetches anything."""

from dataclasses import dataclass

from .rows import Numbered


@dataclass(frozen=True)
class Hub:
    """A dataset of the hub, its split, and how it names parts: as configurations, or as numbers in a column."""

    dataset: str
    split: str
    config: str | None = None
    part: str | None = None
    """`config`, or the name of the column."""


def fetched_rows(hub: Hub, part: str | None) -> list[Numbered]:
    """The rows of a part. Raises ValueError where the dataset or the part cannot be had, offline too."""
    from datasets import load_dataset

    config = part if hub.part == "config" else hub.config
    try:
        found = load_dataset(hub.dataset, config, split=hub.split)
    except (OSError, ValueError) as error:  # no connection, no such dataset, no such configuration
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{hub.dataset} could not be read from the hub ({reason}); go online, or give `source`, your own copy."
        ) from error
    rows: list[Numbered] = [(n, dict(row)) for n, row in enumerate(found, 1)]
    if hub.part not in (None, "config"):
        parts = sorted({row[hub.part] for _, row in rows})
        rows = [(n, row) for n, row in rows if str(row[hub.part]) == part]
        if not rows:
            raise ValueError(f"no part {part!r} in {hub.dataset}; there are {parts}.")
    if not rows:
        raise ValueError(f"{hub.dataset} has no rows in {hub.split}; give `source`, your own copy.")
    return rows
