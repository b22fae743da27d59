"""The last engaged impressions of every user, as DuckDB queries.

A *sequence table* has `user_id` and `recent`: up to `sequence_length` structs (event_timestamp, impression_id, pin_id,
actions, surface), oldest first. Order is by time, then by impression id, so equal moments leave no choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import duckdb

from feature_repo.contract import RepoManifest
from trainers.data.activity_log import DailyLog
from trainers.data.columns import IMPRESSIONS
from trainers.data.connection import moment, quote

SLOTS_PER_MB = 4_000
"""Places in sequences under construction per megabyte of memory limit: about a third of it at 80 bytes each."""

_READ = {
    "user_id": "BIGINT",
    "event_timestamp": "TIMESTAMPTZ",
    "impression_id": "BIGINT",
    "pin_id": "BIGINT",
    "surface": "VARCHAR",
}
_STEP = "struct_pack({})".format(
    ", ".join(f"{name} := {name}" for name in ("event_timestamp", "impression_id", "pin_id", "actions", "surface"))
)


def engaged(log: DailyLog, manifest: RepoManifest, *, start: datetime | None, end: datetime) -> str:
    """Query for impressions with a positive label; bit i of `actions` is the manifest's label i."""
    labels = {label: "TINYINT" for label in manifest.labels}
    events = log.events(IMPRESSIONS, _READ | labels, start=start, end=end)
    bits = [f"coalesce(({quote(label)} = 1)::BIGINT, 0) << {i}" for i, label in enumerate(manifest.labels)]
    actions = " | ".join(f"({bit})" for bit in bits)
    return f"SELECT * FROM (SELECT {', '.join(_READ)}, {actions} AS actions FROM ({events})) WHERE actions > 0"


def newest(connection: duckdb.DuckDBPyConnection, engaged_query: str, length: int, memory_mb: int) -> str:
    """Query for the sequence table of engaged impressions.

    DuckDB cannot spill lists under construction, so many users are put together in buckets that fit into memory, from
    a copy of the engaged impressions (which it can spill) that is read once per bucket.
    """
    sizes = f"SELECT count(*) + {length} * approx_count_distinct(user_id) FROM ({engaged_query})"
    (num_slots,) = connection.execute(sizes).fetchone() or (0,)
    num_buckets = 1 + int(num_slots) // (SLOTS_PER_MB * memory_mb)
    if num_buckets == 1:
        return _newest(f"({engaged_query})", length)
    copy = f"SELECT *, (hash(user_id) % {num_buckets})::BIGINT AS bucket FROM ({engaged_query}) ORDER BY bucket"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE engaged AS {copy}")
    for bucket in range(num_buckets):
        part = _newest(f"engaged WHERE bucket = {bucket}", length)
        verb = "INSERT INTO newest" if bucket else "CREATE OR REPLACE TEMP TABLE newest AS"
        connection.execute(f"{verb} {part}")
    connection.execute("DROP TABLE engaged")
    return "SELECT * FROM newest"


def _newest(source: str, length: int) -> str:
    return f"SELECT user_id, list_reverse(max({_STEP}, {length})) AS recent FROM {source} GROUP BY user_id"


def extended(previous: str, day: str, length: int) -> str:
    """Query for a sequence table with a later one appended, the last `length` kept."""
    recent = f"list_slice(list_concat(previous.recent, day.recent), -{length}, -1) AS recent"
    return f"SELECT user_id, {recent} FROM {previous} AS previous FULL JOIN {day} AS day USING (user_id)"


def sequence_columns(cutoff: datetime) -> Iterator[str]:
    """Select list of the four sequence features over `sequence.recent`; empty lists without any engagement."""
    age = f"(epoch_us({moment(cutoff)}) - epoch_us(step.event_timestamp)) / 3600000000.0"
    for name, value, kind in (
        ("recent_pins", "step.pin_id", "BIGINT"),
        ("recent_actions", "step.actions", "BIGINT"),
        ("recent_surfaces", "step.surface", "VARCHAR"),
        ("recent_ages_hours", age, "FLOAT"),
    ):
        yield f"coalesce(list_transform(sequence.recent, lambda step: {value}), [])::{kind}[] AS {name}"
