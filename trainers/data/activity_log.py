"""The event log as activity features read it: daily partition files, clipped to an interval of time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from trainers.data.columns import CONVERSIONS, IMPRESSIONS
from trainers.data.connection import literal, moment, quote

_SHORTEST = timedelta(microseconds=1)

APPENDED = "appended-"
"""Beginning of the name of a file with what came later; the UTC date of its cut-off follows."""


def last_date_before(cutoff: datetime) -> date:
    """UTC date of the last partition that can hold an event strictly before `cutoff`."""
    return (cutoff - _SHORTEST).astimezone(UTC).date()


def parquet_relation(*files: Path) -> str:
    """Relation over explicit parquet files; the date in a folder's name is not read as a column."""
    return f"read_parquet([{', '.join(map(literal, files))}], hive_partitioning=false)"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionFile:
    """One file of a daily partition."""

    day: date
    """UTC date of the events in it."""
    path: Path
    identity: str
    """Relative path, size and modification time: changes when the file is written anew."""
    appended: date | None = None
    """UTC date of the cut-off that the file was appended for; it holds no event from before the cut-off before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DailyLog:
    """Partition files of impressions and conversions, as they were when listed."""

    impressions: tuple[PartitionFile, ...]
    conversions: tuple[PartitionFile, ...]

    @classmethod
    def list_files(cls, event_log: Path) -> DailyLog:
        """List the partitions under `event_log`.

        Raises:
            FileNotFoundError: There is no partition of impressions.
        """
        log = cls(impressions=_partitions(event_log, IMPRESSIONS), conversions=_partitions(event_log, CONVERSIONS))
        if not log.impressions:
            raise FileNotFoundError(
                f"an event log must hold impressions/date=YYYY-MM-DD/*.parquet (got none under {event_log}); "
                "run `headwater ingest` first"
            )
        return log

    def events(self, table: str, columns: Mapping[str, str], *, start: datetime | None, end: datetime) -> str:
        """Query for the events of `table` with start <= event_timestamp < end; `start` None is the beginning.

        Args:
            columns: SQL type of every column to read, `event_timestamp` among them.
        """
        partitions = self.impressions if table == IMPRESSIONS else self.conversions
        first = date.min if start is None else start.astimezone(UTC).date()
        files = [item.path for item in partitions if first <= item.day <= last_date_before(end)]
        if not files:
            absent = ", ".join(f"CAST(NULL AS {kind}) AS {quote(name)}" for name, kind in columns.items())
            return f"SELECT {absent} WHERE false"
        values = ", ".join(f"CAST({quote(name)} AS {kind}) AS {quote(name)}" for name, kind in columns.items())
        clip = f"event_timestamp < {moment(end)}"
        if start is not None:
            clip += f" AND event_timestamp >= {moment(start)}"
        return f"SELECT {values} FROM {parquet_relation(*files)} WHERE {clip}"

    def fingerprint(self, cutoff: datetime) -> str:
        """Hash over the identity of every file that may hold an event before `cutoff`."""
        last, today = last_date_before(cutoff), cutoff.astimezone(UTC).date()
        files = (item for item in (*self.impressions, *self.conversions) if item.day <= last)
        known = [item.identity for item in files if item.appended is None or item.appended <= today]
        return hashlib.sha256("\n".join(known).encode()).hexdigest()


def _partitions(event_log: Path, table: str) -> tuple[PartitionFile, ...]:
    return tuple(_partition_file(event_log, path) for path in sorted(event_log.glob(f"{table}/date=*/[!.]*.parquet")))


def _partition_file(event_log: Path, path: Path) -> PartitionFile:
    status = path.stat()
    return PartitionFile(
        day=date.fromisoformat(path.parent.name.removeprefix("date=")),
        path=path,
        appended=date.fromisoformat(path.stem.removeprefix(APPENDED)) if path.stem.startswith(APPENDED) else None,
        identity=f"{path.relative_to(event_log).as_posix()} {status.st_size} {status.st_mtime_ns}",
    )
