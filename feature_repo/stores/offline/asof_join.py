"""Point-in-time matches as DuckDB `ASOF` joins over keys and times only.

Feature columns never enter the join: it answers with references to rows, and the rows are read afterwards. A row
matches when its event_timestamp lies in the closed window [t - TTL, t]; the newest wins, ties go to the newest
created_timestamp.
"""

from __future__ import annotations

import errno
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

from feature_repo.stores.offline.abandoned import HeldFolder
from feature_repo.stores.offline.gather import NO_MATCH
from feature_repo.stores.offline.grid import MAX_ROWS, ROW_BYTES, Grid, make_grid
from feature_repo.stores.offline.join_keys import check_keys, comparable
from feature_repo.stores.offline.scan import NEVER, key_types, reading, scan
from feature_repo.stores.offline.snapshots import References, Snapshots

_UNITS = {"bytes": 1, "byte": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "PiB": 1 << 50}


class EngineMemoryError(MemoryError):
    """DuckDB may not use as much memory as a query needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Engine:
    """Limits of the DuckDB connection that a query runs on."""

    memory_limit: str | None = None
    """Such as `4GB`; DuckDB's default is 80 % of the machine."""
    threads: int | None = None
    temp_directory: Path | None = None
    """Where DuckDB spills; the system's folder for temporary files when none is given."""
    max_temp_directory_size: str | None = None
    """Disk space that it may spill, such as `100GB`; DuckDB's default is 90 % of what is free."""

    @contextmanager
    def connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of its own, never ibis's shared one, that spills into a folder removed afterwards.

        Raises:
            EngineMemoryError: A query needs more memory than the limit, and cannot spill it.
            OSError: There is no room to spill.
        """
        with self.temporary_folder() as folder, self._explained(folder):
            config: dict[str, str | int] = {"temp_directory": str(folder)}
            if self.memory_limit is not None:
                config["memory_limit"] = self.memory_limit
            if self.threads is not None:
                config["threads"] = self.threads
            if self.max_temp_directory_size is not None:
                config["max_temp_directory_size"] = self.max_temp_directory_size
            with duckdb.connect(":memory:", config=config) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                yield connection

    @contextmanager
    def temporary_folder(self) -> Iterator[Path]:
        """A folder that is removed afterwards.

        Raises:
            OSError: `temp_directory` cannot be written.
        """
        with HeldFolder("headwater-duckdb-", self.temp_directory) as folder:
            yield Path(folder)

    @contextmanager
    def _explained(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise EngineMemoryError(
                f"offline_store.memory_limit must hold the keys and times of a query (got {self.memory_limit}, "
                f"temp_directory {folder.parent}: {_first_line(error)}); raise memory_limit or "
                f"max_temp_directory_size, lower threads, or free disk space"
            ) from error
        except duckdb.IOException as error:
            if "no space left" not in str(error).lower() and str(folder) not in str(error):
                raise
            raise OSError(
                errno.ENOSPC,
                f"temp_directory must have room for what DuckDB spills ({_first_line(error)}); free some, or move it",
                str(folder.parent),
            ) from error


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


class Matcher:
    """Answers, for block after block of entity rows, which feature row each sees.

    Keys, times and references of the rows in the window are held as a `Grid` where that is possible and small, else in
    a table of the connection, which may spill; of rows that tie only the one that wins.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        query: AsofQuery,
        name: str,
        window: tuple[int, int],
        num_candidates: int,
        only_keys_of: pa.Table | None = None,
    ) -> None:
        """Read the narrow columns.

        Args:
            name: Of the table in the connection.
            window: First and last time of all entity rows, Unix microseconds.
            num_candidates: Rows of the files in reach of the window.
            only_keys_of: Entity rows whose keys alone will be asked for; every key when none.

        Raises:
            SnapshotError: A file is damaged or lacks a key or a time.
        """
        self._connection, self._query, self._name = connection, query, name
        self._types = key_types(query.snapshots, list(query.keys))
        oldest = None if not query.ttl else window[0] - _microseconds(query.ttl)
        found = scan(connection, query.snapshots, list(query.keys), oldest, window[1])
        if only_keys_of is not None and query.keys:
            connection.register("wanted_keys", self._keys(only_keys_of))
            found = f"SELECT f.* FROM ({found}) f SEMI JOIN wanted_keys s ON {self._same_keys('f', 's')}"
        build = self._known_at_the_time if query.known_at_the_time else self._newest_of_ties
        self._grid: Grid | None = None
        with reading(query.snapshots, list(query.keys)):
            if not query.known_at_the_time and num_candidates <= _most_rows(connection):
                rows = connection.sql(found).to_arrow_table()
                self._grid, found = make_grid(rows, len(query.keys)), "rows"
            if self._grid is None:
                connection.execute(f"CREATE TEMP TABLE {name} AS {build(found)}")

    @property
    def has_grid(self) -> bool:
        """Whether it matches without DuckDB; then several threads may match at once."""
        return self._grid is not None

    def match(self, rows: pa.Table, times: References) -> References:
        """Reference of the feature row that each entity row sees, or `NO_MATCH`.

        Args:
            rows: Entity rows with the columns named in `AsofQuery.keys`.
            times: Their times, Unix microseconds.

        Raises:
            ValueError: Keys have another type than in the files.
        """
        found = np.full(len(times), NO_MATCH, np.int64)
        if not len(times):
            return found
        keys = self._keys(rows)
        if self._grid is not None:
            return self._grid.match(keys.columns, times, _microseconds(self._query.ttl))
        spine = pa.table({"r": np.arange(len(times)), "at": times, **dict(zip(keys.column_names, keys, strict=True))})
        self._connection.register("spine", spine)
        matched = self._connection.sql(self._asof()).to_arrow_table()
        self._connection.unregister("spine")
        found[np.asarray(matched["r"])] = np.asarray(matched["reference"])
        return found

    def _keys(self, rows: pa.Table) -> pa.Table:
        columns = {}
        for i, (name, column) in enumerate(self._query.keys.items()):
            check_keys(rows.schema.field(column), self._types[name], self._query.snapshots.label)
            columns[f"k{i}"] = comparable(rows[column], column, self._types[name])
        return pa.table(columns)

    def _same_keys(self, left: str, right: str) -> str:
        return " AND ".join(f"{left}.k{i} = {right}.k{i}" for i in range(len(self._query.keys)))

    def _groups(self) -> list[str]:
        return [f"k{i}" for i in range(len(self._query.keys))]

    def _newest_of_ties(self, found: str) -> str:
        # Newest created, then highest reference, as one 128-bit number: three times as fast as comparing rows.
        groups = ", ".join([*self._groups(), "t"])
        newest = f"max(created::HUGEINT * {2**63} + reference)"
        return f"""
            SELECT {groups}, t AS known, ({newest} & {2**63 - 1})::BIGINT AS reference
            FROM ({found}) GROUP BY {groups}
        """

    def _known_at_the_time(self, found: str) -> str:
        """Rows by the moment `known` at which they can be used and are written, each with the best row known by then.

        A row that is newer stays newer, so the best of the rows known at a time is a running maximum, and one `ASOF`
        over that moment finds it: two inequalities on rows would grow with the versions of a key.
        """
        keys = self._groups()
        over = f"PARTITION BY {', '.join(keys)}" if keys else ""
        return f"""
            WITH written AS (SELECT *, greatest(t, created) AS known FROM ({found}) WHERE created <> {NEVER}),
            ranked AS (SELECT *, row_number() OVER (ORDER BY t, created, reference) AS rank FROM written),
            best AS (
                SELECT {", ".join([*keys, "known"])}, max(rank) OVER ({over} ORDER BY known) AS rank FROM ranked
            ),
            final AS (SELECT {", ".join([*keys, "known"])}, max(rank) AS rank FROM best GROUP BY ALL)
            SELECT {", ".join(f"f.{name}" for name in [*keys, "known"])}, r.t, r.reference
            FROM final f JOIN ranked r USING (rank)
        """

    def _asof(self) -> str:
        same = " AND ".join(filter(None, [self._same_keys("s", "c"), "s.at >= c.known"]))
        fresh = f"WHERE s.at - c.t <= {_microseconds(self._query.ttl)}" if self._query.ttl else ""
        return f"SELECT s.r, c.reference FROM spine s ASOF JOIN {self._name} c ON {same} {fresh}"


def microseconds(moments: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Unix time of each moment in whole microseconds, rounded down."""
    if moments.type.unit == "ns":
        moments = pc.floor_temporal(moments, unit="microsecond")
    return np.asarray(moments.cast(pa.timestamp("us", tz=moments.type.tz), safe=False).cast(pa.int64()))


def latest(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, keys: list[str], start: datetime, end: datetime
) -> References:
    """Sorted references of each key's newest row in [start, end]; ties go to the newest created_timestamp."""
    found = scan(connection, snapshots, keys, unix_microseconds(start), unix_microseconds(end))
    groups = ", ".join(f"k{i}" for i in range(len(keys)))
    grouping = f"GROUP BY {groups}" if groups else ""
    sql = f"SELECT arg_max(reference, ROW(t, created, reference)) AS reference FROM ({found}) {grouping}"
    with reading(snapshots, keys):
        return _sorted_references(connection, f"SELECT reference FROM ({sql}) WHERE reference IS NOT NULL")


def all_between(
    connection: duckdb.DuckDBPyConnection, snapshots: Snapshots, start: datetime | None, end: datetime | None
) -> References:
    """Sorted references of every row in [start, end]; an open end when a bound is none."""
    bounds = [None if bound is None else unix_microseconds(bound) for bound in (start, end)]
    found = scan(connection, snapshots, [], *bounds)
    with reading(snapshots, []):
        return _sorted_references(connection, f"SELECT reference FROM ({found})")


def unix_microseconds(moment: datetime) -> int:
    """Unix time of a moment; a naive one is UTC."""
    return (moment - datetime.fromtimestamp(0, tz=moment.tzinfo)) // timedelta(microseconds=1)


def _sorted_references(connection: duckdb.DuckDBPyConnection, sql: str) -> References:
    column = connection.sql(f"{sql} ORDER BY reference").to_arrow_table()["reference"]
    return np.asarray(column, dtype=np.int64)


def _most_rows(connection: duckdb.DuckDBPyConnection) -> int:
    """Rows of which a grid may be made within the connection's limit of memory."""
    (limit,) = connection.execute("SELECT current_setting('memory_limit')").fetchall()[0]
    number, unit = str(limit).split()
    return min(MAX_ROWS, int(float(number) * _UNITS[unit]) // ROW_BYTES)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
