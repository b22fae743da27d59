"""The version that another one learned to be read as, and what becomes of the younger one once that one is given up."""

from __future__ import annotations

from feature_repo.versions import VersionRecord, VersionState
from trainers.life.home import Home
from trainers.life.refreshed import REFRESHED_STATES, is_continuation


def compatible_with(home: Home, record: VersionRecord) -> VersionRecord | None:
    """The version that a version keeps a map to; none where it keeps none."""
    if record.alignment != "backward_compatible":
        return None
    return home.catalogue.version(record.parents[0])


def learned_from(home: Home, record: VersionRecord) -> VersionRecord | None:
    """The version whose newest vectors are still targets of the map; none where nobody makes or reads such vectors.

    One that is fed through its successor has no vectors of its own any more, and one that was given up has no reader.
    """
    older = compatible_with(home, record)
    ended = older is None or older.served_through is not None or older.state not in REFRESHED_STATES
    return None if ended else older


def no_second_walk(home: Home, record: VersionRecord) -> str | None:
    """Why a version's training cannot be gone through again from the beginning, to follow "it"; none where it can."""
    if is_continuation(record):
        return f"goes on from {record.parents[0]}"
    older = compatible_with(home, record)
    if older is not None and older.state == VersionState.PRUNED:
        return f"learned from the pruned {older.key}"
    return None
