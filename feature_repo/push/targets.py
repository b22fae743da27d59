"""Which embedding versions a push goes to, which of their days it continues, and at which moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from feature_repo.contract import EmbeddingVersion
from feature_repo.push.errors import PushError
from feature_repo.versions import Catalogue, VersionRecord, VersionState

PUSHABLE = (VersionState.CANDIDATE, VersionState.LIVE, VersionState.SUPERSEDED)
"""States in which a version's views take pushed rows."""
AFTER_REPLAY = timedelta(seconds=1)
"""Time from a replayed log's newest vectors to the moment of its pushes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A version, and the day that a push into it continues."""

    record: VersionRecord
    cutoff: datetime
    """Data cut-off of that day."""
    usable_from: datetime
    """From when its vectors may be used."""
    is_newest: bool
    """Whether no later day is visible."""

    @property
    def version(self) -> EmbeddingVersion:
        """The version as Feast sees it."""
        record = self.record
        return EmbeddingVersion(model=record.model, version=record.version, dim=record.dim, ttl_hours=record.ttl_hours)

    @property
    def ttl(self) -> timedelta:
        """Age from which its vectors are outside max age."""
        return timedelta(hours=self.record.ttl_hours)


def chosen_versions(catalogue: Catalogue, keys: Sequence[str]) -> list[VersionRecord]:
    """Versions by key; without keys those that are candidate, live, or superseded and still read.

    Raises:
        UnknownSubjectError: There is no such version.
        PushError: One takes no rows, or none does.
    """
    if keys:
        chosen = [catalogue.version(key) for key in dict.fromkeys(keys)]
        for record in chosen:
            _check_state(record)
        return chosen
    found = catalogue.versions(states=PUSHABLE)
    chosen = [each for each in found if each.state != VersionState.SUPERSEDED or catalogue.consumers(each.key)]
    if not chosen:
        raise PushError(
            "there must be a version that is candidate, live, or superseded and still read (got none); "
            "finish a training first"
        )
    return chosen


def _check_state(record: VersionRecord) -> None:
    if record.state not in PUSHABLE:
        raise PushError(
            f"version {record.key} must be {', '.join(PUSHABLE[:-1])} or {PUSHABLE[-1]} to take pushed rows "
            f"(got {record.state}); push to another version"
        )


def is_replay(record: VersionRecord) -> bool:
    """Whether all data was older than the TTL when the version was made, as in public data sets."""
    made_from = record.data_until
    return made_from is not None and record.created - made_from > timedelta(hours=record.ttl_hours)


def moment_of_push(
    catalogue: Catalogue, records: Sequence[VersionRecord], publish_delay: timedelta, now: datetime
) -> datetime:
    """From when pushed rows may be used: now; of a log that ended long ago, just after its newest vectors."""
    if not all(map(is_replay, records)):
        return now
    days = [day.cutoff for record in records if (day := catalogue.newest_day(record.key)) is not None]
    return max(days) + publish_delay + AFTER_REPLAY if days else now


def target_at(catalogue: Catalogue, record: VersionRecord, publish_delay: timedelta, moment: datetime) -> Target:
    """The version's newest visible day whose vectors could be used before a moment.

    Raises:
        PushError: There is none, or it is older than the TTL.
    """
    # Of days that are older than that no vector may be used.
    since = moment - publish_delay - timedelta(hours=record.ttl_hours) - AFTER_REPLAY
    visible = _visible(catalogue, record, since) or _visible(catalogue, record, None)
    usable = [cutoff for cutoff in visible if cutoff + publish_delay < moment]
    if not usable:
        first = f"{visible[0] + publish_delay:%Y-%m-%d %H:%M}" if visible else "none"
        raise PushError(
            f"version {record.key} must have vectors before the moment of the push, {moment:%Y-%m-%d %H:%M:%S} "
            f"(got its first from {first}); push at a later moment"
        )
    target = Target(
        record=record,
        cutoff=usable[-1],
        usable_from=usable[-1] + publish_delay,
        is_newest=usable[-1] == visible[-1],
    )
    if moment - target.usable_from > target.ttl:
        raise PushError(
            f"towers of version {record.key} must not be older than its TTL of {target.ttl} at the moment of the push, "
            f"{moment:%Y-%m-%d %H:%M:%S} (got vectors from {target.usable_from:%Y-%m-%d %H:%M}); refresh it first"
        )
    return target


def _visible(catalogue: Catalogue, record: VersionRecord, since: datetime | None) -> list[datetime]:
    """Cut-offs of the version's visible days, the oldest first."""
    return sorted(day.cutoff for day in catalogue.days(record.key, since) if day.state == "visible")
