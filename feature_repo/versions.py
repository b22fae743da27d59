"""Catalogue of embedding versions and releases: what exists, who reads it, and every change with who, when and why.

Each change is one transaction that checks what it found, so that of two operators one wins and the other is told;
each may be repeated after a kill. The states and who moves them: docs/versions.md. Feast is never imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from feature_repo.catalogue import consumers as _consumers
from feature_repo.catalogue import days as _days
from feature_repo.catalogue import embedding_versions as _versions
from feature_repo.catalogue import pointers as _pointers
from feature_repo.catalogue import pruning as _pruning
from feature_repo.catalogue import releases as _releases
from feature_repo.catalogue import summaries as _summaries
from feature_repo.catalogue.database import Database
from feature_repo.catalogue.errors import (
    CatalogueError,
    CatalogueUnavailableError,
    InUseError,
    ReleaseDisagreesError,
    UnknownSubjectError,
    WrongStateError,
)
from feature_repo.catalogue.history import Author, newest_change, read_transitions
from feature_repo.catalogue.home import claim
from feature_repo.catalogue.location import URL_VARIABLE, is_inside, url_of_repo
from feature_repo.catalogue.pointers import ANY, ExpectedLive
from feature_repo.catalogue.records import (
    Alignment,
    Consumer,
    DayRecord,
    DayState,
    Pointers,
    ReleaseRecord,
    ReleaseState,
    Split,
    Transition,
    VersionRecord,
    VersionState,
    day_subject,
    record_fields,
    release_subject,
    version_subject,
)
from feature_repo.catalogue.summaries import Freshness, VersionSummary

__all__ = [
    "ANY",
    "URL_VARIABLE",
    "Alignment",
    "Catalogue",
    "CatalogueError",
    "CatalogueUnavailableError",
    "Consumer",
    "DayRecord",
    "DayState",
    "ExpectedLive",
    "Freshness",
    "InUseError",
    "Pointers",
    "ReleaseDisagreesError",
    "ReleaseRecord",
    "ReleaseState",
    "Split",
    "Transition",
    "UnknownSubjectError",
    "VersionRecord",
    "VersionState",
    "VersionSummary",
    "WrongStateError",
    "day_subject",
    "record_fields",
    "release_subject",
    "version_subject",
]


class Catalogue:
    """Versions, days, releases and pointers of one run, in the database of its feature registry.

    `who` is `user@host` of an operator or the name of a step, `why` a sentence. A change that is already done by the
    same who with the same why is a repeated step: it changes nothing and records nothing.

    Args:
        url: SQLAlchemy URL of a SQLite or PostgreSQL database; tables are created when absent.

    Raises:
        CatalogueError: The tables were made by another version of Headwater, or the URL is none.
        CatalogueUnavailableError: The database cannot be reached. Every method raises it too.
    """

    def __init__(self, url: str | URL) -> None:
        self._database = Database(url)

    @classmethod
    def of_repo(cls, repo_dir: Path) -> Catalogue:
        """Catalogue of a feature repo: in its registry's database, or where `HEADWATER_CATALOGUE_URL` says.

        Raises:
            CatalogueError: The registry holds no tables and the variable is not set, or the catalogue there is
                another repo's.
        """
        url = url_of_repo(repo_dir)
        catalogue = cls(url)
        if not is_inside(url, repo_dir):
            claim(catalogue._database, repo_dir / "data")
        return catalogue

    def __repr__(self) -> str:
        return f"Catalogue({str(self._database)!r})"

    def close(self) -> None:
        """Close idle connections to a server; a file has none. The catalogue may be used on."""
        self._database.close()

    def create_version(self, record: VersionRecord, *, who: str, why: str) -> VersionRecord:
        """Add a version in state `training`; adding it again, made from the same, returns it as it is now.

        Raises:
            WrongStateError: There is a version of that key, made otherwise.
            UnknownSubjectError: A parent is unknown.
        """
        with self._database.writing() as connection:
            return _versions.create_version(connection, record, Author(who=who, why=why))

    def version(self, key: str) -> VersionRecord:
        """One version.

        Raises:
            UnknownSubjectError: There is none of that key.
        """
        with self._database.reading() as connection:
            return _versions.read_version(connection, key)

    def versions(
        self, *, model: str | None = None, states: Iterable[VersionState] | None = None
    ) -> list[VersionRecord]:
        """Versions by model and number."""
        with self._database.reading() as connection:
            return _versions.read_versions(connection, model, states)

    def next_version(self, model: str) -> int:
        """Number for a new version of a model: one more than any before, pruned ones included."""
        with self._database.reading() as connection:
            return _versions.next_number(connection, model)

    def move_version(
        self,
        key: str,
        to: VersionState,
        *,
        expected: VersionState,
        who: str,
        why: str,
        details: Mapping[str, Any] | None = None,
    ) -> VersionRecord:
        """Move a version from training to backfilling, or from backfilling to candidate.

        Raises:
            WrongStateError: It is not in state `expected`; the error says who moved it, when and why.
            CatalogueError: A candidate must have a space id.
        """
        with self._database.writing() as connection:
            return _versions.move_version(connection, key, (expected, to), Author(who=who, why=why), details)

    def update_version(
        self,
        key: str,
        *,
        space_id: str | None = None,
        artifacts: Mapping[str, str] | None = None,
        artifacts_under: str = "",
        data_until: datetime | None = None,
        served_through: str | None = None,
        who: str = "headwater",
        why: str = "a step filled in what it made",
    ) -> VersionRecord:
        """Change what is given; None leaves a field as it is, `served_through=""` ends it.

        Args:
            artifacts_under: Beginning of the paths whose digests `artifacts` replaces; the others stay as they are.

        Raises:
            WrongStateError: Another space id than it has as a candidate or later; or it is pruned.
            CatalogueError: `served_through` is no newer version of the model that names this one as parent.
        """
        given = {"space_id": space_id, "artifacts": artifacts, "data_until": data_until}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if served_through is not None:
            changes["served_through"] = served_through or None
        with self._database.writing() as connection:
            return _versions.update_version(connection, key, changes, Author(who=who, why=why), artifacts_under)

    def put_day(self, record: DayRecord, *, who: str = "headwater", why: str = "a step made it") -> DayRecord:
        """Add a day as `generated`, or bring it on: to `checked` or `failed`, from `checked` to `visible`.

        Raises:
            WrongStateError: The day may not take that state; it is visible with other snapshots; or its version is
                retired or pruned.
        """
        with self._database.writing() as connection:
            return _days.put_day(connection, record, Author(who=who, why=why))

    def days(self, key: str, since: datetime | None = None) -> list[DayRecord]:
        """Days of a version from a cut-off on, oldest first."""
        with self._database.reading() as connection:
            return _days.read_days(connection, key, since)

    def newest_day(self, key: str, state: DayState | None = "visible") -> DayRecord | None:
        """Newest day of a version in a state, or in any for None."""
        with self._database.reading() as connection:
            return _days.newest_day(connection, key, state)

    def create_release(self, record: ReleaseRecord, *, who: str, why: str) -> ReleaseRecord:
        """Add a release in state `candidate`; adding it again as it was returns it as it is now.

        Raises:
            ReleaseDisagreesError: A version is unknown, not candidate, live or superseded, or in another space than the
                release says; or two are of one model.
            WrongStateError: There is a release of that id, made otherwise, retired or pruned.
        """
        with self._database.writing() as connection:
            return _releases.create_release(connection, record, Author(who=who, why=why))

    def release(self, id: str) -> ReleaseRecord:
        """One release.

        Raises:
            UnknownSubjectError: There is none of that id.
        """
        with self._database.reading() as connection:
            return _releases.read_release(connection, id)

    def releases(self, states: Iterable[ReleaseState] | None = None) -> list[ReleaseRecord]:
        """Releases, oldest first."""
        with self._database.reading() as connection:
            return _releases.read_releases(connection, states)

    def pointers(self) -> Pointers:
        """What servers follow; cheap enough to ask several times a second, and no writer holds it up."""
        with self._database.reading() as connection:
            return _pointers.read_pointers(connection)

    def newest_change(self) -> int:
        """Number of the newest transition: while it stays, versions, days, releases and pointers do; as cheap."""
        with self._database.reading() as connection:
            return newest_change(connection)

    def check_may_go_live(self, id: str) -> None:
        """Refuse a release that must not answer requests; the live one passes.

        Raises:
            WrongStateError: It is retired or pruned.
            ReleaseDisagreesError: One of its versions is no longer what it was made with.
        """
        with self._database.reading() as connection:
            _pointers.check_may_go_live(connection, id)

    def promote(self, id: str, *, who: str, why: str, expected_live: ExpectedLive = ANY) -> Pointers:
        """Make a release live: pointer, states of both releases and of all versions, in one transaction.

        Args:
            expected_live: Release that must be live now, None for none; what the operator saw before deciding.

        Raises:
            WrongStateError: Another is live; or the release is live already, retired or pruned.
            ReleaseDisagreesError: One of its versions is no longer what it was made with.
        """
        with self._database.writing() as connection:
            return _pointers.promote(connection, id, Author(who=who, why=why), expected_live)

    def rollback(self, *, who: str, why: str, to: str | None = None, expected_live: ExpectedLive = ANY) -> Pointers:
        """Undo the last promotion, or all since `to` was live. Rolling back twice goes two promotions back.

        A second rollback in a row by the same who with the same why counts as the first one repeated: give another why
        or name the release to go further.

        Raises:
            WrongStateError: There is none to go back to, it is retired, or another is live than expected.
            CatalogueError: `to` was not live before the live one.
        """
        with self._database.writing() as connection:
            return _pointers.rollback(connection, Author(who=who, why=why), to, expected_live)

    def rollback_target(self, to: str | None = None) -> str:
        """Release that `rollback` would make live, so that it can be looked at first.

        Raises:
            WrongStateError: There is none to go back to.
            CatalogueError: `to` was not live before the live one.
        """
        with self._database.reading() as connection:
            return _pointers.rollback_target(connection, to)

    def shadow(self, id: str | None, share: float = 0.0, *, who: str, why: str) -> Pointers:
        """Let a release score a share of the live requests without answering them; None ends it.

        Raises:
            WrongStateError: The release is live, retired or pruned.
        """
        with self._database.writing() as connection:
            return _pointers.shadow(connection, id, share, Author(who=who, why=why))

    def split(self, wanted: Split | None, *, who: str, why: str) -> Pointers:
        """Let another release answer a share of the users; None ends it, and so does promoting that release.

        Raises:
            WrongStateError: The release is live, retired or pruned.
            ReleaseDisagreesError: One of its versions is no longer what it was made with.
        """
        with self._database.writing() as connection:
            return _pointers.split(connection, wanted, Author(who=who, why=why))

    def retire_release(self, id: str, *, who: str, why: str, details: Mapping[str, Any] | None = None) -> ReleaseRecord:
        """Give a release up; its folder may then be pruned.

        Raises:
            InUseError: It is live, the shadow, or answers a split.
            WrongStateError: Someone retired or pruned it already.
        """
        with self._database.writing() as connection:
            return _releases.retire_release(connection, id, Author(who=who, why=why), details)

    def retire_version(
        self, key: str, *, who: str, why: str, details: Mapping[str, Any] | None = None
    ) -> VersionRecord:
        """Give a version up; its data may then be pruned.

        Raises:
            InUseError: With each consumer that still reads it.
            WrongStateError: Someone retired or pruned it already.
        """
        with self._database.writing() as connection:
            return _versions.retire_version(connection, key, Author(who=who, why=why), details)

    def check_prunable(self, subject: str) -> None:
        """Refuse a subject (`version ctr_v1`, `release r-…`) whose data must stay; ask before deleting it.

        Raises:
            WrongStateError: It is not retired.
            InUseError: A service has begun to read the version since.
        """
        with self._database.reading() as connection:
            _pruning.check_prunable(connection, subject)

    def mark_pruned(self, subject: str, *, who: str, why: str, details: Mapping[str, Any] | None = None) -> None:
        """Record that the data of a retired version or release is deleted.

        Raises:
            WrongStateError: It is not retired.
            InUseError: A service has begun to read the version since.
        """
        with self._database.writing() as connection:
            _pruning.mark_pruned(connection, subject, Author(who=who, why=why), details)

    def record_consumers(self, services: Mapping[str, Iterable[str]], generated: Iterable[str] = ()) -> None:
        """Replace what is known of who reads which version by what the feature registry holds now.

        Args:
            services: Keys of the embedding versions that each feature service reads.
            generated: Services that Headwater declares itself; a release that uses one is the consumer.
        """
        reads = _consumers.of_teams(services, generated)
        with self._database.reading() as connection:
            known = _consumers.recorded_services(connection)
        if known != reads:
            with self._database.writing() as connection:
                _consumers.record_consumers(connection, reads)

    def consumers(self, key: str) -> list[Consumer]:
        """Everything that reads a version.

        Raises:
            UnknownSubjectError: There is none of that key.
        """
        with self._database.reading() as connection:
            _versions.read_version(connection, key)
            return _consumers.consumers_of(connection, key)

    def summaries(self, as_of: datetime, publish_delay: timedelta = timedelta(0)) -> list[VersionSummary]:
        """Every version with state, age, freshness, coverage, drift and consumers.

        Args:
            as_of: Moment at which ages are taken, UTC-aware.
            publish_delay: Time from a cut-off to when its vectors may be used.
        """
        with self._database.reading() as connection:
            return _summaries.summaries(connection, as_of, publish_delay)

    def transitions(self, subject: str | None = None, limit: int | None = None) -> list[Transition]:
        """The newest `limit` changes of one subject or of all, oldest first."""
        with self._database.reading() as connection:
            return read_transitions(connection, subject, limit)

    def reset(self, *, who: str, why: str) -> None:
        """Forget versions, days, releases and pointers, as a run that starts over does; transitions stay."""
        with self._database.writing() as connection:
            _pruning.reset(connection, Author(who=who, why=why))
