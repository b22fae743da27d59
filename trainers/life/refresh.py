"""The daily refresh: every cut-off after the newest day up to a date, in order, each for all versions that need it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from feature_repo.versions import Catalogue, VersionRecord, VersionState
from trainers.data.prepare import activity_builder
from trainers.life.day import WORKSPACES, DayOutcome, DayRefresh, workspace_of
from trainers.life.home import Home
from trainers.life.refreshed import REFRESHED_STATES, continuation_of
from trainers.progress import Progress
from trainers.run_lock import run_lock

DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedDay:
    """A day that a refresh would make."""

    cutoff: datetime
    versions: tuple[str, ...]
    """Keys of the versions that lack it."""
    begun: bool
    """Whether an earlier refresh was stopped in it."""


def refresh(
    home: Home,
    as_of: date,
    progress: Progress,
    *,
    as_new_version: bool = False,
    finished: Callable[[DayOutcome], None] | None = None,
) -> list[DayOutcome]:
    """Make every missing day up to a date visible, the oldest first; none where all are.

    Args:
        as_of: UTC date of the last cut-off.
        as_new_version: Let a day that a version's gates refuse go on as a new version.
        finished: Told each day that has become visible.

    Raises:
        RunLockedError: Another process works in the run.
        ValueError: The date lies before the newest day, its raw data is not complete, or activity is computed
            otherwise than when the run was made.
        GateFailedError: A version's day is refused; it and all later days stay invisible.
    """
    outcomes = []
    with run_lock(home.run):
        home.remove_partials()
        _sweep(home)
        # Planned anew for each day: one that the gates refuse may go on as another version.
        while days := planned(home, as_of):
            outcomes.append(_make(home, days[0], progress, as_new_version=as_new_version))
            if finished is not None:
                finished(outcomes[-1])
    return outcomes


def _check_settings(home: Home) -> None:
    """Refuse where activity would be computed otherwise than for the days that are there: those would be made anew."""
    if changed := activity_builder(home.context, home.log).changed_settings():
        raise ValueError(
            f"activity features must be computed as for the days that {home.run} has (their {', '.join(changed)} "
            "changed with the recipe or with Headwater); refresh with what the run was made with, or start over with "
            "`headwater run --out` and another folder"
        )


def _make(home: Home, day: PlannedDay, progress: Progress, *, as_new_version: bool) -> DayOutcome:
    if not day.begun:
        space = workspace_of(home, day.cutoff)
        space.clear()
        space.note("versions", day.versions)
    records = [home.catalogue.version(key) for key in day.versions]
    return DayRefresh(home, day.cutoff, records, progress, as_new_version=as_new_version).run()


def planned(home: Home, as_of: date) -> list[PlannedDay]:
    """Days that a refresh up to a date would make.

    Raises:
        ValueError: The date lies before the newest day, nothing is refreshed any more, or activity is computed
            otherwise than when the run was made.
    """
    _check_settings(home)
    records = refreshed_versions(home.catalogue)
    if not records:
        raise ValueError(
            f"{home.run} must hold a version that is candidate, live, or superseded and still read (got none); create "
            "one with `headwater version create`"
        )
    newest = {record.key: home.newest_day(record.key).cutoff for record in records}
    last = home.cutoff_of(datetime.combine(as_of, datetime.min.time()))
    if last < max(newest.values()):
        raise ValueError(
            f"--as-of must be {max(newest.values()):%Y-%m-%d}, the newest day there is, or later (got {as_of}); a day "
            "that is visible is never made again"
        )
    days: list[PlannedDay] = []
    while (oldest := min(newest.values())) < last:
        cutoff = oldest + DAY
        lacking = [key for key, day in newest.items() if day < cutoff]
        resumed = [] if days and days[-1].cutoff == cutoff else _taking_part(home, cutoff, lacking)
        days.append(PlannedDay(cutoff=cutoff, versions=tuple(resumed or lacking), begun=bool(resumed)))
        newest |= dict.fromkeys(days[-1].versions, cutoff)
    return days


def _taking_part(home: Home, cutoff: datetime, lacking: list[str]) -> list[str]:
    """Versions with which a day was begun; none where it was not, or where none of them is refreshed any more."""
    space = workspace_of(home, cutoff)
    # Until its raw data is in the log nothing of a day depends on who takes part in it.
    return [key for key in space.noted("versions") if key in lacking] if space.find("append") is not None else []


def refreshed_versions(catalogue: Catalogue) -> list[VersionRecord]:
    """Versions that get every new day: candidates, live ones, and superseded ones that something still reads."""
    everything = catalogue.versions()
    found = [
        record
        for record in everything
        if record.state in REFRESHED_STATES and continuation_of(record, everything) is None
    ]
    return [record for record in found if record.state != VersionState.SUPERSEDED or catalogue.consumers(record.key)]


def _sweep(home: Home) -> None:
    """Remove workspaces of days that are visible, which a kill at the last moment left, and what it left of them."""
    for folder in home.context.path(WORKSPACES).glob(".date=*.gone"):
        shutil.rmtree(folder, ignore_errors=True)
    days = [home.newest_day(record.key).cutoff for record in refreshed_versions(home.catalogue)]
    for folder in home.context.path(WORKSPACES).glob("date=*"):
        if days and folder.name.removeprefix("date=") <= f"{min(days):%Y-%m-%d}":
            workspace_of(home, _cutoff_of(home, folder.name)).clear()


def _cutoff_of(home: Home, name: str) -> datetime:
    day = date.fromisoformat(name.removeprefix("date="))
    return home.cutoff_of(datetime.combine(day, datetime.min.time()))
