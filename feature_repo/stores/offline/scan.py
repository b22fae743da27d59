"""The narrow side of a query: references, keys and times of snapshot rows as SQL that DuckDB runs over the files.

Times are compared at microseconds, a feature's rounded up and an entity row's down, so a value is never used before
its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.stores.offline.footers import in_window, naming, read_footer
from feature_repo.stores.offline.snapshots import REFERENCE_SHIFT, SnapshotError, Snapshots

NEVER = "(-9223372036854775808)::BIGINT"
"""Stands for a created_timestamp that is null."""

_TIMES = ("TIMESTAMP", "DATE")


def scan(
    connection: duckdb.DuckDBPyConnection,
    snapshots: Snapshots,
    keys: Sequence[str],
    oldest: int | None,
    newest: int | None,
) -> str:
    """SQL of `reference`, keys `k0`…, time `t` and `created` of the rows between two Unix times.

    Files whose statistics put them outside the window are not opened.

    Raises:
        SnapshotError: A file is damaged or lacks a key or a time.
    """
    files = in_window(snapshots, oldest, newest)
    if not files:
        files = [0]  # For the types of the keys.
    for index in files:
        _check_columns(snapshots, index, keys)
    names = _narrow_columns(snapshots, keys)
    parts = [_scan_run(connection, snapshots, run, keys, oldest, newest) for run in _runs(snapshots, files, names)]
    return " UNION ALL ".join(parts)


def key_types(snapshots: Snapshots, keys: Sequence[str]) -> dict[str, pa.DataType]:
    """Arrow type of each key in the newest file that has it; of a folder's name, whole numbers if all are, else text.

    Keys that no file has are left out.
    """
    types: dict[str, pa.DataType] = {}
    for index in reversed(range(len(snapshots.files))):
        schema = read_footer(snapshots.files[index], snapshots.label).schema
        for name in keys:
            if name in schema.names:
                types.setdefault(name, schema.field(name).type)
            elif name in snapshots.partition(index):
                types.setdefault(name, pa.int64() if _are_numbers(snapshots, name) else pa.string())
        if len(types) == len(keys):
            break
    return types


@contextmanager
def reading(snapshots: Snapshots, keys: Sequence[str]) -> Iterator[None]:
    """Name the file that DuckDB could not read: it says what is wrong, but not always where.

    Raises:
        SnapshotError: A file is damaged.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.IOException as error:
        damaged = [path for path in snapshots.files if f'"{path}"' in str(error)]
        if not damaged:
            raise
        raise SnapshotError(
            f"{snapshots.label}: {damaged[0]} must be a whole parquet file (got: {error}); restore it, or delete it "
            f"and write it again"
        ) from error
    except duckdb.Error as error:
        for path in snapshots.files:
            held = read_footer(path, snapshots.label).schema.names
            with naming(path, snapshots.label):
                pq.read_table(path, columns=[name for name in _narrow_columns(snapshots, keys) if name in held])
        raise SnapshotError(f"{snapshots.label} must have files that can be read (got: {error})") from error


def _narrow_columns(snapshots: Snapshots, keys: Sequence[str]) -> list[str]:
    return [snapshots.timestamp_field, *keys, *filter(None, [snapshots.created_field])]


def _check_columns(snapshots: Snapshots, index: int, keys: Sequence[str]) -> None:
    path = snapshots.files[index]
    held = read_footer(path, snapshots.label).schema.names
    partition = snapshots.partition(index)
    wanted = _narrow_columns(snapshots, keys)
    absent = [name for name in wanted if name not in held and not (name in keys and name in partition)]
    if absent:
        raise SnapshotError(
            f"{snapshots.label} must have columns {wanted} in {path} (lacks {absent}); "
            f"write that file again, or name the columns of the source as the file does"
        )


def _runs(snapshots: Snapshots, files: Sequence[int], names: Sequence[str]) -> Iterator[list[int]]:
    """Neighbouring files that one `read_parquet` can read: alike in their narrow columns and their partition."""

    def kind(item: tuple[int, int]) -> object:
        position, index = item
        schema = read_footer(snapshots.files[index], snapshots.label).schema
        types = [str(schema.field(name).type) if name in schema.names else None for name in names]
        partition = snapshots.partition(index)
        return index - position, types, [partition.get(name) for name in names]

    for _, run in groupby(enumerate(files), key=kind):
        yield [index for _, index in run]


def _scan_run(
    connection: duckdb.DuckDBPyConnection,
    snapshots: Snapshots,
    run: Sequence[int],
    keys: Sequence[str],
    oldest: int | None,
    newest: int | None,
) -> str:
    files = ", ".join(literal(str(snapshots.files[index])) for index in run)
    source = f"read_parquet([{files}], hive_partitioning = false)"
    types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    event, created = identifier(snapshots.timestamp_field), snapshots.created_field
    stamp = _time(snapshots, snapshots.timestamp_field, types)
    columns = [
        f"((file_index::BIGINT + {run[0]}) << {REFERENCE_SHIFT}) | file_row_number AS reference",
        *(f"{_key(snapshots, run[0], name, types)} AS k{i}" for i, name in enumerate(keys)),
        f"{stamp} AS t",
        f"{f'coalesce({_time(snapshots, created, types)}, {NEVER})' if created else NEVER} AS created",
    ]
    bounds = [f"{event} IS NOT NULL"]
    if types[snapshots.timestamp_field] == "TIMESTAMP WITH TIME ZONE":
        # On the raw column, so that row groups outside the window are not read.
        bounds += [f"{event} >= make_timestamptz({oldest})"] if oldest is not None else []
        bounds += [f"{event} <= make_timestamptz({newest})"] if newest is not None else []
    outer = [f"t >= {oldest}"] if oldest is not None else []
    outer += [f"t <= {newest}"] if newest is not None else []
    found = f"SELECT {', '.join(columns)} FROM {source} WHERE {' AND '.join(bounds)}"
    return f"SELECT * FROM ({found}) WHERE {' AND '.join(outer)}" if outer else found


def _key(snapshots: Snapshots, index: int, name: str, types: dict[str, str]) -> str:
    if name not in types:
        value = snapshots.partition(index)[name]
        kind = "BIGINT" if _are_numbers(snapshots, name) else "VARCHAR"
        return f"CAST({'NULL' if value is None else literal(value)} AS {kind})"
    return _time(snapshots, name, types) if types[name].startswith("TIMESTAMP") else identifier(name)


def _are_numbers(snapshots: Snapshots, name: str) -> bool:
    values = (snapshots.partition(index).get(name) for index in range(len(snapshots.files)))
    return all(value is None or value.lstrip("-").isdecimal() for value in values)


def _time(snapshots: Snapshots, name: str, types: dict[str, str]) -> str:
    """Unix microseconds of a column of moments of any unit, rounded up; a naive one is UTC, as everywhere in Feast."""
    kind, column = types[name], identifier(name)
    if not kind.startswith(_TIMES):
        raise SnapshotError(f"{snapshots.label}: {name} must hold timestamps (got {kind}); write its files again")
    if kind in ("TIMESTAMPTZ_NS", "TIMESTAMP_NS"):
        nanoseconds = f"epoch_ns({column})"
        return f"({nanoseconds} // 1000 + CASE WHEN {nanoseconds} % 1000 > 0 THEN 1 ELSE 0 END)"
    return f"epoch_us({column})"


def identifier(name: str) -> str:
    """A name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text quoted for SQL."""
    return "'" + text.replace("'", "''") + "'"
