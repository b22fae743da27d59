"""Which versions get new days, and which went on as another one."""

from __future__ import annotations

from collections.abc import Sequence

from feature_repo.versions import VersionRecord, VersionState

REFRESHED_STATES = (VersionState.CANDIDATE, VersionState.LIVE, VersionState.SUPERSEDED)
"""States in which a version may get new days."""


def is_continuation(record: VersionRecord) -> bool:
    """Whether a version began as a refused day of another, to which it keeps no map."""
    return bool(record.parents) and record.alignment != "backward_compatible"


def continuation_of(record: VersionRecord, versions: Sequence[VersionRecord]) -> VersionRecord | None:
    """The version that a version goes on as since its gates refused a day: complete, and not given up since."""
    found = (each for each in versions if is_continuation(each) and record.key in each.parents)
    return next((each for each in found if each.state in REFRESHED_STATES), None)
