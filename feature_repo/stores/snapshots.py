"""Parquet files behind a feature view, and the rows of them that a query picked.

A row is named by a *reference*: the file's index shifted by 40 bits, plus the row's number in its file.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource

REFERENCE_SHIFT = 40
"""Bits of a reference that hold the row number."""

References = npt.NDArray[np.int64]


class MissingSnapshotsError(FileNotFoundError):
    """A feature view has no snapshot yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshots:
    """The files of one source and the names of its columns in them."""

    label: str
    """Feature view or source, for error messages."""
    files: tuple[Path, ...]
    """Parquet files in name order; at least one."""
    timestamp_field: str
    created_field: str
    """Column of the moment of writing; empty when the source has none."""


def find_files(source: DataSource | None, repo_path: Path, label: str) -> tuple[Path, ...]:
    """Files of a source in name order, at least one: a folder, one file or a glob, relative to the feature repo.

    Raises:
        ValueError: The source is not a local parquet `FileSource`.
        MissingSnapshotsError: There is no file yet.
    """
    if not isinstance(source, FileSource) or not isinstance(source.file_format, ParquetFormat | None):
        kind = type(source).__name__
        raise ValueError(f"{label} must have a FileSource of parquet files (got {kind}); use another offline store")
    path = source_path(source, repo_path)
    files = tuple(_files(path))
    if not files:
        raise MissingSnapshotsError(
            f"{label} must have a snapshot under {path} (got none); "
            f"run `headwater {'publish' if '_embedding_' in label else 'features'}` first"
        )
    return files


def source_path(source: FileSource, repo_path: Path) -> Path:
    """Absolute path of a source; Feast's own DuckDB store resolves it against the working directory instead."""
    if "://" in source.path:
        raise ValueError(f"source {source.name} must be local (got {source.path!r}); use another offline store")
    return repo_path / str(source.path)


def append_file(source: DataSource | None, repo_path: Path, table: pa.Table, view: str) -> Path:
    """Write rows as a new file of a source's folder, in one step.

    Raises:
        ValueError: The source is no local folder, or the rows lack a column of the files that are there.
    """
    path = find_files(source, repo_path, f"feature view {view}")[-1]
    folder = source_path(source, repo_path)
    if not folder.is_dir():
        raise ValueError(f"source of {view} must be a folder to append to (got {folder})")
    schema = pq.read_schema(path)
    absent = sorted(set(schema.names) - set(table.column_names))
    if absent:
        raise ValueError(f"rows of {view} must have the columns of {path.name} (lack {absent})")
    added = folder / f"appended-{uuid.uuid4().hex}.parquet"
    write_file(added, table.select(schema.names).cast(schema.remove_metadata()))
    return added


def write_file(path: Path, table: pa.Table) -> None:
    """Write a parquet file in one step, so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    pq.write_table(table, partial)
    partial.replace(path)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*.parquet") if not file.name.startswith((".", "_")))
    elif path.is_file():
        yield path
    elif any(mark in path.name for mark in "*?["):
        yield from sorted(path.parent.glob(path.name))


def take_rows(snapshots: Snapshots, references: References, columns: Mapping[str, pa.Field]) -> pa.Table:
    """Feature columns of the referenced rows.

    Only files and row groups that hold a referenced row are read.

    Args:
        references: Sorted, each once.
        columns: Column in the files to the field it becomes.

    Raises:
        ValueError: A file lacks a column, or holds values that do not fit the field's type.
    """
    schema = pa.schema(list(columns.values()))
    file_of, row_of = references >> REFERENCE_SHIFT, references & ((1 << REFERENCE_SHIFT) - 1)
    parts = []
    for index in np.unique(file_of):
        rows = row_of[file_of == index]
        raw = _read_rows(snapshots.files[index], rows, list(columns))
        parts.append(_conform(raw, columns, f"{snapshots.label} in {snapshots.files[index].name}"))
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _read_rows(path: Path, rows: References, columns: Sequence[str]) -> pa.Table:
    with pq.ParquetFile(path) as file:
        absent = sorted(set(columns) - set(file.schema_arrow.names))
        if absent:
            raise ValueError(f"{path} must hold the declared columns (lacks {absent}); rebuild that snapshot")
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        group_of = np.searchsorted(starts, rows, side="right") - 1
        groups = np.unique(group_of)
        table = file.read_row_groups(groups.tolist(), columns=list(columns))
    # Position of each row among the rows of the groups that were read.
    kept_starts = np.concatenate([[0], np.cumsum(np.asarray(sizes)[groups])])
    positions = kept_starts[np.searchsorted(groups, group_of)] + rows - starts[group_of]
    return table.take(pa.array(positions))


def _conform(table: pa.Table, columns: Mapping[str, pa.Field], where: str) -> pa.Table:
    arrays = []
    for name, field in columns.items():
        try:
            arrays.append(_cast(table[name], field.type))
        except pa.ArrowInvalid as error:
            raise ValueError(f"{where}: {name} must be {field.type} (got {table[name].type}: {error})") from error
    return pa.table(arrays, schema=pa.schema(list(columns.values())))


def _cast(values: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_timestamp(wanted):
        # Nanoseconds are cut, which a safe cast refuses; a naive timestamp in a file is UTC, as everywhere in Feast.
        return values.cast(pa.timestamp(wanted.unit, tz=getattr(values.type, "tz", None)), safe=False).cast(wanted)
    return values.cast(wanted)
