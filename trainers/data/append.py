"""One more data day in an event log: checked as an ingestion checks, and put beside what is there.

Files of earlier days are never written again, so that whatever was computed from them stays true. A row of an earlier
day that the raw data brings only now is late: it is counted and kept in `late/`, and enters with the next whole
ingestion. A row of an earlier day that is gone or has changed stops the append.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from trainers.data.activity_log import APPENDED
from trainers.data.checks import IMPRESSION_KEYS, Checker, EventLogError, check_share
from trainers.data.columns import CONVERSIONS, IMPRESSIONS, PINS, table_columns, table_names
from trainers.data.connection import DEFAULT_MEMORY_MB, connect, literal, moment, quote
from trainers.data.event_log import EventLog
from trainers.data.ingest import QUARANTINE, SIDE_FILES, join_conversions
from trainers.data.ingest_report import TableReport
from trainers.data.raw_days import EVENT_TABLES, day_name

LATE = "late"
TRUTH = "truth.parquet"

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)
_ORDER = {
    IMPRESSIONS: "event_timestamp, impression_id",
    CONVERSIONS: "event_timestamp, impression_id, kind",
}


class ChangedDaysError(EventLogError):
    """Raw rows of days that were ingested before are gone or have changed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Appended:
    """What a data day brought."""

    tables: dict[str, TableReport]
    """Rows of the day by table; of users, Pins and histories all rows up to now."""
    new: dict[str, int] = field(default_factory=dict)
    """Rows that joined the log, by table."""
    late: dict[str, int] = field(default_factory=dict)
    """Rows of earlier days that came only now, by table."""

    @property
    def quarantined(self) -> int:
        """Bad events of the day."""
        return sum(report.quarantined for name, report in self.tables.items() if name in EVENT_TABLES)


def append_day(
    log: EventLog,
    staging: Path,
    start: datetime,
    end: datetime,
    *,
    now: datetime,
    memory_mb: int = DEFAULT_MEMORY_MB,
) -> Appended:
    """Bring the events with `start` <= `event_timestamp` < `end` into the log; safe to repeat after a kill.

    Args:
        staging: Folder with `<table>.parquet` files that hold at least these events, and all users and Pins.
        start: Cut-off up to which the log is complete.
        end: The next cut-off.
        now: Moment after which an event lies in the future.

    Raises:
        EventLogError: Too many rows of the day are bad; they lie in `quarantine/`.
        ChangedDaysError: The log holds events of the day that the raw data no longer has.
    """
    forget_day(log, end)
    with connect(temp=log.path / ".spill", memory_mb=memory_mb) as connection:
        period = _Period(connection, log, staging, start, end, now)
        tables = period.check(log.path / QUARANTINE / f"{APPENDED}{day_name(end)}")
        period.refuse_changes()
        new = {table: period.write_days(table) for table in period.event_tables}
        new |= {table: period.extend(table) for table in tables if table not in EVENT_TABLES}
        period.copy_side_files()
    shutil.rmtree(log.path / ".spill", ignore_errors=True)
    return Appended(tables=tables, new=new)


def set_late_rows_aside(
    log: EventLog, staging: Path, first: datetime, start: datetime, end: datetime
) -> dict[str, int]:
    """Keep what the raw data has of earlier days and the log has not, in `late/`, with the day that found it.

    Args:
        staging: Folder with `<table>.parquet` files that hold all events from `first` on.
        first: Beginning of the first day that is not what it was.
        start: Cut-off up to which the log is complete.
        end: Cut-off of the day under way.

    Returns:
        Rows set aside now, by table.

    Raises:
        ChangedDaysError: Rows that the log holds of these days are gone or have changed.
    """
    folder = log.path / LATE / f"{APPENDED}{day_name(end)}"
    shutil.rmtree(folder, ignore_errors=True)
    with connect(temp=log.path / ".spill") as connection:
        period = _Period(connection, log, staging, first, start, datetime.now(UTC))
        period.check(None)
        period.refuse_changes()
        late = {table: period.write_late(table, folder) for table in period.event_tables}
    shutil.rmtree(log.path / ".spill", ignore_errors=True)
    return {table: count for table, count in late.items() if count}


def forget_day(log: EventLog, end: datetime) -> None:
    """Remove the events that were appended for a cut-off; users and Pins stay."""
    for table in EVENT_TABLES:
        for file in (log.path / table).glob(f"date=*/{APPENDED}{day_name(end)}.parquet"):
            file.unlink()
            if not any(file.parent.iterdir()):
                file.parent.rmdir()


class _Period:
    """Staged rows of a period, checked, beside those that the log has of it."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        log: EventLog,
        staging: Path,
        start: datetime,
        end: datetime,
        now: datetime,
    ) -> None:
        self._connection, self._log, self._staging = connection, log, staging
        self._start, self._end = start, end
        keys = ", ".join(IMPRESSION_KEYS)
        earlier = f"SELECT {keys} FROM ({log.impressions_sql(_BEGINNING, start)})"
        self._checker = Checker(connection, log.spec, staging, now, since=start, until=end, earlier=earlier)

    @property
    def event_tables(self) -> tuple[str, ...]:
        """Tables of events that were staged."""
        return tuple(table for table in EVENT_TABLES if self._is_staged(table))

    def check(self, quarantine: Path | None) -> dict[str, TableReport]:
        """Check every staged table, keep its bad rows, and refuse too many of them."""
        reports = {}
        for table in filter(self._is_staged, table_names(self._log.spec)):
            reports[table] = self._checker.check(table)
            if quarantine is not None and reports[table].quarantined:
                file = quarantine / f"{table}.parquet"
                self._checker.write_quarantine(table, file)
                check_share(table, reports[table], self._log.spec.quarantine_share, file, self._checker)
        if CONVERSIONS in reports:
            join_conversions(self._connection, self._checker)
        return reports

    def refuse_changes(self) -> None:
        """Raise when the log holds rows of the period that the raw data does not have."""
        for table in self.event_tables:
            gone = f"SELECT * FROM ({self._held(table)} EXCEPT ALL {self._good(table)})"
            count, first = self._one(f"SELECT count(*), min(event_timestamp) FROM ({gone})")
            if count:
                raise ChangedDaysError(
                    f"raw rows of days that were ingested must stay as they were (got {count:,} {table} that changed "
                    f"or are gone, the first on {self._day_of(first)}); restore the raw data, or start over from it "
                    "with `headwater run --out` and another folder"
                )

    def write_days(self, table: str) -> int:
        """Write what is new of a table, a file per UTC date; the number of rows."""
        name, total = f"{APPENDED}{day_name(self._end)}.parquet", 0
        for day in self._dates():
            begin = datetime.combine(day, datetime.min.time(), UTC)
            on_day = f"event_timestamp >= {moment(begin)} AND event_timestamp < {moment(begin + _DAY)}"
            rows = f"SELECT * FROM ({self._new(table)}) WHERE {on_day}"
            count = self._num_rows(rows)
            if count:
                self._copy(f"{rows} ORDER BY {_ORDER[table]}", self._log.path / table / f"date={day:%Y-%m-%d}" / name)
            total += count
        return total

    def write_late(self, table: str, folder: Path) -> int:
        """Write what the log lacks of earlier days and no append before has set aside; the number of rows."""
        known = [file for file in sorted((self._log.path / LATE).glob(f"*/{table}.parquet")) if file.parent != folder]
        rows = self._new(table)
        if known:
            listed = ", ".join(map(literal, known))
            rows = f"SELECT * FROM ({rows}) EXCEPT ALL SELECT * FROM read_parquet([{listed}])"
        count = self._num_rows(rows)
        if count:
            self._copy(f"SELECT * FROM ({rows}) ORDER BY {_ORDER[table]}", folder / f"{table}.parquet")
        return count

    def extend(self, table: str) -> int:
        """Add users, Pins or histories that the log does not have yet; rows that it has stay as they are."""
        file = self._log.path / f"{table}.parquet"
        keys = f"{'pin_id' if table == PINS else 'user_id'}, event_timestamp"
        columns = ", ".join(quote(name) for name in self._names(file))
        held = f"SELECT {columns} FROM read_parquet({literal(file)})"
        new = f"SELECT {columns} FROM checked_{table} WHERE reason IS NULL"
        new = f"SELECT * FROM ({new}) ANTI JOIN ({held}) USING ({keys})"
        count = self._num_rows(new)
        if count:
            self._copy(f"SELECT * FROM ({held} UNION ALL {new}) ORDER BY {keys}", file)
        return count

    def copy_side_files(self) -> None:
        """Bring along the texts behind keys, and the true probabilities of new impressions."""
        for name in SIDE_FILES:
            staged, file = self._staging / name, self._log.path / name
            if not staged.exists():
                continue
            if name == TRUTH and file.exists():
                held = f"FROM read_parquet({literal(file)})"
                new = f"FROM read_parquet({literal(staged)}) SEMI JOIN ({self._new(IMPRESSIONS)}) USING (impression_id)"
                new = f"SELECT * FROM ({new}) ANTI JOIN ({held}) USING (impression_id)"
                self._copy(f"SELECT * FROM ({held} UNION ALL {new}) ORDER BY impression_id", file)
            else:
                partial = file.with_name(f".{name}.partial")
                shutil.copy(staged, partial)
                partial.replace(file)

    def _is_staged(self, table: str) -> bool:
        return (self._staging / f"{table}.parquet").exists()

    def _new(self, table: str) -> str:
        return f"{self._good(table)} EXCEPT ALL {self._held(table)}"

    def _good(self, table: str) -> str:
        if table == CONVERSIONS:
            return f"SELECT {self._columns(table, f'joined_{table}')} FROM joined_{table}"
        return f"SELECT {self._columns(table, f'checked_{table}')} FROM checked_{table} WHERE reason IS NULL"

    def _held(self, table: str) -> str:
        period = self._log.conversions_sql if table == CONVERSIONS else self._log.impressions_sql
        return f"SELECT {self._columns(table)} FROM ({period(self._start, self._end)})"

    def _columns(self, table: str, source: str | None = None) -> str:
        """Columns that the log has of a table; null where a source lacks one."""
        everything = self._log.conversions_sql if table == CONVERSIONS else self._log.impressions_sql
        types = self._types(f"SELECT * FROM ({everything(_BEGINNING, self._end)})")
        have = types if source is None else self._types(source)
        absent = {name: f"NULL::{kind} AS {quote(name)}" for name, kind in types.items() if name not in have}
        return ", ".join(absent.get(name, quote(name)) for name in types)

    def _types(self, query: str) -> dict[str, str]:
        described = self._connection.execute(f"DESCRIBE {query}").fetchall()
        return {row[0]: row[1] for row in described if row[0] not in ("row", "reason")}

    def _names(self, file: Path) -> list[str]:
        table = file.stem
        declared = {column.name for column in table_columns(self._log.spec, table)}
        return [name for name in self._types(f"SELECT * FROM read_parquet({literal(file)})") if name in declared]

    def _dates(self) -> Iterator[date]:
        day = self._start.astimezone(UTC).date()
        while day <= (self._end - timedelta(microseconds=1)).astimezone(UTC).date():
            yield day
            day += _DAY

    def _day_of(self, when: datetime) -> str:
        """First UTC date of the data day that a moment lies in."""
        whole = (when - self._start) // _DAY
        return day_name(self._start + whole * _DAY)

    def _copy(self, query: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        self._connection.execute(f"COPY ({query}) TO {literal(partial)} (FORMAT parquet, COMPRESSION zstd)")
        partial.replace(path)

    def _num_rows(self, query: str) -> int:
        return int(self._one(f"SELECT count(*) FROM ({query})")[0])

    def _one(self, query: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._connection.execute(query).fetchall()[0]
        return row
