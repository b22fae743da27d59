"""A superseded version that is no longer trained: its vectors are those of a newer one, mapped back into its space."""

from __future__ import annotations

from feature_repo.versions import VersionRecord, VersionState
from trainers.life.day_check import maps_back
from trainers.life.home import Home
from trainers.life.operators import operator
from trainers.run_lock import run_lock


def serve_through(home: Home, key: str, newer: str) -> VersionRecord:
    """End a version's own training: from the next day on a newer version feeds it.

    Raises:
        RunLockedError: Another process works in the run.
        ValueError: The version is not superseded, or the newer one keeps no map to it.
    """
    with run_lock(home.run):
        check_servable_through(home, key, newer)
        why = f"its own training ends, {newer} feeds it"
        return home.catalogue.update_version(key, served_through=newer, who=operator(), why=why)


def check_servable_through(home: Home, key: str, newer: str) -> VersionRecord:
    """Pass when a newer version may feed a version; returns that one as it is.

    Raises:
        ValueError: The version is not superseded, or the newer one keeps no map to it.
    """
    record = home.catalogue.version(key)
    if record.state != VersionState.SUPERSEDED:
        raise ValueError(
            f"--version must name a superseded version (got {key}, which is {record.state}); promote a release "
            f"with {newer} first"
        )
    maps_back(home, home.catalogue.version(newer), key)
    return record
