"""Days of an embedding version: generated aside, checked by the gates, visible."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select, update

from feature_repo.catalogue.embedding_versions import read_version
from feature_repo.catalogue.history import Author, last_move, record, wrong_state
from feature_repo.catalogue.records import (
    DayRecord,
    DayState,
    VersionState,
    check_aware,
    day_subject,
    version_subject,
)
from feature_repo.catalogue.tables import days

MOVES: Final[dict[DayState | None, tuple[DayState, ...]]] = {
    None: ("generated",),
    "generated": ("generated", "checked", "failed"),
    "checked": ("checked", "generated", "visible"),
    "failed": ("failed", "generated"),
    "visible": ("visible",),
}
"""States that may follow each; what is not yet visible may be generated again."""


def put_day(connection: Connection, day: DayRecord, author: Author) -> DayRecord:
    """Add a day or bring it on; a day in the same state takes the newer figures.

    Raises:
        UnknownSubjectError: No such version.
        WrongStateError: The version is retired or pruned; the day may not take that state; or a visible day would get
            other snapshots than those that may have been read.
    """
    _check_version(connection, day.key)
    here = (days.c.key == day.key) & (days.c.cutoff == day.cutoff)
    row = connection.execute(select(days).where(here)).one_or_none()
    stored = None if row is None else _record(row)
    before = None if stored is None else stored.state
    if day.state not in MOVES[before] or _replaces_snapshots(stored, day):
        subject = day_subject(day.key, day.cutoff)
        raise wrong_state(subject, _rule(before, day), before, last_move(connection, subject))
    if stored is None:
        connection.execute(insert(days).values(**_row(day)))
    else:
        connection.execute(update(days).where(here).values(**_row(day)))
    if before != day.state:
        details = {"gates": day.gates, "failed": day.failed}
        record(connection, day_subject(day.key, day.cutoff), (before, day.state), author, details)
    return _record(connection.execute(select(days).where(here)).one())


def read_days(connection: Connection, key: str, since: datetime | None = None) -> list[DayRecord]:
    """Days of a version from a cut-off on, oldest first."""
    read_version(connection, key)
    check_aware("since", since)
    query = select(days).where(days.c.key == key).order_by(days.c.cutoff)
    if since is not None:
        query = query.where(days.c.cutoff >= since)
    return [_record(row) for row in connection.execute(query)]


def newest_day(connection: Connection, key: str, state: DayState | None = "visible") -> DayRecord | None:
    """Newest day of a version in a state, or in any."""
    read_version(connection, key)
    query = select(days).where(days.c.key == key).order_by(days.c.cutoff.desc()).limit(1)
    if state is not None:
        query = query.where(days.c.state == state)
    row = connection.execute(query).one_or_none()
    return None if row is None else _record(row)


def _check_version(connection: Connection, key: str) -> None:
    version = read_version(connection, key)
    if version.state in (VersionState.RETIRED, VersionState.PRUNED):
        subject = version_subject(key)
        raise wrong_state(subject, "be refreshed no more", version.state, last_move(connection, subject))


def _replaces_snapshots(stored: DayRecord | None, day: DayRecord) -> bool:
    visible = stored is not None and stored.state == "visible"
    return visible and stored is not None and dict(stored.snapshot_sha256) != dict(day.snapshot_sha256)


def _rule(before: DayState | None, day: DayRecord) -> str:
    if before == "visible":
        return "stay visible with the snapshots that may have been read; other vectors are another version"
    return f"be one of {', '.join(MOVES[before])} next, not {day.state}"


def _row(day: DayRecord) -> dict[str, Any]:
    fields = {name: getattr(day, name) for name in DayRecord.__dataclass_fields__}
    mappings = {name: dict(fields[name]) for name in ("gates", "snapshot_sha256", "entities")}
    return {**fields, **mappings, "failed": list(day.failed)}


def _record(row: Row[Any]) -> DayRecord:
    return DayRecord(**{**row._mapping, "failed": tuple(row.failed)})
