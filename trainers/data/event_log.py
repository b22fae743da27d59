"""The event log: the canonical, checked input of every later step.

`event_log/` holds `impressions/date=YYYY-MM-DD/part-0.parquet`, the same for `conversions`, `users.parquet`,
`pins.parquet`, `history_<name>.parquet`, `quarantine/`, `spec.json` and `report.json`; see `docs/event_log.md`.
Partitions are UTC dates, timestamps UTC microseconds. Days that came later stand in files of their own beside them,
`appended-YYYY-MM-DD.parquet`, named after their cut-off (`append.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from trainers.data import labels
from trainers.data.checks import EventLogError
from trainers.data.columns import CONVERSIONS, IMPRESSIONS, PINS, USERS, table_columns
from trainers.data.connection import connect, literal, moment, quote
from trainers.data.dataset import DatasetSpec
from trainers.data.ingest import REPORT_FILE, SPEC_FILE, Progress, ingest, log_progress
from trainers.data.ingest_report import IngestReport, TableReport

__all__ = ["EventLog", "EventLogError", "IngestReport", "Progress", "TableReport", "ingest", "log_progress"]


class EventLog:
    """Reads an event log; holds no data and no connection, so it is cheap to make and to pass on.

    Raises:
        EventLogError: There is no complete event log at `path`.
    """

    def __init__(self, path: Path) -> None:
        if not (path / SPEC_FILE).exists():
            raise EventLogError(f"an event log must have {SPEC_FILE} (got none in {path}); run `headwater ingest`")
        self.path = path

    @cached_property
    def spec(self) -> DatasetSpec:
        """Declaration of the dataset."""
        return DatasetSpec.model_validate_json((self.path / SPEC_FILE).read_text())

    @cached_property
    def report(self) -> IngestReport:
        """What ingestion counted."""
        return IngestReport.from_json((self.path / REPORT_FILE).read_text())

    @property
    def users_path(self) -> Path | None:
        """File of the users, none where the dataset has no such table."""
        return self._existing(f"{USERS}.parquet")

    @property
    def pins_path(self) -> Path | None:
        """File of the Pins, none where the dataset has no such table."""
        return self._existing(f"{PINS}.parquet")

    @property
    def truth_path(self) -> Path | None:
        """File of the true probabilities of synthetic data; for evaluation alone."""
        return self._existing("truth.parquet")

    def history_path(self, name: str) -> Path | None:
        """File of a long user history."""
        return self._existing(f"history_{name}.parquet")

    def days(self, table: str = IMPRESSIONS) -> list[date]:
        """UTC dates that hold rows of `impressions` or `conversions`, in order."""
        folders = (self.path / table).glob("date=*")
        return sorted(date.fromisoformat(folder.name.removeprefix("date=")) for folder in folders)

    def impressions_sql(self, from_: datetime, until: datetime) -> str:
        """A DuckDB query for the impressions with `from_` <= `event_timestamp` < `until`, reading those days only."""
        return self._period(IMPRESSIONS, from_, until)

    def conversions_sql(self, from_: datetime, until: datetime) -> str:
        """A DuckDB query for the conversions that happened in a period, reading those days only."""
        return self._period(CONVERSIONS, from_, until)

    def impressions(self, from_: datetime, until: datetime) -> pa.Table:
        """Impressions of a period by (event_timestamp, impression_id)."""
        return self.query(f"{self.impressions_sql(from_, until)} ORDER BY event_timestamp, impression_id")

    def conversions(self, from_: datetime, until: datetime) -> pa.Table:
        """Conversions that happened in a period by (event_timestamp, impression_id, kind)."""
        return self.query(f"{self.conversions_sql(from_, until)} ORDER BY event_timestamp, impression_id, kind")

    def labelled(
        self, task: str, from_: datetime, until: datetime, known_by: datetime, *, matured: bool = False
    ) -> pa.Table:
        """Impressions of a period on which a task's label is known at a cut-off; see `labels.labelled`."""
        return labels.labelled(self, task, from_, until, known_by, matured=matured)

    def task_labels(self, from_: datetime, until: datetime, known_by: datetime, *, matured: bool = False) -> pa.Table:
        """All impressions of a period with the label of every task; see `labels.task_labels`."""
        return labels.task_labels(self, from_, until, known_by, matured=matured)

    def class_counts(self, task: str, from_: datetime, until: datetime, known_by: datetime) -> tuple[int, int]:
        """Negatives and positives of a task in a period, as known at a cut-off; see `labels.class_counts`."""
        return labels.class_counts(self, task, from_, until, known_by)

    def query(self, sql: str) -> pa.Table:
        """Result of a DuckDB query under the default memory limit."""
        with tempfile.TemporaryDirectory(prefix="headwater-") as temp, connect(temp=Path(temp)) as connection:
            return connection.sql(sql).to_arrow_table()

    def _existing(self, name: str) -> Path | None:
        path = self.path / name
        return path if path.exists() else None

    def _period(self, table: str, from_: datetime, until: datetime) -> str:
        first, last = (moment.astimezone(UTC) for moment in (from_, until - timedelta(microseconds=1)))
        days = [day for day in self.days(table) if first.date() <= day <= last.date()]
        if not days:
            return self._no_rows(table)
        files = ", ".join(map(literal, self._files(table, days)))
        return (
            f"SELECT * FROM read_parquet([{files}], hive_partitioning = false) "
            f"WHERE event_timestamp >= {moment(from_)} AND event_timestamp < {moment(until)}"
        )

    def _files(self, table: str, days: Sequence[date]) -> list[Path]:
        return [file for day in days for file in sorted((self.path / table / f"date={day}").glob("[!.]*.parquet"))]

    def _no_rows(self, table: str) -> str:
        days = self.days(table)
        if days:
            path = self._files(table, days[:1])[0]
            return f"SELECT * FROM read_parquet({literal(path)}, hive_partitioning = false) WHERE false"
        types = {"impression_id": "BIGINT", "user_id": "BIGINT", "pin_id": "BIGINT", "surface": "VARCHAR"}
        types |= {column.name: column.sql_type for column in table_columns(self.spec, table)}
        columns = ", ".join(f"NULL::{sql_type} AS {quote(name)}" for name, sql_type in types.items())
        return f"SELECT {columns} WHERE false"
