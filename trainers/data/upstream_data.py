"""What an upstream model walks over, read through Feast: rows of a domain, entities to embed, and long histories.

Dims: N rows, T tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore

from feature_repo.contract import (
    EVENT_TIMESTAMP,
    RepoManifest,
    attributes_view,
    feature_reference,
    write_atomically,
)
from feature_repo.encoding import Array, InputSpec, add_context
from trainers.data.dataset import DatasetSpec
from trainers.data.event_log import EventLog
from trainers.data.examples import Examples, concatenate, encode_sides, label_matrix
from trainers.data.frames import point_in_time_frame
from trainers.data.inputs import context_spec, side_spec
from trainers.data.row_files import mapped
from trainers.progress import Progress

CHUNK_ROWS = 50_000
"""Rows joined and encoded at once; bounds memory, since only the encoded rows are kept."""

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamSpecs:
    """Inputs of the three towers."""

    user: InputSpec
    pin: InputSpec
    context: InputSpec

    def sides(self) -> tuple[InputSpec, InputSpec, InputSpec]:
        """All three, in the order user, Pin, context."""
        return self.user, self.pin, self.context

    def save(self, file: Path) -> None:
        """Keep them with the model that was made for them."""
        write_atomically(file, json.dumps({each.side: each.to_dict() for each in self.sides()}) + "\n")

    @classmethod
    def load(cls, file: Path) -> UpstreamSpecs:
        """Specs that `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
        """
        raw = json.loads(file.read_text())
        return cls(**{side: InputSpec.from_dict(spec) for side, spec in raw.items()})


@dataclass(frozen=True, kw_only=True, slots=True)
class IdTables:
    """How entity keys are hashed."""

    hashes: int = 1
    """Hash functions that read an entity's own key, a table each."""
    max_buckets: int = 1 << 20
    """Rows of a table at most; fewer where there are few keys."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowIndex:
    """Impressions in the order of time with the labels of all tasks, before anything is joined to them."""

    frame: pa.Table
    """Keys, surface and `event_timestamp`, by (event_timestamp, impression_id)."""
    labels: npt.NDArray[np.float32]
    """Labels [N, T] in the dataset's order of tasks, NaN where a task is not defined; final from `known_at` on."""
    known_at: npt.NDArray[np.int64]
    """Microseconds since the epoch at which each task's label [N, T] is known for good."""
    converted_at: Mapping[int, Keys]
    """Microseconds since the epoch at which the rows labelled 1 converted [N], by the position of each task whose label
    arrives late; of other rows they say nothing."""
    until: datetime
    """Cut-off up to which events were read."""

    @property
    def shown_at(self) -> Keys:
        """Microseconds since the epoch of each impression [N]."""
        return _micros(self.frame[EVENT_TIMESTAMP])

    def final_labels(self, column: int) -> npt.NDArray[np.float32]:
        """Labels [N] of the task at a position that were final when events were read, NaN for others."""
        closed = self.known_at[:, column] < round(self.until.timestamp() * 1_000_000)
        return np.where(closed, self.labels[:, column], np.float32(np.nan))


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamRows:
    """Every impression of the walk with the labels of all tasks."""

    examples: Examples
    """Encoded sides; labels [N, T] in the dataset's order of tasks."""
    index: RowIndex
    """What they are."""
    user_ids: Keys
    pin_ids: Keys

    def with_inputs(self, inputs: dict[str, Array]) -> UpstreamRows:
        """The same rows with further inputs."""
        return replace(self, examples=self.examples.with_inputs(inputs))


def buckets(num_keys: int, *, load: float = 0.25, largest: int = 1 << 20) -> int:
    """Buckets of a hashed id table for so many keys: a power of two, at most `largest`."""
    return int(min(largest, max(1 << 8, 1 << int(np.ceil(np.log2(max(num_keys, 1) / load))))))


def upstream_specs(
    log: EventLog, manifest: RepoManifest, offline: Path, known_by: datetime, tables: IdTables | None = None
) -> UpstreamSpecs:
    """Inputs of the towers: vocabularies from the attributes, sizes from the keys known by a cut-off."""
    counts = log.query(
        f"SELECT count(DISTINCT user_id) AS users, count(DISTINCT pin_id) AS pins "
        f"FROM ({log.impressions_sql(datetime.min.replace(tzinfo=known_by.tzinfo), known_by)})"
    ).to_pylist()[0]
    surfaces, tables = known_surfaces(log, known_by), tables or IdTables()
    largest = tables.max_buckets
    pin_buckets = buckets(max(counts["pins"], _num_rows(log.pins_path)), largest=largest)
    user_buckets = buckets(max(counts["users"], _num_rows(log.users_path)), load=0.5, largest=largest)
    user = side_spec(
        manifest,
        "user",
        attribute_frame(offline, "user", known_by),
        surfaces=surfaces,
        histories=True,
        id_buckets=user_buckets,
        id_hashes=tables.hashes,
        sequence_buckets=pin_buckets,
        standardise=False,
    )
    attributes = attribute_frame(offline, "pin", known_by)
    pin = side_spec(manifest, "pin", attributes, id_buckets=pin_buckets, id_hashes=tables.hashes, standardise=False)
    return UpstreamSpecs(user=user, pin=pin, context=context_spec(surfaces))


def known_surfaces(log: EventLog, known_by: datetime) -> list[str]:
    """Surfaces with an impression before a cut-off, sorted."""
    start = datetime.min.replace(tzinfo=known_by.tzinfo)
    found = log.query(f"SELECT DISTINCT surface FROM ({log.impressions_sql(start, known_by)}) ORDER BY surface")
    return [str(surface) for surface in found["surface"].to_pylist()]


def read_rows(
    log: EventLog, store: FeatureStore, specs: UpstreamSpecs, progress: Progress, *, until: datetime, folder: Path
) -> UpstreamRows:
    """Impressions of the walk, joined point in time and encoded chunk by chunk; their inputs lie on disk.

    Args:
        folder: Where there is room for them while they are used.
    """
    index = row_index(log, until)
    rows = np.arange(index.frame.num_rows)
    parts = (part for (part,) in _encoded(store, [specs], index, rows, progress))
    examples = Examples(inputs=mapped(parts, len(rows), folder), labels=index.labels)
    user_ids, pin_ids = (np.asarray(index.frame[name]) for name in ("user_id", "pin_id"))
    return UpstreamRows(examples=examples, index=index, user_ids=user_ids, pin_ids=pin_ids)


def row_index(log: EventLog, until: datetime) -> RowIndex:
    """Impressions before a cut-off with their labels; a label may be learned from once a cut-off is past `known_at`."""
    # Taking conversions as they arrive and misses as their windows close would make each day's positives recent and its
    # negatives old, and a model would learn to tell the dates apart: a label counts from the close of its window.
    waits = _attribution_micros(log.spec)
    closed = until + timedelta(microseconds=int(waits.max()))
    frame = log.task_labels(log.spec.window.features_from, until, known_by=closed, matured=True)
    return RowIndex(
        frame=frame.select(["user_id", "pin_id", "surface", EVENT_TIMESTAMP]),
        labels=label_matrix(frame, [task.name for task in log.spec.tasks]),
        known_at=_micros(frame[EVENT_TIMESTAMP])[:, None] + waits,
        converted_at={
            int(column): _resolved_at(frame, log.spec.tasks[column].name) for column in np.flatnonzero(waits)
        },
        until=until,
    )


def _resolved_at(frame: pa.Table, task: str) -> Keys:
    """Moment at which each row's label was first known [N]; 0 where it is not."""
    column = frame[f"resolved_at_{task}"]
    return _micros(pc.fill_null(column, pa.scalar(datetime.fromtimestamp(0, UTC), column.type)))


def encode_rows(
    store: FeatureStore, specs: Sequence[UpstreamSpecs], index: RowIndex, rows: Keys, progress: Progress
) -> list[Examples]:
    """Some rows of an index, joined once and encoded for each of several models' inputs, with the labels of all tasks.

    Args:
        rows: Positions in the index.
    """
    parts = list(_encoded(store, specs, index, rows, progress))
    return [concatenate([part[number] for part in parts]) for number in range(len(specs))]


def _encoded(
    store: FeatureStore, specs: Sequence[UpstreamSpecs], index: RowIndex, rows: Keys, progress: Progress
) -> Iterator[list[Examples]]:
    """So many rows at a time, for each of the models' inputs."""
    with progress.stage("point-in-time join, upstream", len(rows)) as stage:
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = rows[start : start + CHUNK_ROWS]
            joined = add_context(point_in_time_frame(store, index.frame.take(chunk), "upstream"))
            yield [Examples(inputs=encode_sides(each.sides(), joined), labels=index.labels[chunk]) for each in specs]
            stage.advance(len(chunk))


def attribute_frame(offline: Path, entity: str, known_by: datetime | None = None) -> pa.Table:
    """Attribute rows of an entity under their full feature names; empty without attributes.

    Args:
        known_by: Leave out what holds only from this moment on.
    """
    folder = offline / attributes_view(entity)
    if not folder.exists():
        return pa.table({})
    table = pq.read_table(folder)
    if known_by is not None:
        when = table[EVENT_TIMESTAMP]
        table = table.filter(pc.less(when, pa.scalar(known_by, when.type)))
    return table.rename_columns([feature_reference(attributes_view(entity), name) for name in table.column_names])


def _num_rows(file: Path | None) -> int:
    return 0 if file is None else pq.ParquetFile(file).metadata.num_rows


def _attribution_micros(spec: DatasetSpec) -> npt.NDArray[np.int64]:
    """Time from an impression to the close of each task's attribution window [T]; 0 for labels known at once."""
    kinds = [spec.conversion_kind(task.label) for task in spec.tasks]
    return np.array([kind.attribution_days * 86_400_000_000 if kind else 0 for kind in kinds], dtype=np.int64)


def _micros(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.asarray(pc.cast(pc.cast(column, pa.timestamp("us", tz="UTC")), pa.int64()))
