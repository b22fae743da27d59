"""From staged tables to the event log: check, set bad rows aside, partition by day, swap into place whole."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from trainers.data.checks import Checker, EventLogError, check_share
from trainers.data.columns import CONVERSIONS, IMPRESSIONS, PINS, table_columns, table_names
from trainers.data.connection import DEFAULT_MEMORY_MB, connect, literal, quote
from trainers.data.dataset import DatasetSpec
from trainers.data.ingest_report import IngestReport, TableReport
from trainers.data.raw_days import EVENT_TABLES, staged_sums, write_sums

logger = logging.getLogger(__name__)

Progress = Callable[[str, float], None]
"""Told what is being done and the share of it that is done, 0 to 1."""

SPEC_FILE, REPORT_FILE, QUARANTINE = "spec.json", "report.json", "quarantine"
SIDE_FILES = ("truth.parquet", "keys_user.parquet", "keys_pin.parquet")
"""Staged files that are copied as they are: true probabilities, and the texts behind mapped entity keys."""

_CHECKED_SHARE = 0.5
_EMPTY = "an event log must hold at least one impression (got 0); check the source files"
_DAY = timedelta(days=1)


def log_progress(message: str, share: float) -> None:
    """Progress for callers who show none."""
    logger.debug("message=%r share=%.3f", message, share)


def ingest(
    spec: DatasetSpec,
    staging: Path,
    out: Path,
    *,
    now: datetime,
    progress: Progress = log_progress,
    memory_mb: int = DEFAULT_MEMORY_MB,
    until: datetime | None = None,
) -> IngestReport:
    """Check staged tables and put the event log at `out`, replacing an earlier one only once the new one is whole.

    Args:
        spec: Declaration of the dataset.
        staging: Folder with `<table>.parquet` files.
        out: Folder of the event log.
        now: Moment after which an event lies in the future; must have a time zone.
        progress: Told about every table checked and every day written.
        memory_mb: Memory limit of DuckDB in megabytes; what doesn't fit spills into `out`'s folder.
        until: What is staged from this moment on stays out, as if it had not happened yet.

    Raises:
        EventLogError: The data cannot become an event log. Bad rows and counts then lie in `<out>.rejected`.
    """
    if now.tzinfo is None:
        raise ValueError(f"now must have a time zone (got {now.isoformat()}); use datetime.now(UTC)")
    recover(out)
    partial = _beside(out, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with connect(temp=_beside(out, "spill"), memory_mb=memory_mb) as connection:
            checker = Checker(connection, spec, staging, now, until=until)
            report = _Ingestion(connection, spec, staging, partial).run(out, checker, progress)
        _swap(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(_beside(out, "spill"), ignore_errors=True)
    return report


def recover(out: Path) -> None:
    """Put an earlier event log back when a kill hit the moment between its removal and its replacement."""
    earlier = _beside(out, "earlier")
    if earlier.exists() and not out.exists():
        earlier.rename(out)
    shutil.rmtree(earlier, ignore_errors=True)


def rejected(out: Path) -> Path:
    """Folder that keeps the quarantine and the counts of an ingestion that failed."""
    return out.with_name(f"{out.name}.rejected")


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(f".{out.name}.{suffix}")


def _swap(partial: Path, out: Path) -> None:
    with suppress(FileNotFoundError):
        out.rename(_beside(out, "earlier"))
    partial.rename(out)
    shutil.rmtree(_beside(out, "earlier"), ignore_errors=True)
    shutil.rmtree(rejected(out), ignore_errors=True)


def join_conversions(connection: duckdb.DuckDBPyConnection, checker: Checker) -> None:
    """Fill `joined_conversions`: every good conversion with the entity keys and the surface of its impression."""
    columns = [row[0] for row in connection.execute(f"DESCRIBE checked_{CONVERSIONS}").fetchall()]
    value = "c.value" if "value" in columns else "NULL::DOUBLE AS value"
    connection.execute(
        f"CREATE TABLE joined_{CONVERSIONS} AS "
        f"SELECT c.impression_id, i.user_id, i.pin_id, i.surface, c.event_timestamp, c.kind, {value} "
        f"FROM checked_{CONVERSIONS} AS c JOIN ({checker.impressions()}) AS i USING (impression_id) "
        "WHERE c.reason IS NULL"
    )


class _Ingestion:
    """One pass from staged tables to a partial event log."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, spec: DatasetSpec, staging: Path, partial: Path) -> None:
        self._connection = connection
        self._spec = spec
        self._staging = staging
        self._partial = partial

    def run(self, out: Path, checker: Checker, progress: Progress) -> IngestReport:
        """Write everything of the event log into the partial folder."""
        tables = self._check(checker, progress)
        self._refuse(tables, out, checker)
        if CONVERSIONS in tables:
            join_conversions(self._connection, checker)
        self._write_days(CONVERSIONS in tables, progress)
        for table in tables:
            if table not in (IMPRESSIONS, CONVERSIONS):
                self._write_whole(table)
        for name in SIDE_FILES:
            if (self._staging / name).exists():
                shutil.copy(self._staging / name, self._partial / name)
        report = self._report(tables)
        (self._partial / REPORT_FILE).write_text(report.to_json())
        (self._partial / SPEC_FILE).write_text(self._spec.model_dump_json(indent=2) + "\n")
        anchor = self._spec.window.features_from
        sums = {table: staged_sums(self._connection, self._staging, table, anchor) for table in EVENT_TABLES}
        write_sums(self._partial, sums)
        progress("event log written", 1.0)
        return report

    def _check(self, checker: Checker, progress: Progress) -> dict[str, TableReport]:
        staged = [name for name in table_names(self._spec) if (self._staging / f"{name}.parquet").exists()]
        if IMPRESSIONS not in staged:
            wanted = self._staging / f"{IMPRESSIONS}.parquet"
            raise EventLogError(f"an event log needs impressions (got no {wanted}); stage that table")
        tables = {}
        for done, table in enumerate(staged):
            progress(f"checking {table}", _CHECKED_SHARE * done / len(staged))
            tables[table] = checker.check(table)
            if tables[table].quarantined:
                checker.write_quarantine(table, self._partial / QUARANTINE / f"{table}.parquet")
        return tables

    def _refuse(self, tables: dict[str, TableReport], out: Path, checker: Checker) -> None:
        """Fail on what is not worth an event log, leaving the quarantine where it can be looked at."""
        kept_aside = rejected(out)
        try:
            # First of all: without impressions every conversion is bad as well, which is not the point.
            if tables[IMPRESSIONS].read == 0:
                raise EventLogError(_EMPTY)
            for table, report in tables.items():
                quarantine = kept_aside / QUARANTINE / f"{table}.parquet"
                check_share(table, report, self._spec.quarantine_share, quarantine, checker)
            if tables[IMPRESSIONS].kept == 0:
                raise EventLogError(_EMPTY)
        except EventLogError:
            shutil.rmtree(kept_aside, ignore_errors=True)
            (self._partial / REPORT_FILE).write_text(IngestReport(tables=tables).to_json())
            self._partial.rename(kept_aside)
            raise

    def _write_days(self, with_conversions: bool, progress: Progress) -> None:
        impressions = f"SELECT {self._columns(IMPRESSIONS)} FROM checked_{IMPRESSIONS} WHERE reason IS NULL"
        sources = {IMPRESSIONS: (impressions, "event_timestamp, impression_id")}
        if with_conversions:
            conversions = f"SELECT * FROM joined_{CONVERSIONS} WHERE true"
            sources[CONVERSIONS] = (conversions, "event_timestamp, impression_id, kind")
        parts = [(table, day) for table, (query, _) in sources.items() for day in self._days(query)]
        for done, (table, day) in enumerate(parts):
            progress(f"writing {table} of {day}", _CHECKED_SHARE + (1 - _CHECKED_SHARE) * done / len(parts))
            query, order = sources[table]
            self._copy(
                f"{query} AND event_timestamp >= TIMESTAMPTZ '{day} 00:00:00+00' "
                f"AND event_timestamp < TIMESTAMPTZ '{day + _DAY} 00:00:00+00' ORDER BY {order}",
                self._partial / table / f"date={day}" / "part-0.parquet",
            )

    def _days(self, query: str) -> list[date]:
        rows = self._rows(f"SELECT DISTINCT event_timestamp::DATE FROM ({query}) ORDER BY 1")
        return [row[0] for row in rows]

    def _columns(self, table: str) -> str:
        have = {row[0] for row in self._rows(f"DESCRIBE checked_{table}")}
        return ", ".join(quote(column.name) for column in table_columns(self._spec, table) if column.name in have)

    def _write_whole(self, table: str) -> None:
        key = "pin_id" if table == PINS else "user_id"
        self._copy(
            f"SELECT {self._columns(table)} FROM checked_{table} WHERE reason IS NULL ORDER BY {key}, event_timestamp",
            self._partial / f"{table}.parquet",
        )

    def _copy(self, query: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection.execute(f"COPY ({query}) TO {literal(path)} (FORMAT parquet, COMPRESSION zstd)")

    def _report(self, tables: dict[str, TableReport]) -> IngestReport:
        good = f"FROM checked_{IMPRESSIONS} WHERE reason IS NULL"
        counts = dict(self._rows(f"SELECT event_timestamp::DATE, count(*) {good} GROUP BY 1"))
        first, last = min(counts), max(counts)
        every_day = [first + n * _DAY for n in range((last - first).days + 1)]
        report = IngestReport(
            tables=tables,
            days={day.isoformat(): counts.get(day, 0) for day in every_day},
            surfaces=dict(self._rows(f"SELECT surface, count(*) {good} GROUP BY 1 ORDER BY 2 DESC, 1")),
            label_rates=self._label_rates(tables),
        )
        return report.with_warnings(self._open_labels(CONVERSIONS in tables))

    def _open_labels(self, with_conversions: bool) -> Iterator[str]:
        """A warning for each task whose test labels may still change after the last event of the log."""
        times = f"SELECT event_timestamp FROM checked_{IMPRESSIONS} WHERE reason IS NULL"
        times += f" UNION ALL SELECT event_timestamp FROM joined_{CONVERSIONS}" if with_conversions else ""
        last: date = self._rows(f"SELECT max(event_timestamp)::DATE FROM ({times})")[0][0]
        for task in self._spec.tasks:
            conversion = self._spec.conversion_kind(task.label)
            if conversion is None:
                continue
            final = self._spec.window.until + conversion.attribution_days * _DAY
            if last + _DAY < final.date():
                yield (
                    f"labels of task {task.name} are final only in a log that reaches {final:%Y-%m-%d}, "
                    f"{conversion.attribution_days} days after window.until (its last event is of {last}): what "
                    "converts later counts as a negative of the test days; add those days or end the window earlier"
                )

    def _label_rates(self, tables: dict[str, TableReport]) -> dict[str, float | None]:
        means = ", ".join(f"avg({quote(label)})" for label in self._spec.labels)
        row = self._rows(f"SELECT {means} FROM checked_{IMPRESSIONS} WHERE reason IS NULL")[0]
        rates: dict[str, float | None] = dict(zip(self._spec.labels, row, strict=True))
        if CONVERSIONS in tables:
            found = dict(self._rows(f"SELECT kind, count(*) FROM joined_{CONVERSIONS} GROUP BY 1"))
            for conversion in self._spec.conversions:
                rates[conversion.kind] = found.get(conversion.kind, 0) / tables[IMPRESSIONS].kept
        return rates

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._connection.execute(query).fetchall()
        return rows
