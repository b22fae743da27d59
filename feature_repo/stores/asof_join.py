"""Point-in-time matches as DuckDB `ASOF` joins over keys and times only.

Feature columns never enter the join: it answers with references to rows, and the rows are read afterwards. A row
matches when its event_timestamp lies in the closed window [t - TTL, t]; the newest wins, ties go to the newest
created_timestamp. Times are compared at microseconds, a feature's rounded up and an entity row's down, so a value
is never used before its time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.stores.snapshots import REFERENCE_SHIFT, References, Snapshots

NO_MATCH = -1
"""Reference of an entity row that nothing matches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Limits of the DuckDB connection that a query runs on."""

    memory_limit: str | None = None
    """Such as `4GB`; DuckDB's default is 80 % of the machine."""
    threads: int | None = None
    temp_directory: Path | None = None
    """Where DuckDB spills; the system's folder for temporary files when none is given."""

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own, never ibis's shared one, that spills into a folder removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="headwater-duckdb-", dir=self.temp_directory) as folder:
            config: dict[str, str | int] = {"temp_directory": folder}
            if self.memory_limit is not None:
                config["memory_limit"] = self.memory_limit
            if self.threads is not None:
                config["threads"] = self.threads
            with duckdb.connect(":memory:", config=config) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                yield connection


@dataclass(frozen=True, kw_only=True, slots=True)
class AsofQuery:
    """One feature view joined to entity rows."""

    snapshots: Snapshots
    keys: Mapping[str, str]
    """Join key column in the files to the column of the entity rows."""
    ttl: timedelta
    """Zero for a match of any age."""
    known_at_the_time: bool = False
    """Whether rows written after the entity row's time are left out too."""


def microseconds(moments: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Unix time of each moment in whole microseconds, rounded down."""
    if moments.type.unit == "ns":
        moments = pc.floor_temporal(moments, unit="microsecond")
    return np.asarray(moments.cast(pa.timestamp("us", tz=moments.type.tz), safe=False).cast(pa.int64()))


def match(connection: duckdb.DuckDBPyConnection, query: AsofQuery, rows: pa.Table, times: References) -> References:
    """Reference of the feature row that each entity row sees, or `NO_MATCH`.

    Args:
        rows: Entity rows with the columns named in `query.keys`.
        times: Their times, Unix microseconds.
    """
    found = np.full(len(times), NO_MATCH, np.int64)
    if not len(times):
        return found
    connection.register("spine", _spine(query, rows, times))
    oldest = None if not query.ttl else int(times.min()) - _microseconds(query.ttl)
    candidates = _candidates(connection, query.snapshots, list(query.keys), oldest, int(times.max()))
    sql = _known_at_the_time(query, candidates) if query.known_at_the_time else _asof(query, candidates)
    matched = connection.sql(sql).to_arrow_table()
    found[np.asarray(matched["r"])] = np.asarray(matched["reference"])
    return found


def latest(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, keys: list[str], start: datetime, end: datetime
) -> References:
    """Sorted references of each key's newest row in [start, end]; ties go to the newest created_timestamp."""
    scan = _scan(connection, snapshots, keys, _unix(start), _unix(end))
    groups = ", ".join(f"k{i}" for i in range(len(keys)))
    grouping = f"GROUP BY {groups}" if groups else ""
    sql = f"SELECT arg_max(reference, ROW(t, created, reference)) AS reference FROM ({scan}) {grouping}"
    return _sorted_references(connection, f"SELECT reference FROM ({sql}) WHERE reference IS NOT NULL")


def all_between(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, start: datetime | None, end: datetime | None
) -> References:
    """Sorted references of every row in [start, end]; an open end when a bound is none."""
    bounds = [None if bound is None else _unix(bound) for bound in (start, end)]
    return _sorted_references(connection, f"SELECT reference FROM ({_scan(connection, snapshots, [], *bounds)})")


def _sorted_references(connection: duckdb.DuckDBPyConnection, sql: str) -> References:
    column = connection.sql(f"{sql} ORDER BY reference").to_arrow_table()["reference"]
    return np.asarray(column, dtype=np.int64)


def _spine(query: AsofQuery, rows: pa.Table, times: References) -> pa.Table:
    columns = {f"k{i}": _whole_numbers(rows[name], name) for i, name in enumerate(query.keys.values())}
    return pa.table({"r": np.arange(len(times)), "at": times, **columns})


def _whole_numbers(keys: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Keys as int64 where pandas made floats of them, as it does when one is missing: floats merge large keys."""
    if not pa.types.is_floating(keys.type):
        return keys
    try:
        return keys.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise ValueError(f"join key {name} must hold whole numbers (got {keys.type}: {error})") from error


def _candidates(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, keys: list[str], oldest: int | None, newest: int
) -> str:
    """Rows of the window whose keys the entity rows ask for."""
    scan = _scan(connection, snapshots, keys, oldest, newest)
    if not keys:
        return scan
    same = " AND ".join(f"f.k{i} = s.k{i}" for i in range(len(keys)))
    return f"SELECT f.* FROM ({scan}) f SEMI JOIN spine s ON {same}"


def _asof(query: AsofQuery, candidates: str) -> str:
    names = [f"k{i}" for i in range(len(query.keys))]
    groups = ", ".join([*names, "t"])
    same = " AND ".join([*(f"s.{name} = c.{name}" for name in names), "s.at >= c.t"])
    fresh = f"WHERE s.at - c.t <= {_microseconds(query.ttl)}" if query.ttl else ""
    # Newest created, then highest reference, as one 128-bit number: three times as fast as comparing rows.
    return f"""
        WITH candidate AS (
            SELECT {groups}, max(created::HUGEINT * {2**63} + reference) AS newest FROM ({candidates}) GROUP BY {groups}
        )
        SELECT s.r, (c.newest & {2**63 - 1})::BIGINT AS reference
        FROM spine s ASOF JOIN candidate c ON {same} {fresh}
    """


def _known_at_the_time(query: AsofQuery, candidates: str) -> str:
    """Two inequalities, which `ASOF` cannot express; rare, so a plain join over the narrow columns."""
    same = [f"s.k{i} = c.k{i}" for i in range(len(query.keys))]
    conditions = [*same, "c.t <= s.at", f"c.created BETWEEN {_NEVER} + 1 AND s.at"]
    if query.ttl:
        conditions.append(f"s.at - c.t <= {_microseconds(query.ttl)}")
    return f"""
        SELECT s.r, arg_max(c.reference, ROW(c.t, c.created, c.reference)) AS reference
        FROM spine s JOIN ({candidates}) c ON {" AND ".join(conditions)} GROUP BY s.r
    """


def _scan(
    connection: duckdb.DuckDBPyConnection,
    snapshots: Snapshots,
    keys: list[str],
    oldest: int | None,
    newest: int | None,
) -> str:
    """Reference, keys `k0`…, time `t` and `created` of the rows between two Unix times."""
    files = ", ".join(_literal(str(path)) for path in snapshots.files)
    source = f"read_parquet([{files}], hive_partitioning = false)"
    types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    wanted = [snapshots.timestamp_field, *keys, *filter(None, [snapshots.created_field])]
    absent = [name for name in wanted if name not in types]
    if absent:
        raise ValueError(f"{snapshots.label} must have columns {wanted} in its files (lacks {absent})")
    event = _identifier(snapshots.timestamp_field)
    created = snapshots.created_field
    columns = [
        f"(file_index::BIGINT << {REFERENCE_SHIFT}) | file_row_number AS reference",
        *(f"{_identifier(name)} AS k{i}" for i, name in enumerate(keys)),
        f"{_time(event, types[snapshots.timestamp_field])} AS t",
        f"{f'coalesce({_time(_identifier(created), types[created])}, {_NEVER})' if created else _NEVER} AS created",
    ]
    bounds = [f"{event} IS NOT NULL"]
    if types[snapshots.timestamp_field] == "TIMESTAMP WITH TIME ZONE":
        # On the raw column, so that files and row groups outside the window are not read.
        bounds += [f"{event} >= make_timestamptz({oldest})"] if oldest is not None else []
        bounds += [f"{event} <= make_timestamptz({newest})"] if newest is not None else []
    outer = [f"t >= {oldest}"] if oldest is not None else []
    outer += [f"t <= {newest}"] if newest is not None else []
    scan = f"SELECT {', '.join(columns)} FROM {source} WHERE {' AND '.join(bounds)}"
    return f"SELECT * FROM ({scan}) WHERE {' AND '.join(outer)}" if outer else scan


_NEVER = "(-9223372036854775808)::BIGINT"


def _time(column: str, kind: str) -> str:
    """Unix microseconds of a timestamp column of any unit, rounded up; a naive one is UTC, as everywhere in Feast."""
    if kind in ("TIMESTAMPTZ_NS", "TIMESTAMP_NS"):
        nanoseconds = f"epoch_ns({column})"
        return f"({nanoseconds} // 1000 + CASE WHEN {nanoseconds} % 1000 > 0 THEN 1 ELSE 0 END)"
    return f"epoch_us({column})"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def _unix(moment: datetime) -> int:
    return (moment - datetime.fromtimestamp(0, tz=moment.tzinfo)) // timedelta(microseconds=1)
