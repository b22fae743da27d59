"""A new day of raw data on its way into the event log: staged, held against what came before, appended."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from trainers.data.append import append_day, forget_day, set_late_rows_aside
from trainers.data.columns import IMPRESSIONS
from trainers.data.connection import connect, literal, moment
from trainers.data.event_log import EventLog
from trainers.data.prepare import dataset
from trainers.data.raw_days import (
    EVENT_TABLES,
    TIME,
    DaySums,
    changed_days,
    day_name,
    may_have_changed,
    read_sums,
    staged_sums,
    write_sums,
)
from trainers.life.home import Home
from trainers.progress import Progress, share_of

DAY = timedelta(days=1)
STAGING = ".staging"
QUIET_DAYS = 7
"""Days before, from whose longest pause between impressions follows whether a day's data is complete."""
LEAST_PAUSE = timedelta(hours=1)


class IncompleteDayError(ValueError):
    """The raw data does not reach the end of the day."""


def bring_day(home: Home, start: datetime, end: datetime, progress: Progress) -> Mapping[str, Any]:
    """Append the raw data of one day to the event log.

    Returns:
        Figures: rows by table, bad ones, late ones.

    Raises:
        IncompleteDayError: The raw data ends within the day or before it.
        ChangedDaysError: Rows of earlier days are gone or have changed.
        ValueError: The dataset is declared otherwise than for the run.
    """
    with _staged(home, start, progress) as staging, progress.stage("check and append the day"):
        check_complete(home.log, staging, start, end)
        before, now = read_sums(home.log.path), _sums(staging, start)
        late = _late(home, staging, (before, now), start, end, progress)
        appended = append_day(home.log, staging, start, end, now=datetime.now(UTC))
        unreadable = sum(max(0, _count(now[table]) - _count(before.get(table, {}))) for table in EVENT_TABLES)
        known = {table: {day: sums for day, sums in now[table].items() if day <= day_name(end)} for table in now}
        write_sums(home.log.path, {table: {**before.get(table, {}), **known[table]} for table in now})
    figures = {**appended.new, "quarantined": appended.quarantined, "late": sum(late.values())}
    return figures | ({"without_readable_time": unreadable} if unreadable else {})


def forget(home: Home, end: datetime) -> None:
    """Take a day's events out of the log again."""
    forget_day(home.log, end)


def has_changed(home: Home, start: datetime, end: datetime, progress: Progress) -> bool:
    """Whether the raw data of a day that was appended is not what it was then."""
    with _staged(home, start, progress) as staging:
        before, now = read_sums(home.log.path), _sums(staging, start)
    day = day_name(end)
    return any(before.get(table, {}).get(day) != now[table].get(day) for table in EVENT_TABLES)


def check_complete(log: EventLog, staging: Path, start: datetime, end: datetime) -> None:
    """Refuse a day whose raw data has not all arrived.

    It has when there are impressions after its end, or when the last one lies no further before the end than twice the
    longest pause between two impressions of the week before, or an hour.

    Raises:
        IncompleteDayError: It has not; the text says up to which day the data is complete.
    """
    file = literal(staging / f"{IMPRESSIONS}.parquet")
    with tempfile.TemporaryDirectory() as temp, connect(temp=Path(temp)) as connection:
        row = connection.execute(f"SELECT max({TIME}) FROM {file} WHERE {TIME} >= {moment(start)}").fetchone()
    last: datetime | None = row[0] if row else None
    pause = max(LEAST_PAUSE, 2 * _longest_pause(log, start))
    if last is None or last < end - pause:
        seen = (
            f"its last one is of {last.astimezone(UTC):%Y-%m-%d %H:%M}"
            if last
            else f"it has none from {start:%Y-%m-%d %H:%M} on"
        )
        complete = start if last is None else start + (last + pause - start) // DAY * DAY
        raise IncompleteDayError(
            f"the raw data must hold the impressions of the whole day until {end:%Y-%m-%d %H:%M} UTC ({seen}); wait "
            f"for the rest, or give --as-of {complete:%Y-%m-%d} at most"
        )


def _longest_pause(log: EventLog, until: datetime) -> timedelta:
    """Longest time without an impression in the week before a moment."""
    shown = log.impressions_sql(until - QUIET_DAYS * DAY, until)
    found = log.query(
        "SELECT max(epoch_us(event_timestamp) - epoch_us(before)) AS pause FROM (SELECT event_timestamp, "
        f"lag(event_timestamp) OVER (ORDER BY event_timestamp) AS before FROM ({shown}))"
    )["pause"].to_pylist()
    return timedelta(microseconds=found[0] or 0)


@contextmanager
def _staged(home: Home, since: datetime, progress: Progress) -> Iterator[Path]:
    """Folder with the raw data from a moment on, for as long as it is looked at."""
    staging = home.context.path(STAGING)
    try:
        _stage(home, since, staging, progress)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _stage(home: Home, since: datetime, staging: Path, progress: Progress) -> None:
    spec, adapter, options = dataset(home.context.config)
    if spec != home.log.spec:
        raise ValueError(
            f"the declaration of {spec.name} must be the one that {home.run} was made with (got another); restore it, "
            "or start over with `headwater run --out` and another folder"
        )
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    with progress.stage("stage new raw data", 100) as stage:
        adapter.stage(staging, dataclasses.replace(options, since=since), share_of(stage))


def _sums(staging: Path, anchor: datetime) -> dict[str, DaySums]:
    with tempfile.TemporaryDirectory() as temp, connect(temp=Path(temp)) as connection:
        return {table: staged_sums(connection, staging, table, anchor) for table in EVENT_TABLES}


def _late(
    home: Home,
    staging: Path,
    sums: tuple[Mapping[str, DaySums], Mapping[str, DaySums]],
    start: datetime,
    end: datetime,
    progress: Progress,
) -> dict[str, int]:
    """Set late rows of earlier days aside; the slow way, gone only when sums say that something is different."""
    before, now = sums
    if not may_have_changed(staging):
        return {}
    days = sorted(day for table in EVENT_TABLES for day in changed_days(before.get(table, {}), now[table], start))
    if not days:
        return {}
    first = home.cutoff_of(datetime.combine(date.fromisoformat(days[0]), datetime.min.time())) - DAY
    _stage(home, first, staging, progress)
    return set_late_rows_aside(home.log, staging, first, start, end)


def _count(sums: DaySums) -> int:
    """Rows without a readable time."""
    return int(sums.get("", "0").split()[0])
