"""What the catalogue holds: embedding versions, their days, releases, pointers, consumers and transitions."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Final, Literal

Alignment = Literal["none", "procrustes", "svd_procrustes", "backward_compatible"]
DayState = Literal["generated", "checked", "failed", "visible"]
ConsumerKind = Literal["release", "service", "version", "pointer"]

ALIGNMENTS: Final = ("none", "procrustes", "svd_procrustes", "backward_compatible")
DAY_STATES: Final = ("generated", "checked", "failed", "visible")
POINTERS: Final = "pointers"
"""Subject of the transitions of the live release, the shadow and the split."""
LONGEST_SALT: Final = 64
"""Bytes of a split's salt: as many as the hash takes for its key."""
CATALOGUE: Final = "catalogue"
"""Subject of the transition that a reset leaves."""

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
_SPACE_ID = re.compile(r"^[0-9a-f]{12}$")


class VersionState(StrEnum):
    """Where an embedding version stands, in the order of its life."""

    TRAINING = "training"
    """Its models walk through the window."""
    BACKFILLING = "backfilling"
    """Its days are published."""
    CANDIDATE = "candidate"
    """Releases may be made with it."""
    LIVE = "live"
    """The live release reads it."""
    SUPERSEDED = "superseded"
    """A release before the live one read it; it is still refreshed while something reads it."""
    RETIRED = "retired"
    """Nothing reads it, no release may be made with it, and its data may be deleted."""
    PRUNED = "pruned"
    """Its data is deleted; the record stays."""


class ReleaseState(StrEnum):
    """Where a release stands, in the order of its life."""

    CANDIDATE = "candidate"
    LIVE = "live"
    SUPERSEDED = "superseded"
    """It was live; a rollback may make it so again."""
    RETIRED = "retired"
    PRUNED = "pruned"


def version_subject(key: str) -> str:
    """Subject of a version's transitions: `version ctr_v2`."""
    return f"version {key}"


def release_subject(release: str) -> str:
    """Subject of a release's transitions: `release r-0123456789ab`."""
    return f"release {release}"


def day_subject(key: str, cutoff: datetime) -> str:
    """Subject of a day's transitions: `day ctr_v2 2024-03-01T00:00:00+00:00`."""
    return f"day {key} {cutoff.astimezone(UTC).isoformat()}"


def now() -> datetime:
    """This moment, UTC-aware, in microseconds."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionRecord:
    """One embedding version and everything that made it."""

    key: str
    """`<model>_v<version>`, such as `ctr_v2`."""
    model: str
    """Upstream model, `ctr` or `cvr`."""
    version: int
    """Number of the version, 1 or more; never given twice."""
    dim: int
    """Width of the vectors."""
    ttl_hours: int = 72
    """A vector older than this is outside max age."""
    state: VersionState = VersionState.TRAINING
    space_id: str | None = None
    """First 12 hex digits of the sha256 of its reference files; None until they are written."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Configuration it is trained with; JSON values."""
    commit: str = ""
    """Commit of the code that trains it."""
    seed: int = 0
    data_from: datetime | None = None
    """Begin of the window it is trained on."""
    data_until: datetime | None = None
    """End of that window; a refresh moves it."""
    parents: tuple[str, ...] = ()
    """Keys of the versions that its training started from or keeps a map to."""
    alignment: Alignment = "none"
    """What keeps its days in one space, or in a space with its parent's."""
    served_through: str | None = None
    """Key of the newer version whose vectors, mapped back, now feed this one; None while it is trained itself."""
    artifacts: Mapping[str, str] = field(default_factory=dict)
    """sha256 by path relative to the run."""
    created: datetime = field(default_factory=now)

    def __post_init__(self) -> None:
        if self.key != f"{self.model}_v{self.version}" or self.version < 1:
            raise ValueError(
                f"key must be <model>_v<version> with a version of 1 or more "
                f"(got key {self.key!r}, model {self.model!r}, version {self.version})"
            )
        if self.dim < 1 or self.ttl_hours < 1:
            raise ValueError(f"dim and ttl_hours must be at least 1 (got {self.dim} and {self.ttl_hours})")
        if self.alignment not in ALIGNMENTS:
            raise ValueError(f"alignment must be one of {', '.join(ALIGNMENTS)} (got {self.alignment!r})")
        if self.space_id is not None:
            check_space_id(self.space_id)
        for name in ("data_from", "data_until", "created"):
            check_aware(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class DayRecord:
    """One data cut-off of a version: what was generated, what the gates measured, whether it is visible."""

    key: str
    """Key of the version."""
    cutoff: datetime
    """Data cut-off."""
    state: DayState
    """`generated` (vectors lie aside), `checked` (every gate passed), `failed` (a gate did not), `visible` (in the
    offline and the online store)."""
    gates: Mapping[str, float] = field(default_factory=dict)
    """Figures of the gates by name."""
    failed: tuple[str, ...] = ()
    """Names of the figures that missed their bounds; only and always in state `failed`."""
    snapshot_sha256: Mapping[str, str] = field(default_factory=dict)
    """sha256 of the day's files: of the snapshots by entity, and of what they were made from by its name."""
    seconds: float = 0.0
    """Time that the day took."""
    peak_mb: float = 0.0
    """Most memory that it took, MB."""
    entities: Mapping[str, int] = field(default_factory=dict)
    """Number of vectors by entity."""
    finished: datetime = field(default_factory=now)

    def __post_init__(self) -> None:
        check_aware("cutoff", self.cutoff)
        check_aware("finished", self.finished)
        if self.state not in DAY_STATES:
            raise ValueError(f"state of a day must be one of {', '.join(DAY_STATES)} (got {self.state!r})")
        if bool(self.failed) != (self.state == "failed"):
            raise ValueError(
                f"failed gates must be named in state 'failed' and in no other (got state {self.state!r}, "
                f"failed {self.failed!r})"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseRecord:
    """One release: an immutable folder and the embedding versions that everything in it was trained on."""

    id: str
    """`r-` and 12 hex digits of its contents."""
    folder: str
    """Its folder, relative to the run, with `/`."""
    manifest_sha256: str
    """sha256 of its manifest file."""
    versions: Mapping[str, str]
    """Space id by key of each embedding version that it reads."""
    services: Mapping[str, str] = field(default_factory=dict)
    """Feature service by use: `retrieval`, `ranking`."""
    state: ReleaseState = ReleaseState.CANDIDATE
    parent: str | None = None
    """Release whose models it keeps, such as the live one for the release of a refreshed day."""
    made_by: str = "run"
    """`run`, `refresh` or an operator."""
    data_cutoff: datetime | None = None
    """Data cut-off of its index."""
    created: datetime = field(default_factory=now)

    def __post_init__(self) -> None:
        if not _NAME.match(self.id):
            raise ValueError(f"id of a release must match {_NAME.pattern} (got {self.id!r})")
        parts = PurePosixPath(self.folder).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in self.folder:
            raise ValueError(f"folder must lie inside the run and be relative to it (got {self.folder!r})")
        for space_id in self.versions.values():
            check_space_id(space_id)
        for name in ("data_cutoff", "created"):
            check_aware(name, getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """An A/B split: a share of the users is answered by another release than the live one."""

    name: str
    """What answers and logs call it."""
    release: str
    """Release that answers the users of the treatment."""
    share: float
    """Share of the users in the treatment, above 0, at most 1."""
    holdout: float = 0.0
    """Share of the users that the live release answers and that no comparison counts."""
    salt: str = ""
    """Puts the users in an order; another salt draws other users."""

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"name of a split must match {_NAME.pattern} (got {self.name!r})")
        if not (0.0 < self.share <= 1.0 and 0.0 <= self.holdout < 1.0 and self.share + self.holdout <= 1.0):
            raise ValueError(
                "share must be above 0 and holdout at least 0, together at most 1 "
                f"(got {self.share} and {self.holdout})"
            )
        if not 1 <= len(self.salt.encode()) <= LONGEST_SALT:
            raise ValueError(f"salt must have 1 to {LONGEST_SALT} bytes (got {self.salt!r})")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pointers:
    """What servers follow."""

    live: str | None
    """Release that answers."""
    shadow: str | None
    """Release that scores live requests without answering them."""
    shadow_share: float
    """Share of the requests that the shadow scores, 0 to 1."""
    revision: int
    """Grows with every change."""
    split: Split | None = None
    """Users that another release answers; none where the live one answers all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transition:
    """One recorded change: who changed what, when and why."""

    id: int
    """Order of the changes."""
    subject: str
    """`version ctr_v2`, `release r-…`, `day ctr_v2 …`, `pointers` or `catalogue`."""
    before: str | None
    """State before; None for what did not exist."""
    after: str | None
    """State after; for `pointers` the live release."""
    at: datetime
    who: str
    why: str
    details: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Consumer:
    """Something that reads an embedding version or a release, and so keeps it from being retired."""

    kind: ConsumerKind
    """`release`; `service`, a feature service of a team's own; `version`, one served through this one; `pointer`,
    `live`, `shadow` or `split`."""
    name: str
    detail: str
    """State of a release or version, or what a service reads."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.detail})"


def record_fields(record: object) -> dict[str, Any]:
    """Fields of any record of this module as JSON values; a figure that is not finite becomes text."""
    return {each.name: plain(getattr(record, each.name)) for each in dataclasses.fields(record)}  # type: ignore[arg-type]


def check_aware(name: str, moment: datetime | None) -> None:
    """Refuse a naive timestamp.

    Raises:
        ValueError: It has no time zone.
    """
    if moment is not None and moment.tzinfo is None:
        raise ValueError(f"{name} must be UTC-aware (got {moment.isoformat()} without a time zone)")


def check_space_id(space_id: str) -> None:
    """Refuse what is no space id.

    Raises:
        ValueError: It is not 12 hex digits.
    """
    if not _SPACE_ID.match(space_id):
        raise ValueError(f"a space id must be 12 hex digits (got {space_id!r})")


def plain(value: Any) -> Any:
    """A value as JSON holds it: moments in ISO format, tuples as lists, figures that are not finite as text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return record_fields(value)
    return value
