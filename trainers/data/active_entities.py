"""The entities that get an embedding at a cut-off, and what the towers read of them.

Dims: N entities.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore
from safetensors.numpy import load_file, save_file

from feature_repo.contract import ENTITIES, EVENT_TIMESTAMP, activity_view, join_key
from trainers.data.event_log import EventLog
from trainers.data.examples import Examples, concatenate, encode_sides
from trainers.data.frames import point_in_time_frame
from trainers.data.upstream_data import UpstreamSpecs
from trainers.progress import Progress

KEYS = "keys"
CHUNK_ENTITIES = 32_768
"""Entities that are read, kept and embedded at once: what bounds the memory, however many there are."""

Keys = npt.NDArray[np.int64]
Chunks = Iterator[tuple[Keys, Examples]]
"""Keys, sorted through all chunks, and encoded inputs."""


class ActiveEntities:
    """Entities to embed at a cut-off, with their inputs as they may be used when the embedding is published."""

    def __init__(
        self, log: EventLog, store: FeatureStore, specs: UpstreamSpecs, offline: Path, retention: timedelta
    ) -> None:
        self._log, self._store, self._specs, self._offline = log, store, specs, offline
        self._retention = retention

    def __call__(self, entity: str, cutoff: datetime) -> tuple[Keys, Examples]:
        """Keys, sorted, and encoded inputs of the entities of one kind."""
        keys, examples = zip(*self.chunks(entity, cutoff), strict=True)
        return np.concatenate(keys), concatenate(examples)

    def chunks(self, entity: str, cutoff: datetime) -> Chunks:
        """The same, so many entities at a time; one chunk at least."""
        keys = self._keys(entity, cutoff)
        for start in range(0, max(1, len(keys)), CHUNK_ENTITIES):
            chunk = keys[start : start + CHUNK_ENTITIES]
            yield chunk, self._inputs(entity, cutoff, chunk)

    def _inputs(self, entity: str, cutoff: datetime, keys: Keys) -> Examples:
        usable_from = cutoff + self._log.spec.publish_delay
        when = pa.repeat(pa.scalar(usable_from, pa.timestamp("us", tz="UTC")), len(keys))
        rows = pa.table({join_key(entity): keys, EVENT_TIMESTAMP: when})
        frame = point_in_time_frame(self._store, rows, f"upstream_{entity}")
        spec = self._specs.user if entity == "user" else self._specs.pin
        return Examples(inputs=encode_sides([spec], frame), labels=np.empty((len(keys), 0), np.float32))

    def _keys(self, entity: str, cutoff: datetime) -> Keys:
        """Entities with activity in the retention window, users with a history from it, and Pins listed in it."""
        snapshot = self._offline / activity_view(entity) / f"date={cutoff:%Y-%m-%d}.parquet"
        active = np.asarray(pq.read_table(snapshot, columns=[join_key(entity)])[join_key(entity)])
        if entity == "user":
            files = [self._log.history_path(name) for name in self._log.spec.histories]
        else:
            files = [self._log.pins_path]
        listed = [self._since(file, entity, cutoff - self._retention, cutoff) for file in files]
        return np.unique(np.concatenate([active, *listed]))

    def _since(self, file: Path | None, entity: str, oldest: datetime, cutoff: datetime) -> Keys:
        if file is None:
            return np.empty(0, np.int64)
        table = pq.read_table(file, columns=[join_key(entity), EVENT_TIMESTAMP])
        when = table[EVENT_TIMESTAMP]
        kept = pc.and_(
            pc.greater_equal(when, pa.scalar(oldest, when.type)), pc.less(when, pa.scalar(cutoff, when.type))
        )
        return np.asarray(table.filter(kept)[join_key(entity)])


class EntitySource(Protocol):
    """Where the inputs of entities come from."""

    def chunks(self, entity: str, cutoff: datetime) -> Chunks:
        """Keys and encoded inputs of the entities of one kind; one chunk at least."""
        ...


class EntityFiles:
    """Inputs of the active entities of each cut-off in files: read from Feast once, walked over by every model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, entities: EntitySource, cutoffs: Sequence[datetime], progress: Progress) -> None:
        """Write the files that are not there yet."""
        missing = [
            (entity, cutoff) for cutoff in cutoffs for entity in ENTITIES if not self._day(entity, cutoff).exists()
        ]
        with progress.stage("inputs of active entities", len(missing)) as stage:
            for entity, cutoff in missing:
                self._write(self._day(entity, cutoff), entities.chunks(entity, cutoff))
                stage.advance()

    def __call__(self, entity: str, cutoff: datetime) -> Chunks:
        """Keys and encoded inputs of the entities of one kind, a chunk at a time.

        Raises:
            FileNotFoundError: Nothing was written for the cut-off.
        """
        day = self._day(entity, cutoff)
        if not day.is_dir():
            raise FileNotFoundError(
                f"{day} must hold the inputs of the active entities (got no folder); write it first"
            )
        for file in sorted(day.iterdir()):
            arrays = load_file(file)
            keys = arrays.pop(KEYS)
            yield keys, Examples(inputs=arrays, labels=np.empty((len(keys), 0), np.float32))

    def _day(self, entity: str, cutoff: datetime) -> Path:
        return self._folder / entity / f"date={cutoff:%Y-%m-%d}"

    def _write(self, day: Path, chunks: Chunks) -> None:
        partial = day.with_name(f".{day.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for number, (keys, examples) in enumerate(chunks):
            arrays = {name: np.ascontiguousarray(values) for name, values in {**examples.inputs, KEYS: keys}.items()}
            save_file(arrays, partial / f"part-{number:05}.safetensors")
        partial.replace(day)
