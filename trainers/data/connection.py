"""DuckDB connections with explicit limits, so that a log larger than memory spills to disk instead of being killed."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

DEFAULT_MEMORY_MB = 1024


def connect(*, temp: Path, memory_mb: int = DEFAULT_MEMORY_MB, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """A private in-memory DuckDB whose clock is UTC and which never reaches for the network.

    Args:
        temp: Folder for what does not fit into memory; made when needed.
        memory_mb: Memory limit of the buffer manager in megabytes.
        threads: Number of threads; by default every core of the machine.
    """
    config: dict[str, Any] = {
        "memory_limit": f"{memory_mb}MB",
        "threads": threads or os.cpu_count() or 1,
        "temp_directory": str(temp),
        "autoinstall_known_extensions": "false",
    }
    connection = duckdb.connect(config=config)
    connection.execute("SET TimeZone = 'UTC'")
    # Rows of CSV files are estimated as few, and as-of joins of few rows compare each with each.
    connection.execute("SET asof_loop_join_threshold = 0")
    return connection


def quote(name: str) -> str:
    """A column or table name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """A text or path as a quoted SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def moment(value: datetime) -> str:
    """A moment as an SQL literal.

    Raises:
        ValueError: It has no time zone.
    """
    if value.tzinfo is None:
        raise ValueError(f"a moment must have a time zone (got {value.isoformat()}); use datetime(..., tzinfo=UTC)")
    return f"TIMESTAMPTZ {literal(value.astimezone(UTC).isoformat())}"
