"""From the raw vectors of a day to its snapshot, and the gates between it and everyone who reads.

Raw vectors are brought into the version's reference frame and to unit length, held against the day before, and
averaged with the past. A version that is served through a newer one takes that one's vectors instead, mapped back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contract import ENTITIES, activity_view, join_key
from feature_repo.versions import DayRecord, VersionRecord
from trainers.data.manifest import model_tasks
from trainers.life.artifacts import day_artifacts
from trainers.life.home import Home, embedding_version, upstream_recipe
from trainers.upstream.aggregate import Keys, Vectors, keep_last, moving_average, normalised
from trainers.upstream.alignment import align
from trainers.upstream.alignment_map import AlignmentMap
from trainers.upstream.compatibility import BackwardMap, compatible
from trainers.upstream.frame import Frame
from trainers.upstream.gates import Failure, Probes, failures, gate_figures
from trainers.upstream.publish import snapshot_name, write_snapshot
from trainers.upstream.reference import read_reference
from trainers.upstream.vector_files import num_vectors, read_frame, vector_column, write_vectors
from trainers.upstream.walk import daily_file

DAY = timedelta(days=1)
ALIGNMENT_FILE = "alignment.safetensors"
SNAPSHOTS = "snapshot"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """A day of a version before the gates' verdict is acted on."""

    record: VersionRecord
    figures: Mapping[str, float]
    failed: tuple[Failure, ...]


def check_day(home: Home, record: VersionRecord, cutoff: datetime, workspace: Path) -> Checked:
    """Write the version's snapshot of the day into the workspace, and judge the vectors that it is made of."""
    folder, version = workspace / record.key, embedding_version(record)
    newest = home.newest_day(record.key).cutoff
    today, aligned = _own_frame(home, record, cutoff, workspace)
    figures = aligned | _figures(home, record, cutoff, today, _day_before(home, record, newest))
    past = read_frame(lambda entity: home.snapshot(version, entity, newest), version.dim)
    for entity in ENTITIES:
        state = moving_average(past[entity], today[entity], upstream_recipe(record).average_weight)
        write_snapshot(entity, state, cutoff, home.log.spec.publish_delay, snapshot_of(folder, entity))
    return Checked(record=record, figures=figures, failed=failures(figures, home.recipe.gates))


def published_figures(home: Home, record: VersionRecord, cutoff: datetime) -> dict[str, float]:
    """Gate figures of a day whose raw vectors lie in the version's folder."""
    before = cutoff - DAY
    known = all(daily_file(home.folder(record.key), entity, before).is_file() for entity in ENTITIES)
    yesterday = published_frame(home, record, before) if known else None
    return _figures(home, record, cutoff, published_frame(home, record, cutoff), yesterday)


def _figures(
    home: Home, record: VersionRecord, cutoff: datetime, today: Frame, yesterday: Frame | None
) -> dict[str, float]:
    return gate_figures(
        today,
        yesterday,
        active=_active(home, cutoff),
        probes=probes(home, record, cutoff),
        reference=read_reference(home.folder(record.key), record.dim),
        seed=home.context.config.seed,
    )


def _day_before(home: Home, record: VersionRecord, newest: datetime) -> Frame:
    """What a day is compared with: the vectors of the same source on the newest visible day.

    The day on which another version begins to feed one would be refused otherwise, for being another's.
    """
    if record.served_through is None:
        return published_frame(home, record, newest)
    newer = home.catalogue.version(record.served_through)
    return _mapped_back(published_frame(home, newer, newest), home, newer, record)


def snapshot_of(folder: Path, entity: str) -> Path:
    """Where a version's snapshot waits."""
    return folder / SNAPSHOTS / f"{entity}.parquet"


def alignment_file(folder: Path, cutoff: datetime) -> Path:
    """Map that brought the raw vectors of a cut-off into the version's frame."""
    return folder / "alignments" / f"date={cutoff:%Y-%m-%d}.safetensors"


def backward_file(folder: Path, older: str) -> Path:
    """Map from a version, whose folder is given, to an older one."""
    return folder / "maps" / f"{older}.safetensors"


def published_frame(home: Home, record: VersionRecord, cutoff: datetime) -> dict[str, tuple[Keys, Vectors]]:
    """Vectors of a published cut-off in the version's frame, before averaging."""
    folder = home.folder(record.key)
    raw = read_frame(lambda entity: daily_file(folder, entity, cutoff), record.dim)
    file = alignment_file(folder, cutoff)
    return _mapped(raw, AlignmentMap.load(file)) if file.is_file() else raw


def day_record(checked: Checked, cutoff: datetime, workspace: Path) -> DayRecord:
    """The day as the catalogue has it once it is judged."""
    folder = workspace / checked.record.key
    files = {entity: snapshot_of(folder, entity) for entity in ENTITIES}
    raw = {entity: daily_file(folder, entity, cutoff) for entity in ENTITIES}
    return DayRecord(
        key=checked.record.key,
        cutoff=cutoff,
        state="failed" if checked.failed else "checked",
        gates=dict(checked.figures),
        failed=tuple(dict.fromkeys(each.figure for each in checked.failed)),
        snapshot_sha256=day_artifacts(files, raw, folder / ALIGNMENT_FILE),
        entities={entity: num_vectors(file) for entity, file in files.items()},
    )


def probes(home: Home, record: VersionRecord, cutoff: datetime) -> Probes:
    """Users and Pins that engaged on the last day before a cut-off, in the domains of a version."""
    tasks = [task.name for task in model_tasks(home.log.spec, record.model)]
    labels = home.log.task_labels(cutoff - DAY, cutoff, known_by=cutoff)
    engaged = np.zeros(labels.num_rows, bool)
    for task in tasks:
        engaged |= np.asarray(labels[task].cast(pa.float32()).to_numpy()) == 1.0
    return Probes(np.asarray(labels["user_id"])[engaged], np.asarray(labels["pin_id"])[engaged])


def _own_frame(
    home: Home, record: VersionRecord, cutoff: datetime, workspace: Path
) -> tuple[dict[str, tuple[Keys, Vectors]], dict[str, float]]:
    """The day's vectors in the version's own frame, of unit length, and figures of how they came there."""
    folder = workspace / record.key
    if record.served_through is not None:
        return _served_frame(home, record, cutoff, workspace), {}
    raw = read_frame(lambda entity: daily_file(folder, entity, cutoff), record.dim)
    kind = upstream_recipe(record).alignment
    if kind == "none":
        return {entity: keep_last(*raw[entity]) for entity in ENTITIES}, {}
    _, found, figures = align(raw, read_reference(home.folder(record.key), record.dim), kind)
    found.save(folder / ALIGNMENT_FILE)
    kept = ("cosine_before", "cosine_after", "rank")
    named = {f"alignment_{name}": value for name, value in figures.to_dict().items() if name.startswith(kept)}
    return _mapped(raw, found), named


def _served_frame(
    home: Home, record: VersionRecord, cutoff: datetime, workspace: Path
) -> dict[str, tuple[Keys, Vectors]]:
    """Vectors of the newer version that feeds this one, of the same day, mapped back into this one's space.

    They are this version's raw vectors of the day.
    """
    newer = home.catalogue.version(record.served_through or "")
    waiting = workspace / newer.key
    source = _waiting_frame(waiting, newer, cutoff) if waiting.is_dir() else published_frame(home, newer, cutoff)
    frame = _mapped_back(source, home, newer, record)
    for entity, (keys, vectors) in frame.items():
        table = pa.table({join_key(entity): keys, "embedding": vector_column(vectors)})
        write_vectors(table, daily_file(workspace / record.key, entity, cutoff))
    return frame


def _mapped_back(
    frame: Frame, home: Home, newer: VersionRecord, older: VersionRecord
) -> dict[str, tuple[Keys, Vectors]]:
    chain = maps_back(home, newer, older.key)
    return {entity: (keys, compatible(vectors, chain)) for entity, (keys, vectors) in frame.items()}


def maps_back(home: Home, newer: VersionRecord, older: str) -> list[BackwardMap]:
    """Maps from a version back to one that it descends from, the newest first.

    Raises:
        ValueError: It does not descend from it through maps.
    """
    maps, at = [], newer
    while at.key != older:
        if at.alignment != "backward_compatible":
            raise ValueError(
                f"{newer.key} must be compatible with {older} to feed it (got {at.key}, which keeps no map to an "
                f"older one); create one with `headwater version create --compatible-with {older}`"
            )
        maps.append(BackwardMap.load(backward_file(home.folder(at.key), at.parents[0])))
        at = home.catalogue.version(at.parents[0])
    return maps


def _waiting_frame(folder: Path, record: VersionRecord, cutoff: datetime) -> dict[str, tuple[Keys, Vectors]]:
    raw = read_frame(lambda entity: daily_file(folder, entity, cutoff), record.dim)
    file = folder / ALIGNMENT_FILE
    return _mapped(raw, AlignmentMap.load(file)) if file.is_file() else raw


def _mapped(raw: Frame, found: AlignmentMap) -> dict[str, tuple[Keys, Vectors]]:
    ordered = {entity: keep_last(*raw[entity]) for entity in ENTITIES}
    return {entity: (keys, normalised(found.apply(entity, vectors))) for entity, (keys, vectors) in ordered.items()}


def _active(home: Home, cutoff: datetime) -> dict[str, Keys]:
    """Entities with activity before a cut-off, as the activity features know them: they ought to have a vector."""
    found = {}
    for entity in ENTITIES:
        file = home.offline / activity_view(entity) / snapshot_name(cutoff)
        found[entity] = np.asarray(pq.read_table(file, columns=[join_key(entity)])[join_key(entity)])
    return found


def in_order(records: Sequence[VersionRecord]) -> list[VersionRecord]:
    """Versions such that one that is fed by another comes after it."""
    return sorted(records, key=lambda each: (each.served_through is not None, -each.version))
