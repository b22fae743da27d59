"""Sums over the raw rows of every data day: whether days that were ingested have changed since, without reading twice.

A data day is named by the UTC date of the cut-off that ends it. Rows without a readable time stand under "".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from feature_repo.contract import write_atomically
from trainers.data.columns import CONVERSIONS, IMPRESSIONS
from trainers.data.connection import literal, moment
from trainers.data.source_places import WITHOUT_PLACES

EVENT_TABLES = (IMPRESSIONS, CONVERSIONS)
SUMS_FILE = "raw_days.json"
EARLIER_FILE = "earlier_days.json"
"""Sums that an adapter leaves in place of the rows that it did not stage."""

DaySums = dict[str, str]
"""Number of rows and sum of their hashes by data day."""

_DAY = timedelta(days=1)
_DAY_MICROS = 86_400_000_000
TIME = "TRY_CAST(event_timestamp AS TIMESTAMPTZ)"


def day_sums(connection: duckdb.DuckDBPyConnection, query: str, anchor: datetime) -> DaySums:
    """Sums of the rows of a query.

    Args:
        anchor: Any cut-off; all are at its time of day.
    """
    index = f"floor((epoch_us({TIME}) - epoch_us({moment(anchor)})) / {_DAY_MICROS})::BIGINT"
    raw = f"(SELECT {WITHOUT_PLACES} FROM ({query}))"
    rows = connection.execute(
        f"SELECT {index} AS day, count(*), sum(hash(s::VARCHAR)) FROM {raw} AS s GROUP BY day ORDER BY day"
    ).fetchall()
    return {"" if day is None else day_name(anchor + (day + 1) * _DAY): f"{count} {sum_}" for day, count, sum_ in rows}


def day_name(cutoff: datetime) -> str:
    """Name of the data day that a cut-off ends."""
    return f"{cutoff.astimezone(UTC):%Y-%m-%d}"


def staged_sums(connection: duckdb.DuckDBPyConnection, staging: Path, table: str, anchor: datetime) -> DaySums:
    """Sums of a staged table, and of the rows that its adapter left out; empty where there is no such table."""
    file = staging / f"{table}.parquet"
    sums: DaySums = dict((_earlier(staging) or {}).get(table, {}))
    if file.is_file():
        sums |= day_sums(connection, f"FROM read_parquet({literal(file)})", anchor)
    return sums


def may_have_changed(staging: Path) -> bool:
    """Whether days that were ingested before can be different now; generated ones cannot."""
    return _earlier(staging) is not None


def leave_unchanged(staging: Path) -> None:
    """Say that no day before the staged ones can have changed."""
    write_atomically(staging / EARLIER_FILE, "null")


def _earlier(staging: Path) -> dict[str, DaySums] | None:
    file = staging / EARLIER_FILE
    found: dict[str, DaySums] | None = json.loads(file.read_text()) if file.is_file() else {}
    return found


def stage_events(
    connection: duckdb.DuckDBPyConnection, query: str, staging: Path, table: str, since: datetime | None
) -> None:
    """Stage the events of a query; with `since` only those from then on, and sums of the days before."""
    file = literal(staging / f"{table}.parquet")
    if since is None:
        connection.execute(f"COPY ({query}) TO {file} (FORMAT parquet)")
        return
    wanted = f"{TIME} >= {moment(since)}"
    connection.execute(f"COPY (SELECT * FROM ({query}) WHERE {wanted}) TO {file} (FORMAT parquet)")
    left_out = day_sums(connection, f"SELECT * FROM ({query}) WHERE ({wanted}) IS NOT TRUE", since)
    write_atomically(staging / EARLIER_FILE, json.dumps({**(_earlier(staging) or {}), table: left_out}))


def read_sums(event_log: Path) -> dict[str, DaySums]:
    """Sums by table as they were when the days were ingested."""
    sums: dict[str, DaySums] = json.loads((event_log / SUMS_FILE).read_text())
    return sums


def write_sums(event_log: Path, sums: Mapping[str, DaySums]) -> None:
    """Keep the sums with an event log."""
    write_atomically(event_log / SUMS_FILE, json.dumps(sums, indent=1, sort_keys=True) + "\n")


def changed_days(before: DaySums, now: DaySums, start: datetime) -> list[str]:
    """Data days that end at `start` or earlier and are not what they were, in order."""
    days = sorted(day for day in {*before, *now} if day and day <= day_name(start))
    return [day for day in days if before.get(day) != now.get(day)]
