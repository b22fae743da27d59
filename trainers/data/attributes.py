"""Attribute and history views: the event log's users, Pins and long histories as the offline store reads them.

Their rows carry their own time, from when they hold, so the publish delay of computed features does not apply.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from feature_repo.contract import (
    CREATED_TIMESTAMP,
    ENTITIES,
    EVENT_TIMESTAMP,
    AttributeField,
    RepoManifest,
    attributes_view,
    history_view,
    join_key,
)
from trainers.data.activity_log import parquet_relation
from trainers.data.connection import connect, moment, quote
from trainers.data.snapshot_file import write_snapshot_file

FILE_NAME = "all.parquet"
"""The one file of a view without daily snapshots."""

HISTORY_COLUMNS = {"pin_ids": "BIGINT[]"}

_TYPES = {"int64": "BIGINT", "float": "DOUBLE", "string": "VARCHAR"}


def write_attributes(
    event_log: Path, offline: Path, manifest: RepoManifest, *, created_timestamp: datetime
) -> dict[str, Path]:
    """Write `user_attributes`, `pin_attributes` and every `user_history_<name>`, each as one file.

    Args:
        event_log: Folder with `users.parquet`, `pins.parquet` and `history_<name>.parquet`.
        offline: Offline store folder.
        manifest: An entity without declared attributes gets no file.
        created_timestamp: Written into every row.

    Returns:
        File by feature view.

    Raises:
        FileNotFoundError: The log lacks a table that the manifest needs.
        ValueError: A table lacks a declared column.
    """
    written: dict[str, Path] = {}
    for entity in ENTITIES:
        columns = {field.name: sql_type(field) for field in manifest.attributes(entity)}
        if columns:
            view, table = attributes_view(entity), event_log / f"{entity}s.parquet"
            written[view] = _write(table, offline / view, join_key(entity), columns, created_timestamp)
    for name in manifest.histories:
        view, table = history_view(name), event_log / f"history_{name}.parquet"
        written[view] = _write(table, offline / view, join_key("user"), HISTORY_COLUMNS, created_timestamp)
    return written


def sql_type(field: AttributeField) -> str:
    """DuckDB type of a declared attribute."""
    if field.kind == "vector":
        return "FLOAT[]"
    return _TYPES[field.type] + ("[]" if field.kind == "multi_valued" else "")


def _write(table: Path, folder: Path, key: str, columns: Mapping[str, str], created_timestamp: datetime) -> Path:
    _check_columns(table, [key, EVENT_TIMESTAMP, *columns])
    values = [f"CAST({quote(name)} AS {kind}) AS {quote(name)}" for name, kind in columns.items()]
    query = (
        f"SELECT CAST({key} AS BIGINT) AS {key}, CAST({EVENT_TIMESTAMP} AS TIMESTAMPTZ) AS {EVENT_TIMESTAMP}, "
        f"{moment(created_timestamp)} AS {CREATED_TIMESTAMP}, {', '.join(values)} "
        f"FROM {parquet_relation(table)} ORDER BY {key}, {EVENT_TIMESTAMP}"
    )
    path, spill = folder / FILE_NAME, folder / ".spill"
    connection = connect(temp=spill)
    try:
        write_snapshot_file(connection, query, path)
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)
    return path


def _check_columns(table: Path, needed: list[str]) -> None:
    if not table.is_file():
        raise FileNotFoundError(f"the event log must hold {table.name} for the declared attributes (got no {table})")
    known = pq.read_schema(table).names
    absent = [name for name in needed if name not in known]
    if absent:
        raise ValueError(f"{table} must have the declared columns (got none for {absent}); ingest again")
