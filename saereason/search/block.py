"""One pooled activation for each prompt and feature, on disk: what ranks and resampling read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Bool, Float, Int

from saereason.runs import write_folder
from saereason.stats import max_t, max_t_groups
from saereason.stats.families import Columns

VALUES, ROWS, FEATURES = "values.npy", "rows.npy", "features.npy"


@dataclass(frozen=True, eq=False)
class Block:
    """Activations `[observation, feature]`, mapped from disk; an observation is one group's tokens of one label."""

    folder: Path

    @property
    def values(self) -> Float[np.ndarray, "observation feature"]:
        """Mapped anew each time, for a few places: what was read of a map, and what lies around it, is resident memory
        for as long as the map lives. Whole columns are `read`.
        """
        return np.load(self.folder / VALUES, mmap_mode="r")

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.features)

    def read(self, columns: slice) -> Float[np.ndarray, "observation part"]:
        """The activations of neighbouring features, row by row from the file and into memory of their size alone."""
        n, width = self.shape
        start, stop, _ = columns.indices(width)
        found = np.empty((n, max(0, stop - start)), dtype="<f4")
        with (self.folder / VALUES).open("rb", buffering=0) as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            first = file.tell()
            for row in range(n if found.size else 0):
                file.seek(first + found.itemsize * (row * width + start))
                if file.readinto(found[row].data) != found[row].nbytes:
                    raise ValueError(f"the block at {self.folder} ends early; search again.")
        return found

    def __getitem__(self, place: tuple[slice, slice]) -> Float[np.ndarray, "observation part"]:
        return self.read(place[1])[place[0]]

    @cached_property
    def rows(self) -> Int[np.ndarray, "observation 2"]:
        """Group and label (1 where the behaviour shows)."""
        return np.load(self.folder / ROWS)

    @cached_property
    def features(self) -> Int[np.ndarray, "feature 2"]:
        """Layer and index."""
        return np.load(self.folder / FEATURES)

    @property
    def label(self) -> Bool[np.ndarray, "observation"]:
        return self.rows[:, 1] == 1

    @property
    def paired(self) -> bool:
        """True where every group has one observation on and one off."""
        return is_paired(self.rows)

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.rows[:, 0]))

    def chunks(self, width: int = 1024) -> Iterator[tuple[slice, Float[np.ndarray, "observation part"]]]:
        """Features a few at a time, in memory."""
        for start in range(0, self.shape[1], width):
            columns = slice(start, start + width)
            yield columns, self.read(columns)

    @property
    def differences(self) -> "Differences":
        """Activation on less off, `[pair, feature]`, read as it is used. Raises ValueError without pairs."""
        if not self.paired:
            raise ValueError(f"the observations in {self.folder} are not pairs, so they have no differences.")
        return Differences(self)

    def max_t(
        self, columns: Int[np.ndarray, "chosen"] | None = None, *, n_permutations: int = 1000, seed: int = 0
    ) -> Float[np.ndarray, "chosen"]:
        """p-values adjusted for the family of all features, or of some columns: by sign flips of pairs, or by shuffles.

        Raises ValueError where a group has both labels but not every group has.
        """
        options = {"n_permutations": n_permutations, "seed": seed}
        values = self if columns is None else np.ascontiguousarray(self.values[:, columns])
        if self.paired:
            return max_t(Differences(values), **options)
        groups = self.rows[:, 0]
        if len(np.unique(groups)) < len(groups):
            raise ValueError(f"some groups in {self.folder} have both labels and some do not; give pairs, or none.")
        return max_t_groups(values, self.label, **options)

    @classmethod
    def open(cls, folder: str | Path) -> "Block":
        """The block in a folder. Raises ValueError where there is none."""
        path = Path(folder)
        if not (path / VALUES).is_file():
            raise ValueError(f"no block of activations at {path}; give the folder that `search` was asked to write.")
        return cls(path)


@dataclass(frozen=True, eq=False)
class Differences:
    """On less off of the pairs in a block, as an array that is read in columns."""

    values: Columns

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0] // 2, self.values.shape[1]

    def __getitem__(self, place: tuple[slice, slice]) -> np.ndarray:
        part = self.values[:, place[1]]
        return (part[::2] - part[1::2])[place[0]]


@contextmanager
def filled(folder: Path, n: int, features: np.ndarray) -> Iterator["Filling"]:
    """A block to fill batch by batch, there under its name only once it is whole; it replaces another block.

    Raises ValueError for a folder that holds anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, and a block is a folder; give an empty or a new one.")
    if folder.is_dir() and {path.name for path in folder.iterdir()} - {VALUES, ROWS, FEATURES}:
        raise ValueError(f"{folder} holds other files, which a block would replace; give an empty or a new folder.")
    with write_folder(folder) as partial:
        np.save(partial / FEATURES, features)
        with (partial / VALUES).open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (n, len(features))}
            np.lib.format.write_array_header_1_0(file, header)
            filling = Filling(file, [])
            yield filling
        np.save(partial / ROWS, np.concatenate(filling.rows))


@dataclass(frozen=True, eq=False)
class Filling:
    file: BinaryIO
    """Written to, not mapped, so that what is on disk takes no memory."""

    rows: list[np.ndarray]

    def add(self, rows: Int[np.ndarray, "observation 2"], values: Float[np.ndarray, "observation feature"]) -> None:
        self.file.write(np.ascontiguousarray(values, dtype="<f4").data)
        self.rows.append(rows)


def is_paired(rows: Int[np.ndarray, "observation 2"]) -> bool:
    """True for groups that each have one observation on and then one off."""
    on, off = rows[::2], rows[1::2]
    return len(on) == len(off) > 0 and bool(
        (on[:, 0] == off[:, 0]).all() and (on[:, 1] == 1).all() and not off[:, 1].any()
    )
