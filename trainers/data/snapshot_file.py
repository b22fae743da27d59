"""Parquet files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import duckdb

from trainers.data.connection import literal


def write_snapshot_file(connection: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write the rows of `query`, in its order, as zstd parquet, replacing `path` in one step.

    A file left half-written by a kill is hidden (readers of the folder skip it) and the next write replaces it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    connection.execute(f"COPY ({query}) TO {literal(partial)} (FORMAT parquet, COMPRESSION zstd)")
    partial.replace(path)
