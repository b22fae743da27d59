"""The catalogue as plain dictionaries: what every operation must do, and what it must refuse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from feature_repo.versions import (
    ANY,
    CatalogueError,
    DayRecord,
    InUseError,
    Pointers,
    ReleaseDisagreesError,
    ReleaseRecord,
    UnknownSubjectError,
    VersionRecord,
    VersionState,
    WrongStateError,
    day_subject,
    release_subject,
    version_subject,
)

READY = ("candidate", "live", "superseded")
NEXT_STATE = {"training": "backfilling", "backfilling": "candidate"}
NEXT_DAY = {
    None: ("generated",),
    "generated": ("generated", "checked", "failed"),
    "checked": ("checked", "generated", "visible"),
    "failed": ("failed", "generated"),
    "visible": ("visible",),
}


@dataclass
class ModelVersion:
    """What the model keeps of a version."""

    record: VersionRecord
    state: str = "training"
    space_id: str | None = None
    served_through: str | None = None


@dataclass
class ModelRelease:
    """What the model keeps of a release."""

    record: ReleaseRecord
    state: str = "candidate"


@dataclass
class Model:
    """Operations by the names and arguments of `Catalogue`; each raises the error that the catalogue must raise."""

    versions: dict[str, ModelVersion] = field(default_factory=dict)
    days: dict[tuple[str, datetime], DayRecord] = field(default_factory=dict)
    releases: dict[str, ModelRelease] = field(default_factory=dict)
    promoted: list[str] = field(default_factory=list)
    """Promotions not undone, oldest first; the last one is live."""
    shadowed: tuple[str | None, float] = (None, 0.0)
    revision: int = 0
    services: dict[str, set[str]] = field(default_factory=dict)
    log: list[tuple[str, str | None, str | None, str, str]] = field(default_factory=list)
    makers: dict[str, tuple[str | None, str, str]] = field(default_factory=dict)
    """State, who and why of the last move of each subject."""
    last_pointing: tuple[str, str, str] | None = None

    @property
    def live(self) -> str | None:
        return self.promoted[-1] if self.promoted else None

    def pointers(self) -> Pointers:
        share = self.shadowed[1]
        return Pointers(live=self.live, shadow=self.shadowed[0], shadow_share=share, revision=self.revision)

    def without_times(self) -> tuple[Any, ...]:
        """Everything that a reader sees, as `Seen.without_times` gives it."""
        versions = {key: (each.state, each.space_id, each.served_through) for key, each in self.versions.items()}
        days = {place: each.state for place, each in self.days.items()}
        releases = {name: (each.state, each.record.versions) for name, each in self.releases.items()}
        read = {*versions, *(key for keys in self.services.values() for key in keys)}
        readers = {key: found for key in read if (found := self.consumers(key))}
        return versions, days, releases, self.pointers(), readers, self.log

    def create_version(self, record: VersionRecord, *, who: str, why: str) -> None:
        for parent in record.parents:
            self._known(self.versions, parent)
        stored = self.versions.get(record.key)
        if stored is None:
            self.versions[record.key] = ModelVersion(record)
            self._log(version_subject(record.key), None, "training", who, why)
        elif (stored.record.seed, stored.record.parents) != (record.seed, record.parents):
            raise WrongStateError("model")

    def move_version(self, key: str, to: VersionState, *, expected: VersionState, who: str, why: str) -> None:
        version = self._known(self.versions, key)
        if self._done(version_subject(key), version.state, to, who, why):
            return
        if version.state != expected or NEXT_STATE.get(expected) != to:
            raise WrongStateError("model")
        if to == "candidate" and version.space_id is None:
            raise CatalogueError("model")
        self._set_version(key, to, who, why)

    def update_version(
        self, key: str, *, who: str, why: str, space_id: str | None = None, served_through: str | None = None
    ) -> None:
        version = self._known(self.versions, key)
        space = version.space_id if space_id is None else space_id
        through = version.served_through if served_through is None else served_through or None
        if (space, through) == (version.space_id, version.served_through):
            return
        if version.state == "pruned" or (space != version.space_id and version.state not in NEXT_STATE):
            raise WrongStateError("model")
        if through not in (None, version.served_through):
            newer = self._known(self.versions, through)
            named = key in newer.record.parents and newer.record.model == version.record.model
            if not named or newer.state not in READY or newer.record.version <= version.record.version:
                raise CatalogueError("model")
        version.space_id, version.served_through = space, through
        self.log.append((version_subject(key), version.state, version.state, who, why))

    def put_day(self, record: DayRecord, *, who: str, why: str) -> None:
        if self._known(self.versions, record.key).state in ("retired", "pruned"):
            raise WrongStateError("model")
        stored = self.days.get((record.key, record.cutoff))
        before = None if stored is None else stored.state
        other = before == "visible" and stored is not None and stored.snapshot_sha256 != record.snapshot_sha256
        if record.state not in NEXT_DAY[before] or other:
            raise WrongStateError("model")
        self.days[record.key, record.cutoff] = record
        if before != record.state:
            self._log(day_subject(record.key, record.cutoff), before, record.state, who, why)

    def create_release(self, record: ReleaseRecord, *, who: str, why: str) -> None:
        stored = self.releases.get(record.id)
        if stored is not None:
            if stored.record.versions != record.versions or stored.state in ("retired", "pruned"):
                raise WrongStateError("model")
            return
        self._check_parts(record.versions)
        if record.parent is not None:
            self._known(self.releases, record.parent)
        self.releases[record.id] = ModelRelease(record)
        self._log(release_subject(record.id), None, "candidate", who, why)

    def promote(self, id: str, *, who: str, why: str, expected_live: Any = ANY) -> None:
        release = self._known(self.releases, id)
        if id == self.live and self._done(release_subject(id), release.state, "live", who, why):
            return
        self._check_may_go_live(release, expected_live)
        before = self.live
        self.promoted.append(id)
        self._switch(before, who, why)
        self.last_pointing = ("promote", who, why)

    def rollback(self, *, who: str, why: str, to: str | None = None, expected_live: Any = ANY) -> None:
        if self.last_pointing == ("rollback", who, why) and to in (None, self.live):
            return
        self._check_expected(expected_live)
        chain = self.promoted[:-1]
        while chain and to not in (None, chain[-1]):
            chain.pop()
        if not chain:
            raise WrongStateError("model") if to is None else CatalogueError("model")
        self._check_may_go_live(self.releases[chain[-1]], ANY)
        before, self.promoted = self.live, chain
        self._switch(before, who, why)
        self.last_pointing = ("rollback", who, why)

    def shadow(self, id: str | None, share: float, *, who: str, why: str) -> None:
        if (id, share) == self.shadowed:
            return
        if id is not None:
            self._check_may_go_live(self._known(self.releases, id), ANY)
        self.shadowed = (id, share)
        self._point(self.live, who, why)
        self.last_pointing = ("shadow", who, why)

    def retire_release(self, id: str, *, who: str, why: str) -> None:
        release = self._known(self.releases, id)
        if self._done(release_subject(id), release.state, "retired", who, why):
            return
        if id in (self.live, self.shadowed[0]):
            raise InUseError("model")
        if release.state not in ("candidate", "superseded"):
            raise WrongStateError("model")
        self._set_release(id, "retired", who, why)

    def retire_version(self, key: str, *, who: str, why: str) -> None:
        version = self._known(self.versions, key)
        if self._done(version_subject(key), version.state, "retired", who, why):
            return
        if self.consumers(key):
            raise InUseError("model")
        if version.state in ("retired", "pruned"):
            raise WrongStateError("model")
        self._set_version(key, "retired", who, why)

    def mark_pruned(self, subject: str, *, who: str, why: str) -> None:
        kind, _, name = subject.partition(" ")
        made = self.makers.get(subject)
        if made == ("pruned", who, why):
            return
        found = self._known(self.versions if kind == "version" else self.releases, name)
        if found.state != "retired":
            raise WrongStateError("model")
        if kind == "version" and self.consumers(name):
            raise InUseError("model")
        (self._set_version if kind == "version" else self._set_release)(name, "pruned", who, why)

    def record_consumers(self, services: Mapping[str, Iterable[str]], generated: Iterable[str]) -> None:
        self.services = {name: set(keys) for name, keys in services.items() if name not in generated and keys}

    def reset(self, *, who: str, why: str) -> None:
        if self.versions:
            log = [*self.log, ("catalogue", self.live, None, who, why)]
            self.__init__(log=log, revision=self.revision + 1)  # type: ignore[misc]

    def consumers(self, key: str) -> set[tuple[str, str]]:
        """Kind and name of everything that reads a version."""
        used = ("release", [name for name, each in self.releases.items() if self._uses(each, key)])
        services = ("service", [name for name, keys in self.services.items() if key in keys])
        kept = [name for name, each in self.versions.items() if each.state not in ("retired", "pruned")]
        through = ("version", [name for name in kept if self.versions[name].served_through == key])
        return {(kind, name) for kind, names in (used, services, through) for name in names}

    @staticmethod
    def _uses(release: ModelRelease, key: str) -> bool:
        return release.state in READY and key in release.record.versions

    @staticmethod
    def _known(table: Mapping[str, Any], name: str | None) -> Any:
        if name not in table:
            raise UnknownSubjectError("model", str(name), list(table))
        return table[name]

    def _done(self, subject: str, state: str, to: str, who: str, why: str) -> bool:
        return state == to and self.makers.get(subject) == (to, who, why)

    def _check_parts(self, spaces: Mapping[str, str]) -> None:
        known = [self.versions[key] for key in spaces if key in self.versions]
        fits = len(known) == len(spaces) > 0 and len({each.record.model for each in known}) == len(spaces)
        if not fits or any(each.state not in READY or each.space_id != spaces[each.record.key] for each in known):
            raise ReleaseDisagreesError("model")

    def _check_expected(self, expected_live: Any) -> None:
        if expected_live is not ANY and expected_live != self.live:
            raise WrongStateError("model")

    def _check_may_go_live(self, release: ModelRelease, expected_live: Any) -> None:
        self._check_expected(expected_live)
        if release.state not in ("candidate", "superseded"):
            raise WrongStateError("model")

    def _switch(self, before: str | None, who: str, why: str) -> None:
        """All that follows from the last promotion that is not undone."""
        live = self.promoted[-1]
        if before is not None:
            self._set_release(before, "superseded", who, why)
        self._set_release(live, "live", who, why)
        for key in sorted(self.versions):
            named, state = key in self.releases[live].record.versions, self.versions[key].state
            if named != (state == "live"):
                self._set_version(key, "live" if named else "superseded", who, why)
        if self.shadowed[0] == live:
            self.shadowed = (None, 0.0)
        self._point(before, who, why)

    def _point(self, before: str | None, who: str, why: str) -> None:
        self.revision += 1
        self.log.append(("pointers", before, self.live, who, why))

    def _set_version(self, key: str, state: str, who: str, why: str) -> None:
        before, self.versions[key].state = self.versions[key].state, str(state)
        self._log(version_subject(key), before, str(state), who, why)

    def _set_release(self, id: str, state: str, who: str, why: str) -> None:
        before, self.releases[id].state = self.releases[id].state, state
        self._log(release_subject(id), before, state, who, why)

    def _log(self, subject: str, before: str | None, after: str, who: str, why: str) -> None:
        self.log.append((subject, before, after, who, why))
        self.makers[subject] = (after, who, why)
