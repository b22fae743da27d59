"""Activity features as daily snapshots: what every user and Pin did strictly before each cut-off.

One day costs one day: a state folder keeps a tally per day, the totals so far and the sequence of engaged Pins, and
the next cut-off reads only the events since the one before it. Everything runs in DuckDB, spilling to disk above
its memory limit.

State folder: `settings.json`; one parquet file per cut-off in `daily_<entity>/`, `totals_<entity>/`,
`surfaces_<entity>/` and `sequence_user/`; `complete/` with a marker per cut-off, written last. One process at a time
writes it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from feature_repo.contract import (
    CREATED_TIMESTAMP,
    ENTITIES,
    EVENT_TIMESTAMP,
    RepoManifest,
    activity_view,
    join_key,
    write_atomically,
)
from trainers.data.activity_config import DAY, ActivityConfig
from trainers.data.activity_counts import feature_columns, first_totals, next_totals, priors, tally
from trainers.data.activity_log import DailyLog, parquet_relation
from trainers.data.activity_sequence import engaged, extended, newest, sequence_columns
from trainers.data.activity_surfaces import excess_columns, excess_query, next_surface_totals, surface_tally
from trainers.data.connection import connect, moment
from trainers.data.snapshot_file import write_snapshot_file

__all__ = ["ActivityBuilder", "ActivityConfig", "Progress"]

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
"""File of the state folder with what the snapshots were made with."""

Progress = Callable[[int, int], None]
"""Called with the number of cut-offs done and their total."""


class ActivityBuilder:
    """Writes the activity snapshots of a list of cut-offs, continuing where the last call or a kill left off."""

    def __init__(self, config: ActivityConfig) -> None:
        self.config = config

    def build(
        self, cutoffs: Sequence[datetime], *, created_timestamp: datetime, progress: Progress | None = None
    ) -> list[datetime]:
        """Bring the snapshots of all cut-offs up to date.

        A cut-off is skipped when its files exist and the log's files before it are unchanged. Other settings than
        those of the last call start afresh: snapshots and state made under the old ones are removed.

        Args:
            cutoffs: UTC-aware, ascending, one day apart.
            created_timestamp: Written into every row of the snapshots made now.

        Returns:
            Cut-offs whose snapshots were written.

        Raises:
            FileNotFoundError: The event log has no impressions.
            ValueError: Cut-offs are naive or not one day apart, or the log lacks a label of the manifest.
        """
        _check_cutoffs([*cutoffs, created_timestamp], days=cutoffs)
        log = DailyLog.list_files(self.config.event_log)
        _check_labels(log, self.config.manifest)
        self._start_afresh_when_settings_changed()
        written = []
        with _connection(self.config) as connection:
            for done, cutoff in enumerate(cutoffs, start=1):
                day = _Day(config=self.config, connection=connection, log=log, cutoff=cutoff)
                if day.build(created_timestamp):
                    written.append(cutoff)
                if progress is not None:
                    progress(done, len(cutoffs))
        logger.info("activity_built cutoffs=%d written=%d", len(cutoffs), len(written))
        return written

    def changed_settings(self) -> list[str]:
        """Names of the settings that are others than those of the last call; none before the first."""
        path = self.config.state / SETTINGS_FILE
        if not path.exists():
            return []
        before, now = json.loads(path.read_text()), json.loads(self.config.settings())
        return sorted(name for name in before | now if before.get(name) != now.get(name))

    def _start_afresh_when_settings_changed(self) -> None:
        path = self.config.state / SETTINGS_FILE
        known, settings = path.read_text() if path.exists() else None, self.config.settings()
        if known == settings:
            return
        if known is not None:
            logger.warning("activity_settings_changed state=%s action=rebuild", self.config.state)
            # Markers go first: without them nothing else is believed, should this be interrupted.
            shutil.rmtree(self.config.state / "complete", ignore_errors=True)
            for entity in ENTITIES:
                shutil.rmtree(self.config.offline / activity_view(entity), ignore_errors=True)
        write_atomically(path, settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Day:
    """One cut-off: its state from the day before, its snapshots from its state."""

    config: ActivityConfig
    connection: duckdb.DuckDBPyConnection
    log: DailyLog
    cutoff: datetime

    def build(self, created_timestamp: datetime) -> bool:
        """Write what is absent or out of date; False when nothing is."""
        has_state = self.has_state()
        snapshots = [self.config.snapshot_path(entity, self.cutoff) for entity in ENTITIES]
        if has_state and all(path.exists() for path in snapshots):
            return False
        if not has_state:
            self.write_state()
        for entity in ENTITIES:
            self.write_snapshot(entity, created_timestamp)
        marker = {"cutoff": self.cutoff.astimezone(UTC).isoformat(), "fingerprint": self.log.fingerprint(self.cutoff)}
        write_atomically(self.config.marker_path(self.cutoff), json.dumps(marker) + "\n")
        return True

    def has_state(self) -> bool:
        """Whether state exists, whole, and was made from the log as it is now."""
        path = self.config.marker_path(self.cutoff)
        if not path.exists():
            return False
        marker = json.loads(path.read_text())
        same_cutoff = datetime.fromisoformat(marker["cutoff"]) == self.cutoff
        same_files = marker["fingerprint"] == self.log.fingerprint(self.cutoff)
        return same_cutoff and same_files and all(path.exists() for path in self.config.state_paths(self.cutoff))

    def write_state(self) -> None:
        """Continue the state of the day before; without one, fold in all history."""
        previous = dataclasses.replace(self, cutoff=self.cutoff - DAY)
        continues = previous.has_state()
        for entity in ENTITIES:
            totals = self._next_day(entity) if continues else self._all_history(entity)
            self._write(f"{totals} ORDER BY {join_key(entity)}", self.config.state_path("totals", entity, self.cutoff))
            if self.config.manifest.surface_labels:
                self._write_surfaces(entity, previous.cutoff if continues else None)
        self._write_sequence(previous.cutoff if continues else None)

    def _next_day(self, entity: str) -> str:
        entered = self._write_daily(entity, self.cutoff)
        before = self.config.state_path("totals", entity, self.cutoff - DAY)
        windows = self.config.manifest.windows_days
        left = {days: self.config.state_path("daily", entity, self.cutoff - days * DAY) for days in windows}
        return next_totals(self.config.manifest, entity, before, entered, left)

    def _all_history(self, entity: str) -> str:
        manifest, num_days = self.config.manifest, self.config.longest_window_days
        before = tally(self.log, manifest, entity, start=None, end=self.cutoff - num_days * DAY)
        daily = [self._write_daily(entity, self.cutoff - age * DAY) for age in range(num_days)]
        return first_totals(manifest, entity, before, daily)

    def _write_daily(self, entity: str, day_end: datetime) -> Path:
        path = self.config.state_path("daily", entity, day_end)
        events = tally(self.log, self.config.manifest, entity, start=day_end - DAY, end=day_end)
        self._write(f"{events} ORDER BY {join_key(entity)}", path)
        return path

    def _write_surfaces(self, entity: str, start: datetime | None) -> None:
        manifest = self.config.manifest
        query = surface_tally(self.log, manifest, entity, start=start, end=self.cutoff)
        if start is not None:
            before = self.config.state_path("surfaces", entity, start)
            query = next_surface_totals(manifest, entity, before, f"({query})")
        path = self.config.state_path("surfaces", entity, self.cutoff)
        self._write(f"{query} ORDER BY {join_key(entity)}, surface", path)

    def _write_sequence(self, start: datetime | None) -> None:
        length = self.config.manifest.sequence_length
        query = engaged(self.log, self.config.manifest, start=start, end=self.cutoff)
        sequence = newest(self.connection, query, length, self.config.memory_mb)
        if start is not None:
            previous = parquet_relation(self.config.state_path("sequence", "user", start))
            sequence = extended(previous, f"({sequence})", length)
        self._write(f"{sequence} ORDER BY user_id", self.config.state_path("sequence", "user", self.cutoff))

    def write_snapshot(self, entity: str, created_timestamp: datetime) -> None:
        """Write the snapshot of an entity from the state of this cut-off."""
        config, key = self.config, join_key(entity)
        oldest = moment(self.cutoff - config.retention_days * DAY)
        columns = [
            key,
            f"{moment(self.cutoff + config.publish_delay)} AS {EVENT_TIMESTAMP}",
            f"{moment(created_timestamp)} AS {CREATED_TIMESTAMP}",
            *feature_columns(config.manifest, self.cutoff),
        ]
        everyone = parquet_relation(config.state_path("totals", entity, self.cutoff))
        sources = f"{everyone} CROSS JOIN ({priors(config.manifest, everyone)})"
        if config.manifest.surface_labels:
            columns += excess_columns(config.manifest)
            excess = excess_query(config.manifest, entity, config.state_path("surfaces", entity, self.cutoff))
            sources += f" LEFT JOIN ({excess}) AS excess USING ({key})"
        if entity == "user":
            columns += sequence_columns(self.cutoff)
            sequence = parquet_relation(config.state_path("sequence", "user", self.cutoff))
            sources += f" LEFT JOIN {sequence} AS sequence USING (user_id)"
        self._write(
            f"SELECT {', '.join(columns)} FROM {sources} WHERE last_activity >= {oldest} ORDER BY {key}",
            config.snapshot_path(entity, self.cutoff),
        )

    def _write(self, query: str, path: Path) -> None:
        write_snapshot_file(self.connection, query, path)


@contextmanager
def _connection(config: ActivityConfig) -> Iterator[duckdb.DuckDBPyConnection]:
    spill = config.state / "spill"
    connection = connect(temp=spill, memory_mb=config.memory_mb, threads=config.threads)
    connection.execute("SET preserve_insertion_order = false")
    try:
        yield connection
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)


def _check_cutoffs(moments: Sequence[datetime], *, days: Sequence[datetime]) -> None:
    naive = [item for item in moments if item.tzinfo is None]
    if naive:
        raise ValueError(f"cut-offs and created_timestamp must be UTC-aware (got {naive[0]}); add a time zone")
    for earlier, later in pairwise(days):
        if later - earlier != DAY:
            raise ValueError(f"cut-offs must be ascending and one day apart (got {earlier} then {later})")


def _check_labels(log: DailyLog, manifest: RepoManifest) -> None:
    path = log.impressions[0].path
    known = pq.read_schema(path).names
    absent = [label for label in manifest.labels if label not in known]
    if absent:
        raise ValueError(f"impressions must have a column per label (got none for {absent} in {path}); ingest again")
