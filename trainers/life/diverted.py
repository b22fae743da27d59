"""A day that a version's gates refused, as the first day of a new version: another space under another name.

The version that refused it has no such day, is refreshed no more, and ages until its consumers have moved.
"""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from feature_repo.contract import ENTITIES
from feature_repo.versions import VersionRecord, VersionState
from trainers.commit import commit
from trainers.life.artifacts import version_artifacts
from trainers.life.home import INPUTS_FILE, Home, embedding_version
from trainers.life.recording import record_days
from trainers.life.registration import register
from trainers.upstream.aggregate import keep_last, normalised
from trainers.upstream.publish import write_snapshot
from trainers.upstream.reference import write_reference
from trainers.upstream.vector_files import read_frame
from trainers.upstream.walk import CHECKPOINT, PROGRESSIVE_FILE, daily_file

WHO = "refresh"


def divert(home: Home, record: VersionRecord, key: str, cutoff: datetime, workspace: Path) -> None:
    """Make a version of a day that lies in the workspace; safe to repeat after a kill."""
    why = f"the gates of {record.key} refused {cutoff:%Y-%m-%d}"
    made = VersionRecord(
        key=key,
        model=record.model,
        version=int(key.rpartition("_v")[2]),
        dim=record.dim,
        ttl_hours=record.ttl_hours,
        recipe=record.recipe,
        commit=commit() or "",
        seed=record.seed,
        data_from=record.data_from,
        data_until=cutoff,
        parents=(record.key,),
        alignment="procrustes",
    )
    home.catalogue.create_version(made, who=WHO, why=why)
    folder, waiting = home.folder(key), workspace / record.key
    for name in (CHECKPOINT, PROGRESSIVE_FILE):
        _copy(waiting / name, folder / name)
    _copy(home.folder(record.key) / INPUTS_FILE, folder / INPUTS_FILE)
    for entity in ENTITIES:
        _copy(daily_file(waiting, entity, cutoff), daily_file(folder, entity, cutoff))
    space = write_reference(folder, cutoff)
    home.catalogue.update_version(key, space_id=space, artifacts=version_artifacts(home, key), who=WHO, why=why)
    if home.catalogue.version(key).state == VersionState.TRAINING:
        home.catalogue.move_version(key, VersionState.BACKFILLING, expected=VersionState.TRAINING, who=WHO, why=why)
    _write_snapshots(home, made, cutoff)
    register(home, embedding_version(made))


def finish_diverted(home: Home, key: str, cutoff: datetime, *, why: str) -> None:
    """Call the first day of a diverted version visible, and the version a candidate."""
    record_days(home, home.catalogue.version(key), [cutoff], who=WHO, why=why)
    if home.catalogue.version(key).state == VersionState.BACKFILLING:
        home.catalogue.move_version(key, VersionState.CANDIDATE, expected=VersionState.BACKFILLING, who=WHO, why=why)


def _write_snapshots(home: Home, record: VersionRecord, cutoff: datetime) -> None:
    version = embedding_version(record)
    raw = read_frame(lambda entity: daily_file(home.folder(record.key), entity, cutoff), record.dim)
    for entity in ENTITIES:
        keys, vectors = keep_last(*raw[entity])
        state = keys, normalised(vectors)
        write_snapshot(entity, state, cutoff, home.log.spec.publish_delay, home.snapshot(version, entity, cutoff))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)
