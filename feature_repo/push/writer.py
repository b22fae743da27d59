"""Rows of feature views into both stores: whole and checked, the offline store first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore, FeatureView

from feature_repo.contract import CREATED_TIMESTAMP
from feature_repo.stores.engine.writer import ChunkWriter
from feature_repo.stores.offline.asof_store import AsofOfflineStore
from feature_repo.stores.offline.requested_views import required_columns
from feature_repo.stores.offline.snapshots import local_source
from feature_repo.stores.offline.write import append_rows
from feature_repo.stores.packed.checks import checked_table
from feature_repo.stores.packed.store import PackedOnlineStore


class RowWriter:
    """Writes rows of one feature repo; made once, used for every push, also from threads."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        # Reading a view from the registry's protobuf takes longer than writing its row.
        self._views: dict[str, FeatureView] = {}

    def write(self, tables: Mapping[str, pa.Table], moment: datetime) -> dict[str, int | None]:
        """Write tables by view: all offline, one more file each, then all online, order-safe in stores of ours.

        Who finds a row online finds it offline. An online store that fails in between leaves the offline rows, which
        are true; the same push of the same moment again repairs it and adds nothing.

        Args:
            moment: event_timestamp of all rows.

        Returns:
            Rows of each view that went online, older ones than the store held not counted; none where it does not say.

        Raises:
            PackedWriteError: A row cannot be stored as it is; nothing was written.
            OnlineStoreUnavailableError: The online store does not take them.
            OSError: The offline store does not; nothing went online.
        """
        for name, table in tables.items():
            checked_table(self._view(name), table)
        for name, table in tables.items():
            _append(self._store, self._view(name), table, moment)
        return {name: _write_online(self._store, self._view(name), table) for name, table in tables.items()}

    def _view(self, name: str) -> FeatureView:
        if name not in self._views:
            self._views[name] = self._store.get_feature_view(name, allow_registry_cache=True)
        return self._views[name]


def _append(store: FeatureStore, view: FeatureView, table: pa.Table, moment: datetime) -> None:
    """One more file of the view, named by what is in it: the same rows again take its place."""
    provider = store._get_provider()
    if not isinstance(provider.offline_store, AsofOfflineStore):
        provider.offline_write_batch(store.config, view, table, None)
        return
    source = local_source(view.batch_source, f"feature view {view.name}")
    name = f"{moment:%Y%m%dT%H%M%S%f}-{digest(table)}"
    append_rows(source, Path(store.config.repo_path), table, view.name, required_columns(view), name)


def digest(table: pa.Table) -> str:
    """Name of the rows' content; when they were written is no part of it, nor how they lie in memory."""
    told = table.drop_columns([CREATED_TIMESTAMP]).replace_schema_metadata(None)
    content = pa.BufferOutputStream()
    pq.write_table(told, content, compression="none", write_statistics=False, store_schema=False)
    return hashlib.sha256(content.getvalue()).hexdigest()[:16]


def _write_online(store: FeatureStore, view: FeatureView, table: pa.Table) -> int | None:
    online = store._get_provider().online_store
    if isinstance(online, PackedOnlineStore):
        return online.write_table(store.config, view, table)
    ChunkWriter(online, store.config, view).write(table)
    return None
