"""The end of a life: data is deleted, the record stays; and starting over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from feature_repo.catalogue.consumers import consumers_of, consumers_of_release, refuse_in_use
from feature_repo.catalogue.embedding_versions import read_version, set_version_state
from feature_repo.catalogue.errors import UnknownSubjectError
from feature_repo.catalogue.history import Author, last_move, record, wrong_state
from feature_repo.catalogue.records import CATALOGUE, ReleaseState, VersionState
from feature_repo.catalogue.releases import read_release, set_release_state
from feature_repo.catalogue.tables import (
    days,
    pointers,
    promotions,
    release_versions,
    releases,
    services,
    split,
    versions,
)


def check_prunable(connection: Connection, subject: str) -> None:
    """Refuse to delete the data of what is not retired or is read after all.

    Raises:
        UnknownSubjectError: The subject is neither `version <key>` nor `release <id>`, or there is none.
        WrongStateError: It is not retired.
        InUseError: A service reads the version since it was retired.
    """
    kind, name = _parsed(subject)
    if kind == "version":
        state: str = read_version(connection, name).state
        consumers = consumers_of(connection, name)
    else:
        state = read_release(connection, name).state
        consumers = consumers_of_release(connection, name)
    if state != VersionState.RETIRED:
        raise wrong_state(subject, "be retired to be pruned", state, last_move(connection, subject))
    refuse_in_use(subject, "pruned", consumers)


def mark_pruned(connection: Connection, subject: str, author: Author, details: Mapping[str, Any] | None = None) -> None:
    """Record that the data of a retired version or release is gone; the same author's repetition is no change.

    Raises:
        UnknownSubjectError, WrongStateError, InUseError: As `check_prunable`.
    """
    kind, name = _parsed(subject)
    last = last_move(connection, subject)
    if author.made(last) and last is not None and last.after == VersionState.PRUNED:
        return
    check_prunable(connection, subject)
    if kind == "version":
        set_version_state(connection, read_version(connection, name), VersionState.PRUNED, author, details)
    else:
        set_release_state(connection, read_release(connection, name), ReleaseState.PRUNED, author, details)


def reset(connection: Connection, author: Author) -> None:
    """Forget versions, days, releases, pointers and services; transitions stay, and so does the count of revisions."""
    counts = {
        table.name.removeprefix("headwater_"): connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in (versions, days, releases)
    }
    if not any(counts.values()):
        return
    row = connection.execute(select(pointers)).one()
    cleared = {"live": None, "shadow": None, "shadow_share": 0.0, "promotion": None}
    connection.execute(update(pointers).values(revision=row.revision + 1, **cleared))
    for table in (split, promotions, release_versions, releases, days, versions, services):
        connection.execute(delete(table))
    record(connection, CATALOGUE, (row.live, None), author, {"operation": "reset", **counts})


def _parsed(subject: str) -> tuple[str, str]:
    kind, _, name = subject.partition(" ")
    if kind not in ("version", "release") or not name:
        raise UnknownSubjectError("subject", subject, ["version <key>", "release <id>"])
    return kind, name
