"""Days of a version from before its first one, made by its walk taken again.

The walk is the same to the last bit: the same rows, of which the log keeps every earlier day as it was, with the same
random choices. So a day is embedded by the model that the version was on that day.
"""

from __future__ import annotations

import json
import shutil
from datetime import date, datetime, timedelta
from typing import Any

from feature_repo.contract import write_atomically
from feature_repo.layout import open_store
from feature_repo.versions import VersionRecord
from trainers.data.leak_gate import check_days_for_leaks
from trainers.life.home import Home, embedding_version
from trainers.life.new_version import plan_of
from trainers.life.older_version import no_second_walk
from trainers.life.operators import operator
from trainers.life.recording import record_days
from trainers.life.refreshed import REFRESHED_STATES
from trainers.life.walked_days import embed_days, walk_days
from trainers.progress import Progress
from trainers.run_lock import run_lock
from trainers.upstream.publish import publish

DAY = timedelta(days=1)
FOLDER = "backfill"
PERIOD_FILE = "period.json"


def backfill(home: Home, key: str, first: date, last: date, progress: Progress) -> dict[str, Any]:
    """Make the days of a version that are missing in a period; offline alone, as they are not the newest.

    The moving average begins at the first of them, and later days stay as they were published.

    Returns:
        Figures: days made, and how many were embedded at a time.

    Raises:
        RunLockedError: Another process works in the run.
        LeakError: A day knows what came after it.
        ValueError: The period lies outside the days that can be made, or the version cannot walk again.
    """
    with run_lock(home.run):
        home.remove_partials()
        record = home.catalogue.version(key)
        out = home.folder(key) / FOLDER
        cutoffs = days_to_make(home, record, first, last)
        if not cutoffs:
            return {"days": 0}
        walk_days(home, record, cutoffs, out, progress)
        figures = embed_days(home, record, cutoffs, out, progress)
        publish(plan_of(home, record, cutoffs), progress)
        store, version = open_store(home.repo_dir), embedding_version(record)
        figures |= check_days_for_leaks(home.log, store, home.repo_dir, [version], cutoffs, progress)
        record_days(home, record, cutoffs, who=operator(), why=f"backfill of {first} to {last}")
        shutil.rmtree(out, ignore_errors=True)
    return figures


def days_to_make(home: Home, record: VersionRecord, first: date, last: date) -> list[datetime]:
    """The planned days; what a backfill of another period left is removed.

    That one's walk may have gone past days that are wanted now.
    """
    days, begun = planned_days(home, record, first, last)
    if not begun:
        out = home.folder(record.key) / FOLDER
        shutil.rmtree(out, ignore_errors=True)
        if days:
            cutoffs = [each.isoformat() for each in days]
            write_atomically(out / PERIOD_FILE, json.dumps({"period": _period(first, last), "cutoffs": cutoffs}) + "\n")
    return days


def planned_days(home: Home, record: VersionRecord, first: date, last: date) -> tuple[list[datetime], bool]:
    """Days that are missing, or those that an interrupted backfill of the same period began with, and which of the two.

    The moving average of a backfill begins at its first day, so what is left of one is no period of its own.

    Raises:
        ValueError: Some cannot be made; the text says which can.
    """
    missing, file = missing_days(home, record, first, last), home.folder(record.key) / FOLDER / PERIOD_FILE
    begun = json.loads(file.read_text()) if file.is_file() else {}
    if begun.get("period") == _period(first, last):
        return [datetime.fromisoformat(each) for each in begun["cutoffs"]], True
    return missing, False


def _period(first: date, last: date) -> list[str]:
    return [first.isoformat(), last.isoformat()]


def missing_days(home: Home, record: VersionRecord, first: date, last: date) -> list[datetime]:
    """Cut-offs of a period that a version has no visible day for.

    Raises:
        ValueError: Some cannot be made; the text says which can.
    """
    why = f"is {record.state}" if record.state not in REFRESHED_STATES else no_second_walk(home, record)
    if why is not None:
        raise ValueError(
            f"--version must name a version that is {', '.join(REFRESHED_STATES)} and can be trained again from the "
            f"beginning (got {record.key}: it {why}); backfill another, or create one with `headwater version create`"
        )
    days = home.catalogue.days(record.key)
    visible = [day.cutoff for day in days if day.state == "visible"]
    # At the first cut-off of all nothing has been learned from yet.
    earliest, latest = home.log.spec.window.features_from + DAY, visible[0] - DAY
    asked = [home.cutoff_of(datetime.combine(each, datetime.min.time())) for each in (first, last)]
    wanted = [asked[0] + number * DAY for number in range((asked[1] - asked[0]).days + 1)]
    missing = [cutoff for cutoff in wanted if cutoff not in visible]
    if not wanted or any(not earliest <= cutoff <= latest for cutoff in missing):
        raise ValueError(
            f"--from and --to must name days from {earliest:%Y-%m-%d}, where training begins, to {latest:%Y-%m-%d}, "
            f"before the first day of {record.key} (got {first} to {last}); give a period in them"
        )
    return missing
