"""Embedding versions: created, moved towards candidate, updated, retired."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select, update

from feature_repo.catalogue.consumers import consumers_of, refuse_in_use
from feature_repo.catalogue.errors import CatalogueError, UnknownSubjectError
from feature_repo.catalogue.history import Author, last_move, record, wrong_state
from feature_repo.catalogue.records import VersionRecord, VersionState, plain, version_subject
from feature_repo.catalogue.tables import versions

MOVES: Final = {
    VersionState.TRAINING: VersionState.BACKFILLING,
    VersionState.BACKFILLING: VersionState.CANDIDATE,
}
"""Moves that a step makes by itself; promotions, retirements and prunes make the others."""
SERVED_STATES: Final = (VersionState.CANDIDATE, VersionState.LIVE, VersionState.SUPERSEDED)
"""States in which releases may name a version."""
_MAY_RETIRE: Final = (
    VersionState.TRAINING,
    VersionState.BACKFILLING,
    VersionState.CANDIDATE,
    VersionState.SUPERSEDED,
)
_MADE_FROM: Final = ("model", "version", "dim", "ttl_hours", "recipe", "seed", "parents", "alignment")
"""Fields that tell a repeated creation from another version of the same name."""


def read_version(connection: Connection, key: str) -> VersionRecord:
    """One version.

    Raises:
        UnknownSubjectError: There is none of that key.
    """
    row = connection.execute(select(versions).where(versions.c.key == key)).one_or_none()
    if row is None:
        known = connection.execute(select(versions.c.key).order_by(versions.c.key)).scalars().all()
        raise UnknownSubjectError("version", key, known)
    return _record(row)


def read_versions(
    connection: Connection, model: str | None = None, states: Iterable[VersionState] | None = None
) -> list[VersionRecord]:
    """Versions by model and number."""
    query = select(versions).order_by(versions.c.model, versions.c.version)
    if model is not None:
        query = query.where(versions.c.model == model)
    if states is not None:
        query = query.where(versions.c.state.in_([state.value for state in states]))
    return [_record(row) for row in connection.execute(query)]


def next_number(connection: Connection, model: str) -> int:
    """Number that no version of the model has had."""
    query = select(func.coalesce(func.max(versions.c.version), 0)).where(versions.c.model == model)
    highest: int = connection.execute(query).scalar_one()
    return highest + 1


def create_version(connection: Connection, version: VersionRecord, author: Author) -> VersionRecord:
    """Add a version in state `training`; adding it again as it was is no change.

    Raises:
        WrongStateError: There is a version of that key, made otherwise.
        UnknownSubjectError: A parent is unknown.
    """
    if version.state != VersionState.TRAINING:
        raise CatalogueError(f"version {version.key} must begin as training (got {version.state})")
    for parent in version.parents:
        read_version(connection, parent)
    stored = connection.execute(select(versions).where(versions.c.key == version.key)).one_or_none()
    if stored is None:
        connection.execute(insert(versions).values(**_row(version)))
        record(connection, version_subject(version.key), (None, version.state), author, _made_from(version))
        return read_version(connection, version.key)
    known = _record(stored)
    if _made_from(known) != _made_from(version):
        changed = [name for name in _MADE_FROM if _made_from(known)[name] != _made_from(version)[name]]
        raise wrong_state(
            version_subject(version.key),
            f"not exist yet, or be made with the same {', '.join(changed)}",
            known.state,
            last_move(connection, version_subject(version.key)),
        )
    return known


def move_version(
    connection: Connection,
    key: str,
    change: tuple[VersionState, VersionState],
    author: Author,
    details: Mapping[str, Any] | None = None,
) -> VersionRecord:
    """Move a version from an expected state to the next one; the same author's repetition is no change.

    Raises:
        WrongStateError: It is in another state, or no step makes that move.
        CatalogueError: A candidate must have a space id.
    """
    expected, after = change
    version, subject = read_version(connection, key), version_subject(key)
    last = last_move(connection, subject)
    if version.state == after and author.made(last):
        return version
    if version.state != expected:
        raise wrong_state(subject, f"be {expected} to become {after}", version.state, last)
    if MOVES.get(expected) != after:
        raise wrong_state(subject, _only_moves(), f"a move from {expected} to {after}", None)
    if after == VersionState.CANDIDATE and version.space_id is None:
        raise CatalogueError(
            f"{subject} must have a space id to become candidate (got none); write its reference files"
        )
    set_version_state(connection, version, after, author, details)
    return read_version(connection, key)


def update_version(
    connection: Connection, key: str, changes: Mapping[str, Any], author: Author, artifacts_under: str = ""
) -> VersionRecord:
    """Change fields that a version's steps fill in; values that it already has are no change.

    Args:
        artifacts_under: Beginning of the paths whose digests are replaced; the others stay.

    Raises:
        WrongStateError: Its space id is set and it may already be read, or it is pruned.
        CatalogueError: `served_through` is no newer version of the model that keeps a map to this one.
    """
    version, subject = read_version(connection, key), version_subject(key)
    if "artifacts" in changes:
        kept = {path: digest for path, digest in version.artifacts.items() if not path.startswith(artifacts_under)}
        changes = {**changes, "artifacts": {**kept, **changes["artifacts"]}}
    changed = {name: value for name, value in changes.items() if getattr(version, name) != value}
    if not changed:
        return version
    if version.state == VersionState.PRUNED:
        raise wrong_state(subject, "not be pruned to be changed", version.state, last_move(connection, subject))
    if "space_id" in changed and version.state not in MOVES:
        raise wrong_state(
            subject,
            f"keep its space id {version.space_id} once it is candidate (asked for {changed['space_id']}; "
            "another space is another version)",
            version.state,
            last_move(connection, subject),
        )
    if changed.get("served_through") is not None:
        _check_served_through(connection, version, changed["served_through"])
    row = _row(replace(version, **changed))
    connection.execute(update(versions).where(versions.c.key == key).values({name: row[name] for name in changed}))
    told = {name: len(value) if isinstance(value, Mapping) else value for name, value in changed.items()}
    record(connection, subject, (version.state, version.state), author, told)
    return read_version(connection, key)


def retire_version(
    connection: Connection, key: str, author: Author, details: Mapping[str, Any] | None = None
) -> VersionRecord:
    """Move a version that nothing reads to `retired`.

    Raises:
        InUseError: Something reads it.
        WrongStateError: It is retired or pruned already, by someone else.
    """
    version, subject = read_version(connection, key), version_subject(key)
    last = last_move(connection, subject)
    if version.state == VersionState.RETIRED and author.made(last):
        return version
    refuse_in_use(subject, "retired", consumers_of(connection, key))
    if version.state not in _MAY_RETIRE:
        raise wrong_state(subject, f"be one of {', '.join(_MAY_RETIRE)} to be retired", version.state, last)
    set_version_state(connection, version, VersionState.RETIRED, author, details)
    return read_version(connection, key)


def set_version_state(
    connection: Connection,
    version: VersionRecord,
    state: VersionState,
    author: Author,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a state and the transition to it."""
    connection.execute(update(versions).where(versions.c.key == version.key).values(state=state.value))
    record(connection, version_subject(version.key), (version.state, state), author, details)


def _check_served_through(connection: Connection, version: VersionRecord, newer_key: str) -> None:
    newer = read_version(connection, newer_key)
    fits = newer.model == version.model and newer.version > version.version and version.key in newer.parents
    if not fits or newer.state not in SERVED_STATES:
        raise CatalogueError(
            f"version {version.key} must be served through a newer version of {version.model} that names it as parent "
            f"and is {' or '.join(SERVED_STATES)} (got {newer.key}, parents {newer.parents}, {newer.state})"
        )


def _only_moves() -> str:
    moves = ", ".join(f"{before} → {after}" for before, after in MOVES.items())
    return f"be moved by a step along {moves}; promote, rollback, retire and prune make the other moves"


def _made_from(version: VersionRecord) -> dict[str, Any]:
    return {name: _row(version)[name] for name in _MADE_FROM}


def _row(version: VersionRecord) -> dict[str, Any]:
    fields = {name: getattr(version, name) for name in VersionRecord.__dataclass_fields__}
    return {**fields, **{name: plain(fields[name]) for name in ("recipe", "artifacts", "parents", "state")}}


def _record(row: Row[Any]) -> VersionRecord:
    fields = dict(row._mapping)
    return VersionRecord(**{**fields, "state": VersionState(fields["state"]), "parents": tuple(fields["parents"])})
