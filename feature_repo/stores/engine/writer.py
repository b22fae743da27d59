"""Handing a chunk of rows to an online store, packed where the store takes it so."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.utils import _convert_arrow_to_proto

from feature_repo.contract import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from feature_repo.stores.engine.journal import Probe
from feature_repo.stores.packed.store import PackedOnlineStore
from feature_repo.stores.packed.times import to_datetime

logger = logging.getLogger(__name__)

_PROTOBUF_ROWS = 10_000
_STORED_SECONDS = timedelta(seconds=1)
"""Feast's SQLite store keeps whole seconds."""


class LostRowsError(RuntimeError):
    """An online store no longer has rows that it took."""


class ChunkWriter:
    """Writes chunks of one view, and looks whether they are still there."""

    def __init__(self, store: OnlineStore, config: RepoConfig, view: FeatureView) -> None:
        self._store = store
        self._config = config
        self._view = view
        self._key_types = {field.name: field.dtype.to_value_type() for field in view.entity_columns}

    @property
    def is_packed(self) -> bool:
        """Whether the store takes tables."""
        return isinstance(self._store, PackedOnlineStore)

    def write(self, table: pa.Table) -> None:
        """Write rows with the columns that `engine.rows` names; writing them again changes nothing."""
        if isinstance(self._store, PackedOnlineStore):
            self._store.write_table(self._config, self._view, table)
            return
        source = self._view.batch_source
        names = {EVENT_TIMESTAMP: source.timestamp_field, CREATED_TIMESTAMP: source.created_timestamp_column}
        table = table.rename_columns([names.get(name) or name for name in table.column_names])
        rows = self._config.materialization_config.online_write_batch_size or _PROTOBUF_ROWS
        # One batch a slice: Feast's conversion silently takes the first of several.
        for batch in table.combine_chunks().to_batches(max_chunksize=rows):
            converted = _convert_arrow_to_proto(batch, self._view, self._key_types)
            self._store.online_write_batch(self._config, self._view, converted, lambda _: None)

    def probes(self, table: pa.Table) -> list[Probe]:
        """First and last row of a chunk, to be looked for later."""
        ends = table.take(pa.array(sorted({0, table.num_rows - 1})))
        moments = ends[EVENT_TIMESTAMP].cast(pa.int64()).to_pylist()
        return [
            Probe(entity_key=self._serialize(key).hex(), event_timestamp=moment)
            for key, moment in zip(self._entity_keys(ends), moments, strict=True)
        ]

    def has_lost(self, probes: Sequence[Probe]) -> bool:
        """Whether a row that was written is absent or older: the store was emptied, or restarted from an old state.

        Rows that may not be used yet are not looked for, nor are those outside max age in a store that is not ours: it
        may rightly answer that it has none.
        """
        now = datetime.now(UTC)
        oldest = None if isinstance(self._store, PackedOnlineStore) or not self._view.ttl else now - self._view.ttl
        moments = [to_datetime(probe.event_timestamp) for probe in probes]
        visible = [
            (probe, moment)
            for probe, moment in zip(probes, moments, strict=True)
            if moment <= now and (oldest is None or moment > oldest)
        ]
        if not visible:
            return False
        keys = [self._deserialize(bytes.fromhex(probe.entity_key)) for probe, _ in visible]
        found = self._store.online_read(self._config, self._view, keys, [self._view.features[0].name])
        return any(_is_lost(stored, moment) for (stored, _), (_, moment) in zip(found, visible, strict=True))

    def _entity_keys(self, table: pa.Table) -> list[EntityKey]:
        columns: list[list[Any]] = [
            python_values_to_proto_values(table[name].to_pylist(), kind) for name, kind in self._key_types.items()
        ]
        names = list(self._key_types)
        return [EntityKey(join_keys=names, entity_values=list(values)) for values in zip(*columns, strict=True)]

    def _serialize(self, key: EntityKey) -> bytes:
        version = self._config.entity_key_serialization_version
        encoded: bytes = serialize_entity_key(key, entity_key_serialization_version=version)
        return encoded

    def _deserialize(self, encoded: bytes) -> EntityKey:
        version = self._config.entity_key_serialization_version
        key: EntityKey = deserialize_entity_key(encoded, entity_key_serialization_version=version)
        return key


def _is_lost(stored: datetime | None, written: datetime) -> bool:
    if stored is None:
        return True
    # A time without a zone may be local time, as Feast's Milvus store answers it: only its presence counts.
    return stored.tzinfo is not None and stored < written - _STORED_SECONDS
