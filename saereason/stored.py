"""Feature tables on disk, in a Parquet file or in a run, asked through DuckDB without reading them whole."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .features import Feature, FeatureTable
from .runs import Run

KEYS = {"layer", "index"}


def ranked(
    path: str | Path,
    by: str,
    k: int = 20,
    *,
    layers: Sequence[int] = (),
    where: str = "",
    lowest: bool = False,
    view: str | None = None,
) -> tuple[FeatureTable, int]:
    """The k features with the highest value in a column (or the lowest), best first, and how many there are in all.

    `where` is a condition in SQL on the table's columns. Ties are in order of layer and index; what has no value comes
    last. Raises ValueError for a table, a column or a condition that is none.
    """
    if k < 1:
        raise ValueError(f"k is {k}; ask for at least 1 feature.")
    rows = _with_column(_tables(path, view), path, by)
    column, text = _quoted(by), where or f"{by} as a number"
    with _asked(text, rows.columns):
        if layers:
            rows = rows.filter(f"layer IN ({', '.join(str(int(layer)) for layer in layers)})")
        if where:
            rows = rows.filter(where)
        order = f"isnan({column}::DOUBLE), {column} {'ASC' if lowest else 'DESC'} NULLS LAST, layer, index"
        frame, n = rows.order(order).limit(k).df(), rows.shape[0]
    return FeatureTable({str(name): frame[name].to_numpy() for name in frame.columns}), n


def scores_of(path: str | Path, feature: Feature, *, view: str | None = None) -> dict[str, Any]:
    """What the tables at a path hold of one feature, by column; of a run, those that have the feature once.

    Columns of a run's tables are called `table.column`. Raises ValueError if no table has the feature once.
    """
    found: dict[str, Any] = {}
    for name, rows in _tables(path, view).items():
        if set(rows.columns) >= KEYS:
            frame = rows.filter(f"layer = {feature.layer} AND index = {feature.index}").limit(2).df()
            if len(frame) == 1:
                [row] = frame.drop(columns=[*KEYS]).to_dict("records")
                found |= {f"{name}.{column}" if name else str(column): value for column, value in row.items()}
    if not found:
        raise ValueError(f"{path} holds no table that has {feature} once; give the table of its search.")
    return found


def _tables(path: str | Path, view: str | None) -> dict[str, Any]:
    """The tables at a path by name; that of a file has none."""
    path = Path(path)
    if path.is_dir():
        con = Run.open(path).con()
        names = [name for (name,) in con.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()]
        if view is not None and view not in names:
            raise ValueError(f"no table {view!r} in {path}; there are {sorted(names)}.")
        return {name: con.sql(f"FROM {_quoted(name)}") for name in names if view in (None, name)}
    if not path.is_file():
        raise ValueError(f"no table at {path}; give a Parquet file or the folder of a run.")
    import duckdb

    try:
        return {"": duckdb.connect().read_parquet(str(path))}
    except duckdb.Error as error:
        raise ValueError(f"{path} is no Parquet file that can be read ({_first_line(error)}).") from error


def _with_column(tables: dict[str, Any], path: str | Path, column: str) -> Any:
    """The one table of features that has a column."""
    of_features = {name: rows for name, rows in tables.items() if set(rows.columns) >= KEYS}
    found = {name: rows for name, rows in of_features.items() if column in rows.columns}
    if not of_features:
        raise ValueError(f"{path} holds no table of features, which has the columns layer and index.")
    if not found:
        there = sorted({name for rows in of_features.values() for name in rows.columns} - KEYS)
        raise ValueError(f"no column {column!r} in {path}; there are {there}.")
    if len(found) > 1:
        raise ValueError(f"{len(found)} tables of {path} have a column {column!r}; name one as view: {sorted(found)}.")
    return next(iter(found.values()))


@contextmanager
def _asked(text: str, columns: Sequence[str]) -> Iterator[None]:
    """DuckDB's errors within the block as one sentence."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        said = _first_line(error).rstrip(".")
        raise ValueError(f"{text!r} cannot be asked ({said}); the columns are {list(columns)}.") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
