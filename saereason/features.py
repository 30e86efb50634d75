"""A feature, and a table of what is known about many."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, order=True)
class Feature:
    """One latent of the SAE at `layer`: row `index` of its decoder. Prints as `L19/3374`."""

    layer: int
    index: int

    def __str__(self) -> str:
        return f"L{self.layer}/{self.index}"

    @classmethod
    def parse(cls, text: str) -> "Feature":
        """The feature a text such as `L19/3374` names. Raises ValueError for any other text."""
        match = re.fullmatch(r"[Ll](\d+)/(\d+)", text.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a feature; write it as layer and index, such as L19/3374.")
        return cls(int(match[1]), int(match[2]))


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """One row a feature, in columns of equal length; `layer` and `index` are always there."""

    columns: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if not {"layer", "index"} <= set(lengths) or len(set(lengths.values())) > 1:
            raise ValueError(f"columns have lengths {lengths}; layer and index must be there, all of one length.")

    def __len__(self) -> int:
        return len(self.columns["index"])

    def __iter__(self) -> Iterator[Feature]:
        return (Feature(int(a), int(b)) for a, b in zip(self["layer"], self["index"], strict=True))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            raise ValueError(f"no column {name!r}; there are {sorted(self.columns)}.")
        return self.columns[name]

    def where(self, rows: Any) -> "FeatureTable":
        """The rows a boolean mask or an array of row numbers selects."""
        return FeatureTable({name: column[rows] for name, column in self.columns.items()})

    def at(self, layer: int) -> "FeatureTable":
        return self.where(self["layer"] == layer)

    def top(self, k: int, by: str) -> "FeatureTable":
        """The k rows with the highest value in a column, best first; ties in the table's order, NaN last."""
        if k < 0:
            raise ValueError(f"k is {k}; it must be at least 0.")
        falling = -self[by].astype(np.float64)
        rows = np.arange(len(self))
        if 0 < k < len(self):
            least = np.partition(falling, k - 1)[k - 1]  # NaN where fewer have a value
            rows = np.flatnonzero(~(falling > least)) if np.isnan(least) else np.flatnonzero(falling <= least)
        return self.where(rows[np.argsort(falling[rows], kind="stable")[:k]])

    def sort(self, by: str) -> "FeatureTable":
        """All rows, the highest value in a column first; ties in the table's order, NaN last."""
        return self.top(len(self), by)

    def row(self, feature: Feature) -> dict[str, Any]:
        """Everything known of one feature."""
        found = np.flatnonzero((self["layer"] == feature.layer) & (self["index"] == feature.index))
        if len(found) != 1:
            raise ValueError(f"{feature} is in the table {len(found)} times; it should be there once.")
        return {name: column[found].tolist()[0] for name, column in self.columns.items()}

    def with_column(self, name: str, values: np.ndarray) -> "FeatureTable":
        return FeatureTable({**self.columns, name: values})

    def join(self, other: "FeatureTable") -> "FeatureTable":
        """These rows with the other table's columns, feature by feature; NaN where it does not have the feature.

        Raises ValueError for a column that both have, and for a feature that the other has twice.
        """
        import pandas as pd

        keys = ["layer", "index"]
        both = sorted(self.columns.keys() & other.columns.keys() - {*keys})
        if both:
            raise ValueError(f"both tables have {both}; leave it out of one, or give it another name.")
        try:
            frame = self.to_pandas().merge(other.to_pandas(), on=keys, how="left", validate="many_to_one")
        except pd.errors.MergeError:
            raise ValueError("the other table has a feature twice; give each once.") from None
        return FeatureTable({str(name): frame[name].to_numpy() for name in frame.columns})

    def to_pandas(self) -> Any:
        import pandas as pd

        return pd.DataFrame(dict(self.columns))

    def save(self, path: str | Path) -> None:
        """Write the table as Parquet."""
        from .runs import write_table

        write_table(Path(path), self.to_pandas())

    @classmethod
    def load(cls, path: str | Path) -> "FeatureTable":
        import pandas as pd

        frame = pd.read_parquet(path)
        return cls({str(name): frame[name].to_numpy() for name in frame.columns})
