"""Checks between a staged table and the event log: what is fatal and what sends a row to quarantine.

Each staged table becomes a typed DuckDB table `checked_<table>` with the staged row number and the reason why a row
is bad, null for a good one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import duckdb

from trainers.data.columns import (
    CONVERSIONS,
    IMPRESSIONS,
    NAIVE_TYPES,
    PINS,
    USERS,
    ZONED_TYPES,
    Column,
    table_columns,
)
from trainers.data.connection import literal, moment, quote
from trainers.data.dataset import DatasetSpec
from trainers.data.ingest_report import EXPECTED, OF_NONE, OUTSIDE_LOG, TableReport
from trainers.data.source_places import SOURCE_FILE, SOURCE_ROW, read_columns

_SHOWN_REASONS, _SHOWN_CHARACTERS = 3, 80

IMPRESSION_KEYS = ("impression_id", "user_id", "pin_id", "surface", "event_timestamp")
"""Columns of an impression that its conversions are checked against and joined with."""


class EventLogError(ValueError):
    """The data of an event log breaks a promise that everything after it relies on."""


class Checker:
    """Runs the checks of a dataset's tables, which must come entities first."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        spec: DatasetSpec,
        staging: Path,
        now: datetime,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        earlier: str | None = None,
    ) -> None:
        """
        Args:
            since: Events before this moment are left alone; those without a readable time too, whose day is not known.
            until: Events, users and Pins from this moment on are left alone.
            earlier: Query for `IMPRESSION_KEYS` of the impressions that the log holds from before `since`.
        """
        self._connection = connection
        self._spec = spec
        self._staging = staging
        self._now = f"TIMESTAMPTZ {literal(now.isoformat())}"
        self._since, self._until, self._earlier = since, until, earlier
        self._checked: set[str] = set()

    def impressions(self) -> str:
        """Query for `IMPRESSION_KEYS` of every good impression, staged or of before."""
        staged = f"SELECT {', '.join(IMPRESSION_KEYS)} FROM checked_{IMPRESSIONS} WHERE reason IS NULL"
        return f"{staged} UNION ALL {self._earlier}" if self._earlier else staged

    def check(self, table: str) -> TableReport:
        """Fill `checked_<table>` and count its rows.

        Raises:
            EventLogError: A column is missing, a whole column has the wrong type, or timestamps are naive.
        """
        types = self._staged_types(table)
        declared = table_columns(self._spec, table)
        columns = [column for column in declared if column.required or column.name in types]
        for column in columns:
            _check_schema(table, column, types)
        self._check_whole_columns(table, columns, types)
        self._fill(table, columns, types)
        for reason, condition in self._between_rows(table):
            self._connection.execute(
                f"UPDATE checked_{table} SET reason = {literal(reason)} WHERE reason IS NULL AND {condition}"
            )
        self._checked.add(table)
        return self._count(table, tuple(sorted(set(types) - {column.name for column in declared})))

    def write_quarantine(self, table: str, path: Path) -> None:
        """The bad rows of a checked table as strings, with the reason, and the file and row where each stands."""
        path.parent.mkdir(parents=True, exist_ok=True)
        values = ", ".join(f"s.{quote(name)}::VARCHAR AS {quote(name)}" for name in self._staged_types(table))
        place = (
            f"s.{SOURCE_FILE} AS file, s.{SOURCE_ROW} AS row" if self._says_where(table) else "s.file_row_number AS row"
        )
        self._connection.execute(
            f"COPY (SELECT {place}, {values}, c.reason FROM {self._staged(table)} AS s "
            f"JOIN (FROM checked_{table} WHERE reason IS NOT NULL) AS c ON s.file_row_number = c.row ORDER BY c.row) "
            f"TO {literal(path)} (FORMAT parquet)"
        )

    def example(self, table: str, reason: str) -> str:
        """` such as '…' (file, row, column)` of the first row with a reason; empty where its value is null."""
        names = list(self._staged_types(table))
        # A reason names the column it is about; the others are about the impression that a row refers to.
        found = sorted((name for name in names if name in reason.split()), key=len)
        column = found[-1] if found else "impression_id"
        if column not in names:
            return ""
        first = f"(FROM checked_{table} WHERE reason = {literal(reason)} ORDER BY row LIMIT 1) AS c"
        return self._shown(table, column, f"JOIN {first} ON s.file_row_number = c.row")

    def _shown(self, table: str, column: str, chosen: str) -> str:
        """The value of a staged column in the first of the chosen rows, and where it comes from."""
        where = f"s.{SOURCE_FILE}, s.{SOURCE_ROW}" if self._says_where(table) else "NULL, NULL"
        row = self._connection.execute(
            f"SELECT s.{quote(column)}::VARCHAR, {where} FROM {self._staged(table)} AS s {chosen} "
            "ORDER BY s.file_row_number LIMIT 1"
        ).fetchone()
        if row is None:
            return ""
        value, file, number = row
        value = self._text_of(column, value)
        such_as = f" such as {value[:_SHOWN_CHARACTERS]!r}" if value else ""
        if file is None:
            return such_as
        source = read_columns(self._staging).get(file, {}).get(column, column)
        return f"{such_as} ({file}, row {number}, column {source})"

    def _text_of(self, column: str, value: str | None) -> str | None:
        """The text behind the number of an entity key, where keys are texts."""
        keys = self._staging / f"keys_{column.removesuffix('_id')}.parquet"
        if value is None or column not in ("user_id", "pin_id") or not keys.exists():
            return value
        found = self._connection.execute(
            f"SELECT key FROM {literal(keys)} WHERE {column} = TRY_CAST({literal(value)} AS BIGINT)"
        ).fetchone()
        return str(found[0]) if found else value

    def _staged(self, table: str) -> str:
        return f"read_parquet({literal(self._staging / f'{table}.parquet')}, file_row_number = true)"

    def _staged_types(self, table: str) -> dict[str, str]:
        return {name: kind for name, kind in self._all_types(table).items() if name not in (SOURCE_FILE, SOURCE_ROW)}

    def _says_where(self, table: str) -> bool:
        """Whether staged rows say which row of which file they come from."""
        return SOURCE_FILE in self._all_types(table)

    def _all_types(self, table: str) -> dict[str, str]:
        described = self._connection.execute(f"DESCRIBE SELECT * EXCLUDE file_row_number FROM {self._staged(table)}")
        return {row[0]: row[1] for row in described.fetchall()}

    def _check_whole_columns(self, table: str, columns: list[Column], types: dict[str, str]) -> None:
        """Refuse columns in which no value at all can be read."""
        doubtful = [column for column in columns if types[column.name] != column.sql_type]
        if not doubtful:
            return
        counts = ", ".join(
            f"count(*) FILTER (WHERE {column.present(types[column.name])}), count({column.cast(types[column.name])})"
            for column in doubtful
        )
        row = self._connection.execute(f"SELECT {counts} FROM {self._staged(table)} AS s").fetchall()[0]
        for column, present, readable in zip(doubtful, row[::2], row[1::2], strict=True):
            if present and not readable:
                example = self._shown(table, column.name, f"WHERE {column.present(types[column.name])}")
                raise EventLogError(_unreadable(table, column, types[column.name], example))

    def _fill(self, table: str, columns: list[Column], types: dict[str, str]) -> None:
        cast = ", ".join(f"{literal(column.name)}: {column.cast(types[column.name])}" for column in columns)
        faults = [fault for column in columns for fault in column.faults(types[column.name], self._now)]
        cases = " ".join(f"WHEN {condition} THEN {literal(reason)}" for condition, reason in faults)
        self._connection.execute(
            f"CREATE TABLE checked_{table} AS SELECT row, unnest(c), CASE {cases} END AS reason FROM "
            f"(SELECT s.file_row_number AS row, s, {{{cast}}} AS c FROM {self._staged(table)} AS s) "
            f"WHERE {self._in_period(table)}"
        )

    def _in_period(self, table: str) -> str:
        """SQL that holds for rows of the period; a row whose time cannot be read belongs to a whole log."""
        conditions = []
        if self._since is not None and table in (IMPRESSIONS, CONVERSIONS):
            conditions.append(f"c.event_timestamp >= {moment(self._since)}")
        if self._until is not None:
            conditions.append(f"(c.event_timestamp IS NULL OR c.event_timestamp < {moment(self._until)})")
        return " AND ".join(conditions) or "true"

    def _between_rows(self, table: str) -> Iterator[tuple[str, str]]:
        """Pairs of reason and SQL condition that look at more than the row itself."""
        if table in (USERS, PINS):
            entity = "user_id" if table == USERS else "pin_id"
            yield f"duplicate {entity} and event_timestamp", self._repeated(table, f"{entity}, event_timestamp")
        elif table == IMPRESSIONS:
            yield "duplicate impression_id", self._repeated(table, "impression_id")
            if self._earlier:
                yield "duplicate impression_id", f"impression_id IN (SELECT impression_id FROM ({self._earlier}))"
            yield from self._unknown("user_id", USERS)
            yield from self._unknown("pin_id", PINS)
        elif table == CONVERSIONS:
            yield from self._conversion_faults()
        else:
            yield "duplicate user_id and event_timestamp", self._repeated(table, "user_id, event_timestamp")
            yield from self._unknown("user_id", USERS)

    def _repeated(self, table: str, keys: str) -> str:
        """Condition of rows whose keys an earlier good row has already."""
        good = f"FROM checked_{table} WHERE reason IS NULL"
        repeated = f"SELECT {keys} {good} GROUP BY {keys} HAVING count(*) > 1"
        return (
            f"row IN (SELECT row FROM (SELECT row, row_number() OVER (PARTITION BY {keys} ORDER BY row) AS nth "
            f"FROM (SELECT row, {keys} {good}) SEMI JOIN ({repeated}) USING ({keys})) WHERE nth > 1)"
        )

    def _unknown(self, key: str, entities: str) -> Iterator[tuple[str, str]]:
        if entities in self._checked:
            yield f"unknown {key}", f"{key} NOT IN (SELECT {key} FROM checked_{entities} WHERE reason IS NULL)"

    def _conversion_faults(self) -> Iterator[tuple[str, str]]:
        kinds = ", ".join(literal(conversion.kind) for conversion in self._spec.conversions)
        impressions = self.impressions()
        yield "undeclared kind", f"kind NOT IN ({kinds})"
        yield OF_NONE, "impression_id IS NULL"
        unknown = f"impression_id NOT IN (SELECT impression_id FROM ({impressions}))"
        yield OUTSIDE_LOG, f"{unknown} AND NOT ({self._surely_inside(impressions)})"
        yield "conversion without its impression", unknown
        joined = f"checked_{CONVERSIONS} AS c JOIN ({impressions}) AS i USING (impression_id)"
        yield (
            "conversion before its impression",
            f"row IN (SELECT c.row FROM {joined} WHERE c.event_timestamp < i.event_timestamp)",
        )
        yield "duplicate conversion", self._repeated(CONVERSIONS, "impression_id, kind, event_timestamp")

    def _surely_inside(self, impressions: str) -> str:
        """Condition of conversions whose impression, at most its attribution window earlier, must be in the log."""
        first, last = (f"(SELECT {end}(event_timestamp) FROM ({impressions}))" for end in ("min", "max"))
        windows = " ".join(
            f"WHEN {literal(each.kind)} THEN INTERVAL {each.attribution_days} DAY" for each in self._spec.conversions
        )
        return f"event_timestamp <= {last} AND event_timestamp - CASE kind {windows} END >= {first}"

    def _count(self, table: str, ignored: tuple[str, ...]) -> TableReport:
        rows = self._connection.execute(
            f"SELECT reason, count(*) FROM checked_{table} GROUP BY reason ORDER BY count(*) DESC, reason"
        ).fetchall()
        reasons = {reason: count for reason, count in rows if reason is not None}
        read = sum(count for _, count in rows)
        return TableReport(read=read, kept=read - sum(reasons.values()), reasons=reasons, ignored_columns=ignored)


def _check_schema(table: str, column: Column, types: dict[str, str]) -> None:
    if column.name not in types:
        raise EventLogError(
            f"table {table} must have column {column.name} (got {', '.join(types)}); add it or map a column to it"
        )
    staged_type = types[column.name]
    if column.kind == "time" and staged_type in NAIVE_TYPES:
        raise EventLogError(
            f"{table}.{column.name} must say its time zone (got naive {staged_type}); "
            "write it as a UTC timestamp, or declare `timezone: UTC` in the dataset's YAML"
        )
    if column.kind == "time" and staged_type not in (*ZONED_TYPES, "VARCHAR"):
        raise EventLogError(
            f"{table}.{column.name} must be a timestamp with a time zone (got {staged_type}); "
            "convert it, or declare its `format` in the dataset's YAML"
        )


def _unreadable(table: str, column: Column, staged_type: str, example: str) -> str:
    if column.kind == "time":
        return (
            f"{table}.{column.name} must hold timestamps that say their time zone (got none in any row but texts"
            f"{example}); write ISO timestamps with an offset, or declare `format` and `timezone` in the dataset's YAML"
        )
    remedy = "declare another type"
    if column.kind in ("key", "keys"):
        entity = column.name.partition("_")[0]
        remedy = f"say in the dataset's YAML that its `keys` are texts: `keys: {{{entity}: string}}`"
    return (
        f"{table}.{column.name} must hold {column.sql_type} values (got {staged_type} in every row{example}); "
        f"map the right column, or {remedy}"
    )


def check_share(table: str, report: TableReport, limit: float, quarantine: Path, checker: Checker) -> None:
    """Refuse a table with too many bad rows.

    Raises:
        EventLogError: The share of quarantined rows lies above `limit`; the text shows the first value of each reason.
    """
    if report.faulty_share <= limit:
        return
    top = ", ".join(
        f"{reason} {count:,}{checker.example(table, reason)}"
        for reason, count in list(report.reasons.items())[:_SHOWN_REASONS]
        if reason not in EXPECTED or report.faulty == report.quarantined
    )
    raise EventLogError(
        f"bad rows in table {table} must stay at or below a share of {limit:g} (got {report.faulty:,} of "
        f"{report.read:,} = {report.faulty_share:.4f}: {top}); look at {quarantine}, then fix the source or "
        "raise `quarantine_share` of the dataset"
    )
