"""Figures of an event log: ranges of its columns, label rates by day and surface, delays, rows of each task."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import duckdb

from trainers.data.columns import CONVERSIONS, IMPRESSIONS, table_columns, table_names
from trainers.data.connection import literal, quote
from trainers.data.dataset import DatasetSpec
from trainers.data.event_log import EventLog
from trainers.data.inspection.schema import ColumnCheck, DayRates, DelayCheck, SurfaceRates, TaskCheck
from trainers.data.task_checks import judged_tasks
from trainers.data.task_days import longest_attribution_days, task_days

_LONGEST_SHOWN = 32


class LogFigures:
    """Queries over one event log."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, log: EventLog) -> None:
        self._connection = connection
        self._log = log
        self._spec: DatasetSpec = log.spec

    def columns(self) -> Iterator[ColumnCheck]:
        """Every column of every table."""
        for table in table_names(self._spec):
            source = self._source(table)
            if source is None:
                continue
            there = {row[0] for row in self._connection.execute(f"DESCRIBE FROM {source}").fetchall()}
            for column in table_columns(self._spec, table):
                if column.name in there:
                    yield self._column(table, source, column.name)

    def _column(self, table: str, source: str, name: str) -> ColumnCheck:
        value = quote(name)
        row = self._row(
            f"SELECT count(*) - count({value}), count(DISTINCT {value}), min({value})::VARCHAR, max({value})::VARCHAR "
            f"FROM {source}"
        )
        ends = self._texts(source, name) or row[2:]
        smallest, largest = (_short(each) for each in ends)
        return ColumnCheck(
            table=table, column=name, missing=row[0], distinct=row[1], smallest=smallest, largest=largest
        )

    def _texts(self, source: str, name: str) -> tuple[str, str] | None:
        """First and last of an entity's keys as the files have them, where those are texts."""
        keys = self._log.path / f"keys_{name.removesuffix('_id')}.parquet"
        if name not in ("user_id", "pin_id") or not keys.exists():
            return None
        first, last = self._row(
            f"SELECT min(key), max(key) FROM {literal(keys)} SEMI JOIN {source} AS s USING ({name})"
        )
        return first, last

    def sizes(self) -> tuple[int, int, int]:
        """Impressions, users and Pins."""
        source = self._source(IMPRESSIONS)
        row = self._row(f"SELECT count(*), count(DISTINCT user_id), count(DISTINCT pin_id) FROM {source}")
        return row[0], row[1], row[2]

    def days(self) -> list[DayRates]:
        """Label rates by UTC day."""
        rows = self._rates("event_timestamp::DATE")
        return [DayRates(day=key, impressions=count, rates=rates) for key, count, rates in sorted(rows)]

    def surfaces(self) -> list[SurfaceRates]:
        """Label rates by surface, the largest first."""
        rows = sorted(self._rates("surface"), key=lambda row: -row[1])
        return [SurfaceRates(surface=key, impressions=count, rates=rates) for key, count, rates in rows]

    def _rates(self, key: str) -> list[tuple[Any, int, dict[str, float]]]:
        labels = self._spec.labels
        rates = ", ".join(f"avg({quote(label)})" for label in labels)
        rows = self._connection.execute(
            f"SELECT {key}, count(*), {rates} FROM {self._source(IMPRESSIONS)} GROUP BY 1"
        ).fetchall()
        return [
            (row[0], row[1], {label: rate for label, rate in zip(labels, row[2:], strict=True) if rate is not None})
            for row in rows
        ]

    def delays(self) -> list[DelayCheck]:
        """Time from impression to conversion, by kind."""
        source = self._source(CONVERSIONS)
        if source is None:
            return []
        num_impressions = self.sizes()[0]
        days = "epoch(c.event_timestamp - i.event_timestamp) / 86400.0"
        found = []
        for conversion in self._spec.conversions:
            row = self._row(
                f"SELECT count(*), quantile_cont({days}, 0.5), quantile_cont({days}, 0.95), "
                f"avg(({days} < {conversion.attribution_days})::INTEGER) FROM {source} AS c "
                f"JOIN {self._source(IMPRESSIONS)} AS i USING (impression_id) WHERE c.kind = {literal(conversion.kind)}"
            )
            if row[0]:
                found.append(
                    DelayCheck(
                        kind=conversion.kind,
                        count=row[0],
                        per_impression=row[0] / num_impressions,
                        median_days=row[1],
                        p95_days=row[2],
                        attribution_days=conversion.attribution_days,
                        within=row[3],
                    )
                )
        return found

    def tasks(self) -> Iterator[TaskCheck]:
        """Rows of the judged tasks in training, validation and test."""
        for task in judged_tasks(self._spec).values():
            wait = timedelta(days=longest_attribution_days(self._spec, task))
            for part, (start, end) in task_days(self._spec, task).parts().items():
                known_by = end + wait if part == "test" else self._spec.window.test_from
                negatives, positives = self._log.class_counts(task, start, end, known_by)
                days = {"start": start.date(), "end": end.date()}
                yield TaskCheck.model_validate(
                    {"task": task, "part": part, "negatives": negatives, "positives": positives, **days}
                )

    def _source(self, table: str) -> str | None:
        """SQL of a table of the event log; none where it has no rows or there is none."""
        path = self._log.path / f"{table}.parquet"
        if table in (IMPRESSIONS, CONVERSIONS):
            if not self._log.days(table):
                return None
            path = self._log.path / table / "*" / "*.parquet"
        elif not path.exists():
            return None
        return f"read_parquet({literal(path)}, hive_partitioning = false, union_by_name = true)"

    def _row(self, sql: str) -> Any:
        return self._connection.execute(sql).fetchall()[0]


def _short(value: str | None) -> str:
    shown = value or ""
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[: _LONGEST_SHOWN - 1]}…"
