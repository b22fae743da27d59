"""One day of all versions, from raw data to a live release, in sub-steps that are each done once.

Until the gates of every version have passed, everything of the day lies in a workspace and in files that nothing
reads; then snapshots are renamed into place, brought online, put into a release, and only then called visible.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from feature_repo.contract import ENTITIES, write_atomically
from feature_repo.layout import open_store
from feature_repo.versions import DayRecord, VersionRecord
from trainers.data.attributes import write_attributes
from trainers.data.columns import PINS, USERS
from trainers.data.event_log import EventLog
from trainers.data.leak_gate import check_days_for_leaks
from trainers.data.prepare import activity_builder, daily_views, manifest, materialize, static_views
from trainers.life.artifacts import version_artifacts
from trainers.life.day_check import (
    ALIGNMENT_FILE,
    Checked,
    alignment_file,
    check_day,
    day_record,
    in_order,
    snapshot_of,
)
from trainers.life.day_training import train_day
from trainers.life.diverted import divert, finish_diverted
from trainers.life.home import Home, embedding_version
from trainers.life.merged_pushes import merge_pushes
from trainers.life.raw_data import bring_day, forget, has_changed
from trainers.life.releases import release_of_the_day
from trainers.life.substeps import Substep, Workspace, move
from trainers.progress import Progress
from trainers.upstream.gates import GateFailedError
from trainers.upstream.walk import CHECKPOINT, PROGRESSIVE_FILE, daily_file

logger = logging.getLogger(__name__)

WHO = "refresh"
WORKSPACES, RECORDS = "refreshing", "refreshes"
DAY = timedelta(days=1)
SUBSTEPS = ("append", "features", "train", "check", "publish", "materialize", "release")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DayOutcome:
    """A day that is visible, what was done for it and what it cost."""

    cutoff: datetime
    versions: tuple[str, ...]
    substeps: tuple[Substep, ...]
    release: str | None
    """Live release afterwards."""

    @property
    def seconds(self) -> float:
        """Wall time of all sub-steps."""
        return round(sum(each.seconds for each in self.substeps), 3)

    @property
    def peak_mb(self) -> float:
        """Highest resident memory of all sub-steps, in MiB."""
        return max((each.peak_mb for each in self.substeps), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """The outcome as JSON holds it."""
        return {
            "day": f"{self.cutoff:%Y-%m-%d}",
            "cutoff": self.cutoff.isoformat(),
            "versions": list(self.versions),
            "release": self.release,
            "seconds": self.seconds,
            "peak_mb": self.peak_mb,
            "substeps": [dataclasses.asdict(each) for each in self.substeps],
        }


def workspace_of(home: Home, cutoff: datetime) -> Workspace:
    """Workspace of a day."""
    return Workspace(home.context.path(f"{WORKSPACES}/date={cutoff:%Y-%m-%d}"))


def record_file(run: Path, cutoff: datetime) -> Path:
    """What a refreshed day did and cost."""
    return run / RECORDS / f"date={cutoff:%Y-%m-%d}.json"


class DayRefresh:
    """The refresh of one day, new or resumed."""

    def __init__(
        self, home: Home, cutoff: datetime, records: list[VersionRecord], progress: Progress, *, as_new_version: bool
    ) -> None:
        self._home, self._cutoff, self._progress = home, cutoff, progress
        self._records, self._as_new_version = in_order(records), as_new_version
        self._space = workspace_of(home, cutoff)

    def run(self) -> DayOutcome:
        """Do what is not done yet.

        Raises:
            GateFailedError: A version's day is refused; the day before stays live.
        """
        self._take_up()
        do = self._space.do
        done = [
            do("append", self._append),
            do("features", self._features),
            do("train", self._train),
            do("check", self._check),
            do("publish", self._publish),
            do("materialize", self._materialize),
            do("release", self._release),
        ]
        return self._finish(done)

    def _take_up(self) -> None:
        """After a refused day: judge it again, or do it again where the raw data was mended since."""
        days = self._home.catalogue
        tried = [days.newest_day(record.key, None) for record in self._records]
        refused = [day for day in tried if day is not None and day.cutoff == self._cutoff and day.state == "failed"]
        if not refused or self._space.find("append") is None:
            return
        if has_changed(self._home, self._cutoff - DAY, self._cutoff, self._progress):
            logger.warning("event=raw_data_mended day=%s action=again", self._cutoff.date())
            forget(self._home, self._cutoff)
            self._space.clear()
        self._space.forget("check")

    def _append(self) -> Mapping[str, Any]:
        """The day's raw data, unless the log has it from when another version was refreshed."""
        everyone = self._home.catalogue.versions()
        if any(self._state(record) == "visible" for record in everyone):
            return {}
        return bring_day(self._home, self._cutoff - DAY, self._cutoff, self._progress)

    def _features(self) -> Mapping[str, Any]:
        """Activity of the day, and attributes where there are new ones; joins see them from here on."""
        log, context, now = EventLog(self._home.log.path), self._home.context, datetime.now(UTC)
        with self._progress.stage("activity snapshot"):
            written = activity_builder(context, log).build([self._cutoff], created_timestamp=now)
        new = self._figures("append")
        grown = any(new.get(table, 0) for table in (USERS, PINS, *(f"history_{name}" for name in log.spec.histories)))
        if grown:
            write_attributes(log.path, self._home.offline, manifest(context), created_timestamp=now)
        return {"written": len(written), "attributes": grown}

    def _train(self) -> Mapping[str, Any]:
        own = [record for record in self._records if record.served_through is None]
        figures = train_day(self._home, own, self._cutoff, self._space.folder, self._progress)
        for record in own:
            self._put(DayRecord(key=record.key, cutoff=self._cutoff, state="generated"))
        return figures

    def _check(self) -> Mapping[str, Any]:
        """Judge every version; a refused one stops the day, or goes on as a new version where that is asked for."""
        checked = []
        with self._progress.stage("align, average and check", len(self._records)) as stage:
            for record in self._records:
                checked.append(check_day(self._home, record, self._cutoff, self._space.folder))
                self._record_verdict(checked[-1])
                stage.advance()
        begun = self._space.noted("diverted") or {}
        refused = [each for each in checked if each.failed or each.record.key in begun]
        if refused and not (self._as_new_version or begun):
            raise _refusal(refused, self._cutoff)
        return {f"{each.record.key}_gates": dict(each.figures) for each in checked} | {
            "new_versions": self._divert(refused)
        }

    def _record_verdict(self, checked: Checked) -> None:
        if self._state(checked.record) in (None, "failed"):
            self._put(DayRecord(key=checked.record.key, cutoff=self._cutoff, state="generated"))
        done = [found for name in SUBSTEPS if (found := self._space.find(name)) is not None]
        record = day_record(checked, self._cutoff, self._space.folder)
        self._put(_with_cost(record, done))

    def _state(self, record: VersionRecord) -> str | None:
        days = [day for day in self._home.catalogue.days(record.key, self._cutoff) if day.cutoff == self._cutoff]
        return days[0].state if days else None

    def _divert(self, refused: list[Checked]) -> dict[str, str]:
        """New versions that refused days go on as, by the version that refused them."""
        keys: dict[str, str] = self._space.noted("diverted") or {}
        for each in refused:
            record = each.record
            keys.setdefault(record.key, f"{record.model}_v{self._home.catalogue.next_version(record.model)}")
            # Noted before anything is made, so that a kill in between makes no second one.
            self._space.note("diverted", keys)
            divert(self._home, record, keys[record.key], self._cutoff, self._space.folder)
        return keys

    def _publish(self) -> Mapping[str, Any]:
        """Rename snapshots into the offline store, and everything that the next day goes on from."""
        for record in self._passed():
            waiting, folder, version = (
                self._space.folder / record.key,
                self._home.folder(record.key),
                embedding_version(record),
            )
            for entity in ENTITIES:
                move(daily_file(waiting, entity, self._cutoff), daily_file(folder, entity, self._cutoff))
                move(snapshot_of(waiting, entity), self._home.snapshot(version, entity, self._cutoff))
            if (waiting / ALIGNMENT_FILE).exists():
                move(waiting / ALIGNMENT_FILE, alignment_file(folder, self._cutoff))
            if record.served_through is None:
                move(waiting / PROGRESSIVE_FILE, folder / PROGRESSIVE_FILE)
                move(waiting / CHECKPOINT, folder / CHECKPOINT)
        return {"versions": [record.key for record in self._passed()]}

    def _materialize(self) -> Mapping[str, Any]:
        """The newest snapshots go online, unless one knows the future; pushes of before become one file a view."""
        home, repo = self._home, self._home.manifest()
        versions = [embedding_version(record) for record in self._visible()]
        store = open_store(home.repo_dir)
        checked = check_days_for_leaks(home.log, store, home.repo_dir, versions, [self._cutoff], self._progress)
        static = static_views(repo) if self._figures("features")["attributes"] else []
        daily = daily_views(versions)
        newest = self._cutoff + home.log.spec.publish_delay
        materialize(store, daily, static, newest, self._progress)
        figures = {"feature_views": len(daily) + len(static), "newest": newest.isoformat(), **checked}
        return figures | {"merged": merge_pushes(home, self._cutoff)}

    def _release(self) -> Mapping[str, Any]:
        """The live release's models over the day's Pins."""
        if self._home.catalogue.pointers().live is None:
            return {"release": None}
        release = release_of_the_day(self._home.run, self._cutoff, who=WHO, progress=self._progress)
        return {"release": release.id}

    def _finish(self, done: list[Substep]) -> DayOutcome:
        """Keep what the day cost, call it visible, which is the last word on it, and leave no workspace."""
        home = self._home
        outcome_of_day = DayOutcome(
            cutoff=self._cutoff,
            versions=tuple(record.key for record in self._visible()),
            substeps=tuple(done),
            release=home.catalogue.pointers().live,
        )
        write_atomically(record_file(home.run, self._cutoff), json.dumps(outcome_of_day.to_dict(), indent=1) + "\n")
        for record in self._passed():
            self._update(record)
            day = next(day for day in home.catalogue.days(record.key, self._cutoff) if day.cutoff == self._cutoff)
            self._put(_with_cost(dataclasses.replace(day, state="visible", finished=datetime.now(UTC)), done))
        for key in (self._space.noted("diverted") or {}).values():
            finish_diverted(home, key, self._cutoff, why=self._why())
        self._space.clear()
        return outcome_of_day

    def _update(self, record: VersionRecord) -> None:
        """What a version was trained on by now."""
        artifacts = version_artifacts(self._home, record.key)
        self._home.catalogue.update_version(
            record.key, data_until=self._cutoff, artifacts=artifacts, who=WHO, why=self._why()
        )

    def _passed(self) -> list[VersionRecord]:
        """Versions whose own day becomes visible."""
        diverted = self._space.noted("diverted") or {}
        return [record for record in self._records if record.key not in diverted]

    def _visible(self) -> list[VersionRecord]:
        """Those, and the new ones that refused days go on as."""
        diverted = self._space.noted("diverted") or {}
        return self._passed() + [self._home.catalogue.version(key) for key in diverted.values()]

    def _figures(self, name: str) -> Mapping[str, Any]:
        done = self._space.find(name)
        return done.figures if done is not None else {}

    def _put(self, record: DayRecord) -> None:
        self._home.catalogue.put_day(record, who=WHO, why=self._why())

    def _why(self) -> str:
        return f"refresh of {self._cutoff:%Y-%m-%d}"


def _with_cost(record: DayRecord, done: list[Substep]) -> DayRecord:
    """The record with what the day cost, of all versions together."""
    seconds = round(sum(each.seconds for each in done), 3)
    return dataclasses.replace(record, seconds=seconds, peak_mb=max(each.peak_mb for each in done))


def _refusal(refused: list[Checked], cutoff: datetime) -> GateFailedError:
    """The error that names every figure outside its bound."""
    keys = " and ".join(each.record.key for each in refused)
    several = len(refused) > 1
    failed = tuple(
        dataclasses.replace(failure, figure=f"{each.record.key} {failure.figure}") if several else failure
        for each in refused
        for failure in each.failed
    )
    return GateFailedError(f"{cutoff:%Y-%m-%d} of {keys}", failed)
