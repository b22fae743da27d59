"""The live release, the shadow and the split: promoted, rolled back, shadowed, split."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection, Row, delete, insert, select, update

from feature_repo.catalogue.embedding_versions import read_versions, set_version_state
from feature_repo.catalogue.errors import CatalogueError
from feature_repo.catalogue.history import Author, last_change, last_move, record, wrong_state
from feature_repo.catalogue.records import (
    POINTERS,
    Pointers,
    ReleaseRecord,
    ReleaseState,
    Split,
    VersionState,
    record_fields,
    release_subject,
)
from feature_repo.catalogue.releases import check_parts, read_release, set_release_state
from feature_repo.catalogue.tables import pointers, promotions
from feature_repo.catalogue.tables import split as splits


class AnyRelease(Enum):
    """What `expected_live` is where any release, or none, may be live."""

    ANY = "any"


ANY: Final = AnyRelease.ANY
ExpectedLive: TypeAlias = str | Literal[AnyRelease.ANY] | None

_MAY_GO_LIVE: Final = (ReleaseState.CANDIDATE, ReleaseState.SUPERSEDED)


def read_pointers(connection: Connection) -> Pointers:
    """What servers follow."""
    return _pointers(connection, _row(connection))


def promote(connection: Connection, release_id: str, author: Author, expected_live: ExpectedLive = ANY) -> Pointers:
    """Make a release live, and its versions with it; the same author's repetition is no change.

    Raises:
        WrongStateError: Another release is live than expected, or this one is live already or retired.
        ReleaseDisagreesError: One of its versions is no longer what it was made with.
    """
    row, release = _row(connection), read_release(connection, release_id)
    last = last_move(connection, release_subject(release_id))
    if row.live == release_id and author.made(last):
        return _pointers(connection, row)
    _check_live(connection, row, expected_live)
    _check_may_go_live(connection, release)
    added = insert(promotions).values(release=release_id, before=row.promotion).returning(promotions.c.id)
    _switch(connection, row, release, connection.execute(added).scalar_one(), ("promote", author))
    return read_pointers(connection)


def rollback(
    connection: Connection, author: Author, to: str | None = None, expected_live: ExpectedLive = ANY
) -> Pointers:
    """Undo promotions until the release before, or `to`, is live again; the same author's repetition is no change.

    Raises:
        WrongStateError: No release was live before, or that one is retired; or another is live than expected.
        ReleaseDisagreesError: One of its versions is no longer what it was made with.
    """
    row = _row(connection)
    last = last_change(connection, POINTERS)
    repeated = last is not None and author.made(last) and last.details.get("operation") == "rollback"
    if repeated and to in (None, row.live):
        return _pointers(connection, row)
    _check_live(connection, row, expected_live)
    promotion = _promotion_before(connection, row, to)
    release = read_release(connection, promotion.release)
    _check_may_go_live(connection, release)
    _switch(connection, row, release, promotion.id, ("rollback", author))
    return read_pointers(connection)


def check_may_go_live(connection: Connection, release_id: str) -> None:
    """Refuse a release that must not answer requests.

    Raises:
        UnknownSubjectError: There is none of that id.
        WrongStateError: It is retired or pruned; the text says who made it so, when and why.
        ReleaseDisagreesError: One of its versions is no longer what it was made with.
    """
    release = read_release(connection, release_id)
    if _row(connection).live != release_id:
        _check_may_go_live(connection, release)


def rollback_target(connection: Connection, to: str | None = None) -> str:
    """Release that `rollback` would make live.

    Raises:
        WrongStateError: No release was live before.
        CatalogueError: `to` was not live before the live one.
    """
    release: str = _promotion_before(connection, _row(connection), to).release
    return release


def shadow(connection: Connection, release_id: str | None, share: float, author: Author) -> Pointers:
    """Let a release score a share of the live requests without answering them; None ends it.

    Raises:
        WrongStateError: It is live, retired or pruned.
        ValueError: The share is not above 0 and at most 1, or not 0 without a release.
    """
    if not (0.0 < share <= 1.0 if release_id is not None else share == 0.0):
        raise ValueError(
            f"share must be above 0 and at most 1, and 0 to end the shadow (got {share} for {release_id or 'none'})"
        )
    row = _row(connection)
    if (row.shadow, row.shadow_share) == (release_id, share):
        return _pointers(connection, row)
    if release_id is not None:
        _check_may_go_live(connection, read_release(connection, release_id))
    details = {"operation": "shadow", "shadow": release_id, "shadow_share": share}
    _point(connection, row, {"shadow": release_id, "shadow_share": share}, author, details)
    return read_pointers(connection)


def split(connection: Connection, wanted: Split | None, author: Author) -> Pointers:
    """Let another release answer a share of the users; None ends it.

    Raises:
        WrongStateError: The release is live, retired or pruned.
        ReleaseDisagreesError: One of its versions is no longer what it was made with.
    """
    row, running = _row(connection), _split(connection)
    if wanted == running:
        return _pointers(connection, row)
    if wanted is not None:
        _check_may_go_live(connection, read_release(connection, wanted.release))
    connection.execute(delete(splits))
    if wanted is not None:
        connection.execute(insert(splits).values(id=1, **record_fields(wanted)))
    details = {"operation": "split", "split": None if wanted is None else record_fields(wanted)}
    _point(connection, row, {}, author, details)
    return read_pointers(connection)


def _switch(
    connection: Connection, row: Row[Any], release: ReleaseRecord, promotion: int, made: tuple[str, Author]
) -> None:
    """Everything that changes when another release goes live, in the transaction of the caller."""
    operation, author = made
    details = {"operation": operation, "live_before": row.live}
    if row.live is not None:
        set_release_state(connection, read_release(connection, row.live), ReleaseState.SUPERSEDED, author, details)
    set_release_state(connection, release, ReleaseState.LIVE, author, details)
    for version in read_versions(connection):
        if version.key in release.versions and version.state != VersionState.LIVE:
            set_version_state(connection, version, VersionState.LIVE, author, {"release": release.id, **details})
        elif version.key not in release.versions and version.state == VersionState.LIVE:
            set_version_state(connection, version, VersionState.SUPERSEDED, author, {"release": release.id, **details})
    changes: dict[str, Any] = {"live": release.id, "promotion": promotion}
    if row.shadow == release.id:
        changes |= {"shadow": None, "shadow_share": 0.0}
    connection.execute(delete(splits).where(splits.c.release == release.id))
    _point(connection, row, changes, author, details)


def _point(
    connection: Connection, row: Row[Any], changes: Mapping[str, Any], author: Author, details: Mapping[str, Any]
) -> None:
    revision = row.revision + 1
    connection.execute(update(pointers).values(revision=revision, **changes))
    after = changes.get("live", row.live)
    record(connection, POINTERS, (row.live, after), author, {**details, "revision": revision})


def _check_live(connection: Connection, row: Row[Any], expected: ExpectedLive) -> None:
    if expected is not ANY and row.live != expected:
        last = last_move(connection, POINTERS)
        raise wrong_state("the live release", f"be {expected or 'none'} as you saw it", row.live, last)


def _check_may_go_live(connection: Connection, release: ReleaseRecord) -> None:
    if release.state not in _MAY_GO_LIVE:
        subject = release_subject(release.id)
        raise wrong_state(subject, f"be {' or '.join(_MAY_GO_LIVE)}", release.state, last_move(connection, subject))
    check_parts(connection, release)


def _promotion_before(connection: Connection, row: Row[Any], to: str | None) -> Row[Any]:
    """The promotion that a rollback goes back to, along the chain from the live one."""
    found, passed = _promotion(connection, row.promotion), []
    while found is not None and found.before is not None:
        found = _promotion(connection, found.before)
        if found is not None and to in (None, found.release):
            return found
        passed.append(found.release if found is not None else "")
    if to is not None:
        raise CatalogueError(
            f"rollback must go to a release that was live before {row.live} "
            f"(got {to!r}; before it: {', '.join(passed) or 'none'}); promote it instead"
        )
    raise wrong_state("a release", "have been live before the live one", row.live, last_move(connection, POINTERS))


def _promotion(connection: Connection, promotion: int | None) -> Row[Any] | None:
    return connection.execute(select(promotions).where(promotions.c.id == promotion)).one_or_none()


def _row(connection: Connection) -> Row[Any]:
    return connection.execute(select(pointers)).one()


def _pointers(connection: Connection, row: Row[Any]) -> Pointers:
    return Pointers(
        live=row.live,
        shadow=row.shadow,
        shadow_share=row.shadow_share,
        revision=row.revision,
        split=_split(connection),
    )


def _split(connection: Connection) -> Split | None:
    row = connection.execute(select(splits)).one_or_none()
    if row is None:
        return None
    return Split(name=row.name, release=row.release, share=row.share, holdout=row.holdout, salt=row.salt)
