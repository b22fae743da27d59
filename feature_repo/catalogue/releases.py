"""Releases: created from versions that the catalogue knows in just that space, and retired."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

from sqlalchemy import Connection, Select, insert, select, update

from feature_repo.catalogue.consumers import consumers_of_release, refuse_in_use
from feature_repo.catalogue.embedding_versions import SERVED_STATES, read_versions
from feature_repo.catalogue.errors import CatalogueError, ReleaseDisagreesError, UnknownSubjectError
from feature_repo.catalogue.history import Author, last_move, record, wrong_state
from feature_repo.catalogue.records import ReleaseRecord, ReleaseState, release_subject
from feature_repo.catalogue.tables import release_versions, releases

_MAY_RETIRE: Final = (ReleaseState.CANDIDATE, ReleaseState.SUPERSEDED)
_MADE_FROM: Final = ("folder", "manifest_sha256", "versions")
"""Fields that tell a repeated creation from another release of the same id."""


def read_release(connection: Connection, release: str) -> ReleaseRecord:
    """One release.

    Raises:
        UnknownSubjectError: There is none of that id.
    """
    found = _find(connection, release)
    if found is None:
        raise UnknownSubjectError("release", release, [each.id for each in read_releases(connection)])
    return found


def read_releases(connection: Connection, states: Iterable[ReleaseState] | None = None) -> list[ReleaseRecord]:
    """Releases, oldest first."""
    query = select(releases).order_by(releases.c.created, releases.c.id)
    if states is not None:
        query = query.where(releases.c.state.in_([state.value for state in states]))
    return _records(connection, query)


def create_release(connection: Connection, release: ReleaseRecord, author: Author) -> ReleaseRecord:
    """Add a release in state `candidate`; adding it again as it was is no change.

    Raises:
        ReleaseDisagreesError: It names a version that is unknown, not ready or in another space, or two of one model.
        UnknownSubjectError: Its parent is unknown.
        WrongStateError: There is a release of that id, made otherwise, retired or pruned.
    """
    if release.state != ReleaseState.CANDIDATE:
        raise CatalogueError(f"release {release.id} must begin as candidate (got {release.state})")
    stored = _find(connection, release.id)
    if stored is not None:
        return _repeated(connection, stored, release)
    check_parts(connection, release)
    if release.parent is not None:
        read_release(connection, release.parent)
    _check_folder(connection, release)
    connection.execute(insert(releases).values(**_row(release)))
    connection.execute(
        insert(release_versions),
        [{"release": release.id, "key": key, "space_id": space} for key, space in sorted(release.versions.items())],
    )
    details = {"versions": dict(release.versions), "folder": release.folder, "made_by": release.made_by}
    record(connection, release_subject(release.id), (None, release.state), author, details)
    return read_release(connection, release.id)


def check_parts(connection: Connection, release: ReleaseRecord) -> None:
    """Refuse a release whose embedding versions are not those of the catalogue.

    Raises:
        ReleaseDisagreesError: With every disagreement.
    """
    stored = {version.key: version for version in read_versions(connection)}
    problems = [] if release.versions else ["it names no embedding version"]
    for key, space_id in sorted(release.versions.items()):
        version = stored.get(key)
        if version is None:
            problems.append(f"version {key} is unknown")
        elif version.state not in SERVED_STATES:
            problems.append(f"version {key} is {version.state}, not {', '.join(SERVED_STATES)}")
        elif version.space_id != space_id:
            problems.append(f"version {key} is space {version.space_id}, not {space_id}")
    by_model = sorted((stored[key].model, key) for key in release.versions if key in stored)
    problems += [f"{a} and {b} are two spaces of one model" for (x, a), (y, b) in pairwise(by_model) if x == y]
    if problems:
        raise ReleaseDisagreesError(
            f"release {release.id} must name the versions that everything in it was trained on "
            f"(got: {'; '.join(problems)}); make it again from versions that are ready"
        )


def retire_release(
    connection: Connection, release_id: str, author: Author, details: Mapping[str, Any] | None = None
) -> ReleaseRecord:
    """Move a release that no pointer names to `retired`.

    Raises:
        InUseError: It is live, the shadow, or answers a split.
        WrongStateError: It is retired or pruned already, by someone else.
    """
    release, subject = read_release(connection, release_id), release_subject(release_id)
    last = last_move(connection, subject)
    if release.state == ReleaseState.RETIRED and author.made(last):
        return release
    refuse_in_use(subject, "retired", consumers_of_release(connection, release_id))
    if release.state not in _MAY_RETIRE:
        raise wrong_state(subject, f"be {' or '.join(_MAY_RETIRE)} to be retired", release.state, last)
    set_release_state(connection, release, ReleaseState.RETIRED, author, details)
    return read_release(connection, release_id)


def set_release_state(
    connection: Connection,
    release: ReleaseRecord,
    state: ReleaseState,
    author: Author,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a state and the transition to it."""
    connection.execute(update(releases).where(releases.c.id == release.id).values(state=state.value))
    record(connection, release_subject(release.id), (release.state, state), author, details)


def _repeated(connection: Connection, stored: ReleaseRecord, release: ReleaseRecord) -> ReleaseRecord:
    subject = release_subject(release.id)
    changed = [name for name in _MADE_FROM if getattr(stored, name) != getattr(release, name)]
    if changed or stored.state in (ReleaseState.RETIRED, ReleaseState.PRUNED):
        must = f"be made with the same {', '.join(changed)}" if changed else "be in use to be made again"
        raise wrong_state(subject, must, stored.state, last_move(connection, subject))
    return stored


def _check_folder(connection: Connection, release: ReleaseRecord) -> None:
    owner = connection.execute(select(releases.c.id).where(releases.c.folder == release.folder)).scalar_one_or_none()
    if owner is not None:
        raise CatalogueError(
            f"folder of release {release.id} must be its own (got {release.folder!r}, which is {owner}'s); "
            "write it to another folder"
        )


def _row(release: ReleaseRecord) -> dict[str, Any]:
    fields = {name: getattr(release, name) for name in ReleaseRecord.__dataclass_fields__ if name != "versions"}
    return {**fields, "services": dict(release.services), "state": release.state.value}


def _find(connection: Connection, release: str) -> ReleaseRecord | None:
    found = _records(connection, select(releases).where(releases.c.id == release))
    return found[0] if found else None


def _records(connection: Connection, query: Select[Any]) -> list[ReleaseRecord]:
    rows = connection.execute(query).all()
    spaces: dict[str, dict[str, str]] = {row.id: {} for row in rows}
    named = select(release_versions).where(release_versions.c.release.in_(list(spaces)))
    for row in connection.execute(named.order_by(release_versions.c.key)):
        spaces[row.release][row.key] = row.space_id
    return [
        ReleaseRecord(**{**row._mapping, "state": ReleaseState(row.state), "versions": spaces[row.id]}) for row in rows
    ]
