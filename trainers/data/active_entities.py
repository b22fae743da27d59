"""The entities that get an embedding at a cut-off, and what the towers read of them.

Dims: N entities.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore
from safetensors.numpy import load_file, save_file

from feature_repo.contract import ENTITIES, EVENT_TIMESTAMP, activity_view, join_key
from trainers.data.event_log import EventLog
from trainers.data.examples import Examples, encode_sides
from trainers.data.frames import point_in_time_frame
from trainers.data.upstream_data import UpstreamSpecs
from trainers.progress import Progress

KEYS = "keys"

Keys = npt.NDArray[np.int64]


class ActiveEntities:
    """Entities to embed at a cut-off, with their inputs as they may be used when the embedding is published."""

    def __init__(
        self, log: EventLog, store: FeatureStore, specs: UpstreamSpecs, offline: Path, retention: timedelta
    ) -> None:
        self._log, self._store, self._specs, self._offline = log, store, specs, offline
        self._retention = retention

    def __call__(self, entity: str, cutoff: datetime) -> tuple[Keys, Examples]:
        """Keys, sorted, and encoded inputs of the entities of one kind."""
        keys = self._keys(entity, cutoff)
        usable_from = cutoff + self._log.spec.publish_delay
        when = pa.repeat(pa.scalar(usable_from, pa.timestamp("us", tz="UTC")), len(keys))
        rows = pa.table({join_key(entity): keys, EVENT_TIMESTAMP: when})
        frame = point_in_time_frame(self._store, rows, f"upstream_{entity}")
        spec = self._specs.user if entity == "user" else self._specs.pin
        return keys, Examples(inputs=encode_sides([spec], frame), labels=np.empty((len(keys), 0), np.float32))

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


class EntityFiles:
    """Inputs of the active entities of each cut-off in files: read from Feast once, walked over by every model."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, entities: ActiveEntities, cutoffs: Sequence[datetime], progress: Progress) -> None:
        """Write the files that are not there yet."""
        missing = [
            (entity, cutoff) for cutoff in cutoffs for entity in ENTITIES if not self._file(entity, cutoff).exists()
        ]
        with progress.stage("inputs of active entities", len(missing)) as stage:
            for entity, cutoff in missing:
                self._write(entity, cutoff, *entities(entity, cutoff))
                stage.advance()

    def __call__(self, entity: str, cutoff: datetime) -> tuple[Keys, Examples]:
        """Keys, sorted, and encoded inputs of the entities of one kind."""
        arrays = load_file(self._file(entity, cutoff))
        keys = arrays.pop(KEYS)
        return keys, Examples(inputs=arrays, labels=np.empty((len(keys), 0), np.float32))

    def _file(self, entity: str, cutoff: datetime) -> Path:
        return self._folder / entity / f"date={cutoff:%Y-%m-%d}.safetensors"

    def _write(self, entity: str, cutoff: datetime, keys: Keys, examples: Examples) -> None:
        file = self._file(entity, cutoff)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.partial")
        save_file(
            {name: np.ascontiguousarray(values) for name, values in {**examples.inputs, KEYS: keys}.items()}, partial
        )
        partial.replace(file)
