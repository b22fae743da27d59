"""Where to split a log in time, from the days that have impressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

import duckdb

from trainers.data.connection import quote
from trainers.data.dataset import SpecError
from trainers.data.discovery.found_tables import ConversionTable, Roles
from trainers.data.discovery.profiles import moment_sql

_LEAST_DAYS = 6
_TEST_SHARE, _MOST_TEST_DAYS = 0.15, 7
_FEATURES_SHARE = 0.25
_THIN_DAY = 0.25
_ENOUGH_DAYS = 2
"""The window ends earlier for labels to be final only where so many times the least number of days are left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundWindow:
    """The split and its evidence."""

    features_from: datetime
    train_from: datetime
    test_from: datetime
    until: datetime
    why: str


def find_window(
    connection: duckdb.DuckDBPyConnection, roles: Roles, judged: Sequence[ConversionTable], wait_days: int
) -> FoundWindow:
    """Split the days: some for features alone, most for training, the last for the test.

    The test days end early enough for their conversions to have come, where the log is long enough for that.

    Args:
        judged: Tables with conversions of the kind that rankers are judged on.
        wait_days: Longest attribution window; training needs as many days more.

    Raises:
        SpecError: The impressions lie on too few days.
    """
    moment = moment_sql(roles.impressions.columns[roles.time.column])
    rows = connection.execute(
        f"SELECT {moment}::DATE AS day, count(*) FROM {roles.impressions.source} WHERE {moment} IS NOT NULL "
        "GROUP BY day ORDER BY day"
    ).fetchall()
    days = _whole_days(dict(rows))
    num_days = (days[-1] - days[0]).days + 1 if days else 0
    if num_days < _LEAST_DAYS + wait_days:
        raise SpecError(
            f"the impressions, {roles.impressions.pattern}, must span at least {_LEAST_DAYS + wait_days} days, some "
            f"each for features, training and test (got {num_days} by {quote(roles.time.column)}); give more days"
        )
    days, why = _final(connection, judged, days, wait_days)
    num_days = (days[-1] - days[0]).days + 1
    num_test = max(1, min(_MOST_TEST_DAYS, round(_TEST_SHARE * num_days)))
    num_features = max(1, round(_FEATURES_SHARE * (num_days - num_test - wait_days)))
    return FoundWindow(
        features_from=_start(days[0] + timedelta(days=1)),
        train_from=_start(days[0] + timedelta(days=1 + num_features)),
        test_from=_start(days[-1] - timedelta(days=num_test - 1)),
        until=_start(days[-1] + timedelta(days=1)),
        why=f"impressions lie on {len(rows)} days, {rows[0][0]} to {rows[-1][0]}{why}",
    )


def _final(
    connection: duckdb.DuckDBPyConnection, judged: Sequence[ConversionTable], days: list[date], wait_days: int
) -> tuple[list[date], str]:
    """The days whose conversions have all come by the last event, if enough are left, and what to say about it."""
    if not wait_days:
        return days, ""
    last = max(days[-1], *(_last_day(connection, each) or days[-1] for each in judged))
    kept = [day for day in days if day <= last - timedelta(days=wait_days)]
    if len(kept) == len(days) or not kept or (kept[-1] - days[0]).days + 1 < _ENOUGH_DAYS * (_LEAST_DAYS + wait_days):
        return days, ""
    return kept, f"; conversions come until {last}, up to {wait_days} days late"


def _last_day(connection: duckdb.DuckDBPyConnection, conversions: ConversionTable) -> date | None:
    table = conversions.table
    moment = moment_sql(table.columns[conversions.time.column])
    row = connection.execute(f"SELECT max({moment})::DATE FROM {table.source}").fetchone()
    return row[0] if row else None


def _whole_days(counts: dict[date, int]) -> list[date]:
    """Days without a first or last one that was cut short."""
    days = sorted(counts)
    typical = sorted(counts.values())[len(counts) // 2] if counts else 0
    while len(days) > 1 and counts[days[-1]] < _THIN_DAY * typical:
        days.pop()
    return days


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
