"""What `headwater status` shows of each embedding version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from sqlalchemy import Connection, func, select

from feature_repo.catalogue.consumers import consumers_by_version
from feature_repo.catalogue.days import newest_day
from feature_repo.catalogue.embedding_versions import read_versions
from feature_repo.catalogue.history import last_move
from feature_repo.catalogue.records import (
    Consumer,
    DayRecord,
    Transition,
    VersionRecord,
    check_aware,
    version_subject,
)
from feature_repo.catalogue.tables import days

Freshness = Literal["fresh", "late", "outside_max_age", "no_day"]

LATE_AT: Final = 0.5
"""Share of its TTL at which a version is late: with three days' TTL and a daily refresh, when one day was missed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionSummary:
    """One version as an operator looks at it."""

    version: VersionRecord
    newest: DayRecord | None
    """Newest visible day."""
    last_tried: DayRecord | None
    """Newest day in any state; it is newer than the visible one where a gate failed or a refresh was interrupted."""
    num_days: int
    """Visible days."""
    age_hours: float | None
    """Hours since its newest vectors may be used; None without a visible day."""
    freshness: Freshness
    coverage: dict[str, float]
    """Gate figures of the newest visible day on coverage."""
    drift: dict[str, float]
    """Gate figures of that day on drift since the reference."""
    consumers: tuple[Consumer, ...]
    last: Transition | None
    """Who brought it into its state, when and why."""

    @property
    def hours_left(self) -> float | None:
        """Hours until its vectors are outside max age; negative when they are."""
        return None if self.age_hours is None else self.version.ttl_hours - self.age_hours


def summaries(connection: Connection, as_of: datetime, publish_delay: timedelta) -> list[VersionSummary]:
    """Every version as it stands at a moment, by model and number."""
    check_aware("as_of", as_of)
    consumers, cutoff_now = consumers_by_version(connection), as_of - publish_delay
    return [
        _summary(connection, version, cutoff_now, consumers.get(version.key, []))
        for version in read_versions(connection)
    ]


def freshness(age_hours: float | None, ttl_hours: float) -> Freshness:
    """Fresh, late (half the TTL is gone) or outside max age."""
    if age_hours is None:
        return "no_day"
    if age_hours > ttl_hours:
        return "outside_max_age"
    return "late" if age_hours > LATE_AT * ttl_hours else "fresh"


def _summary(
    connection: Connection, version: VersionRecord, cutoff_now: datetime, consumers: list[Consumer]
) -> VersionSummary:
    newest = newest_day(connection, version.key)
    age_hours = None if newest is None else (cutoff_now - newest.cutoff) / timedelta(hours=1)
    gates = {} if newest is None else newest.gates
    visible = select(func.count()).where(days.c.key == version.key, days.c.state == "visible")
    return VersionSummary(
        version=version,
        newest=newest,
        last_tried=newest_day(connection, version.key, None),
        num_days=connection.execute(visible).scalar_one(),
        age_hours=age_hours,
        freshness=freshness(age_hours, version.ttl_hours),
        coverage={name: value for name, value in gates.items() if "coverage" in name},
        drift={name: value for name, value in gates.items() if "since_reference" in name},
        consumers=tuple(consumers),
        last=last_move(connection, version_subject(version.key)),
    )
