"""Writing parquet in one step: a reader sees a whole file or none, whatever happens in between."""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FileSource

from feature_repo.stores.offline.abandoned import hold, remove_abandoned
from feature_repo.stores.offline.arrow_types import cast_values
from feature_repo.stores.offline.footers import naming, read_footer
from feature_repo.stores.offline.snapshots import find_files, parquet_files, source_path

APPENDED = "appended-"
"""Beginning of the names of files that single writes add to a folder."""
_COPY_ROWS = 1 << 16
_PARTIAL = f".*.{'[0-9a-f]' * 32}.partial"
"""Names of files that are being written."""


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` that takes its place at the end, and is removed when anything fails.

    What a process that was killed left of such files is removed first.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent, _PARTIAL)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("xb") as held:
            hold(held.fileno())
            yield partial
            os.fsync(held.fileno())
            partial.replace(path)
    except OSError as error:
        raise OSError(
            error.errno or 0, f"{path} must be written whole ({error}); nothing was; free disk space and run again"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write a parquet file in one step from a stream of tables, one row group each.

    Returns:
        Number of rows.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    num_rows = 0
    with (
        new_file(path) as partial,
        pq.ParquetWriter(partial, schema, use_dictionary=_with_few_values(schema)) as writer,
    ):
        for table in tables:
            if table.num_rows:
                writer.write_table(table, row_group_size=table.num_rows)
                num_rows += table.num_rows
    return num_rows


def append_rows(
    source: FileSource, repo_path: Path, table: pa.Table, view: str, required: list[str], name: str | None = None
) -> Path:
    """Add rows to a source, whole or not at all: one more file of a folder, or the one file written again with them.

    Writers of one file take turns; a reader of it sees it as it was or as it is. A folder costs as much as the rows, a
    file as much as the file.

    Args:
        required: Columns in the files that must not be null: keys and event_timestamp.
        name: Of the file in a folder: rows under the same name again take its place. A new one when not given.

    Raises:
        ValueError: The source is a glob, or columns, types or values are not those of the source.
        OSError: The disk is full or the folder cannot be written.
    """
    path = source_path(source, repo_path)
    if any(mark in str(path) for mark in "*?["):
        raise ValueError(f"source of {view} must be a folder or a file to append to (got {path}); name its folder")
    files = tuple(parquet_files(path))
    newest = find_files(source, repo_path, f"feature view {view}")[-1] if files else None
    rows = _conform(source, table, newest, view, required)
    if path.suffix != ".parquet" and not path.is_file():
        added = path / f"{APPENDED}{name or uuid.uuid4().hex}.parquet"
        write_tables(added, rows.schema, [rows])
        return added
    with _alone(path):
        write_tables(path, rows.schema, _with(path, rows, view))
    return path


def _with(path: Path, rows: pa.Table, view: str) -> Iterator[pa.Table]:
    """Rows of a file, if there is one, and then the new ones."""
    if path.is_file():
        with naming(path, f"feature view {view}"), pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_COPY_ROWS):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(None).cast(rows.schema)
    yield rows


def _conform(source: FileSource, table: pa.Table, newest: Path | None, view: str, required: list[str]) -> pa.Table:
    """Rows with the columns and types of the newest file; as they are when there is none."""
    renamed = {feature: column for column, feature in source.field_mapping.items()}
    if newest is None:
        rows = table.rename_columns([renamed.get(name, name) for name in table.column_names])
        rows = rows.replace_schema_metadata(None)
    else:
        schema = _nullable(read_footer(newest, f"feature view {view}").schema)
        names = [renamed.get(name, name) if name not in schema.names else name for name in table.column_names]
        absent, extra = sorted(set(schema.names) - set(names)), sorted(set(names) - set(schema.names))
        if absent or extra:
            raise ValueError(
                f"rows of {view} must have the columns of {newest} (lack {absent}, have {extra} besides); "
                f"add or drop those columns"
            )
        rows = _cast(table.rename_columns(names), schema, view)
    for name in required:
        if name not in rows.column_names or rows[name].null_count:
            raise ValueError(f"rows of {view} must all have {name} (got columns {rows.column_names}, with nulls in it)")
    return rows


def _nullable(schema: pa.Schema) -> pa.Schema:
    """The schema of files that may hold nulls: some writers call a column that happens to have none required."""
    return pa.schema([field.with_nullable(True).remove_metadata() for field in schema])


def _cast(table: pa.Table, schema: pa.Schema, view: str) -> pa.Table:
    columns = []
    for field in schema:
        values = table[field.name]
        if _loses_its_zone(values.type, field.type):
            raise ValueError(
                f"rows of {view} must have {field.name} with a time zone (got {values.type}); "
                f"use pandas.to_datetime({field.name}, utc=True) if they are UTC"
            )
        try:
            columns.append(cast_values(values, field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise ValueError(
                f"rows of {view} must have {field.name} as {field.type} (got {values.type}: {error})"
            ) from error
    return pa.table(columns, schema=schema)


def _loses_its_zone(given: pa.DataType, stored: pa.DataType) -> bool:
    are_moments = pa.types.is_timestamp(given) and pa.types.is_timestamp(stored)
    return are_moments and given.tz is None and stored.tz is not None


def _with_few_values(schema: pa.Schema) -> list[str]:
    """Columns worth a dictionary: of vectors it is dropped halfway, after it cost half of the writing."""
    return [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_integer(field.type)]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Turns of processes that rewrite one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
