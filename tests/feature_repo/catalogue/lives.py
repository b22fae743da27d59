"""Versions and releases that tests bring to where they need them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from feature_repo.versions import Catalogue, DayRecord, DayState, ReleaseRecord, VersionRecord, VersionState

ALICE = {"who": "alice@desk", "why": "her test"}
BOB = {"who": "bob@desk", "why": "his test"}
START = datetime(2024, 3, 1, tzinfo=UTC)


def cutoff(day: int) -> datetime:
    """Cut-off `day` days after the first one."""
    return START + timedelta(days=day)


def space(key: str) -> str:
    """Space id that tests give a version."""
    return key.encode().hex().rjust(12, "0")[-12:]


def version(key: str, **fields: Any) -> VersionRecord:
    """A version by its key."""
    model, _, number = key.rpartition("_v")
    return VersionRecord(**{"key": key, "model": model, "version": int(number), "dim": 8, **fields})


def day(key: str, number: int, state: DayState = "generated", **fields: Any) -> DayRecord:
    """A day of a version with one figure and a snapshot."""
    gates = {"coverage_user": 0.9, "mean_shift_since_reference_user": 0.1}
    given = {
        "gates": gates,
        "failed": ("coverage_user",) if state == "failed" else (),
        "snapshot_sha256": {"user": "a"},
    }
    return DayRecord(key=key, cutoff=cutoff(number), state=state, **{**given, **fields})


def release(name: str, *keys: str, **fields: Any) -> ReleaseRecord:
    """A release of versions in the spaces that tests give them."""
    versions = {key: space(key) for key in keys}
    given = {"folder": f"releases/{name}", "manifest_sha256": f"sha of {name}", "versions": versions}
    return ReleaseRecord(**{"id": name, **given, **fields})


def add_backfilling(catalogue: Catalogue, key: str, **fields: Any) -> None:
    """Bring a new version to `backfilling`."""
    catalogue.create_version(version(key, **fields), **ALICE)
    catalogue.move_version(key, VersionState.BACKFILLING, expected=VersionState.TRAINING, **ALICE)


def add_candidate(catalogue: Catalogue, key: str, **fields: Any) -> None:
    """Bring a new version to `candidate`."""
    add_backfilling(catalogue, key, **fields)
    catalogue.update_version(key, space_id=space(key))
    catalogue.move_version(key, VersionState.CANDIDATE, expected=VersionState.BACKFILLING, **ALICE)


def add_release(catalogue: Catalogue, name: str, *keys: str, **fields: Any) -> None:
    """Bring a new release to `candidate`, its versions too where there are none."""
    known = {each.key for each in catalogue.versions()}
    for key in keys:
        if key not in known:
            add_candidate(catalogue, key)
    catalogue.create_release(release(name, *keys, **fields), **ALICE)


def add_live(catalogue: Catalogue, name: str, *keys: str) -> None:
    """Bring a new release to `live`."""
    add_release(catalogue, name, *keys)
    catalogue.promote(name, **ALICE)


def make_visible(catalogue: Catalogue, key: str, number: int, **fields: Any) -> None:
    """Bring a new day to `visible`."""
    states: tuple[DayState, ...] = ("generated", "checked", "visible")
    for state in states:
        catalogue.put_day(day(key, number, state, **fields))


def states(catalogue: Catalogue) -> Mapping[str, str]:
    """State of every version and release by name."""
    found = {each.key: each.state.value for each in catalogue.versions()}
    return found | {each.id: each.state.value for each in catalogue.releases()}
