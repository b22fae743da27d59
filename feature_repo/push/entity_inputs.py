"""What the towers read of single entities, and the vectors that they have: online for now, offline for a moment before.

Dims: N entities, E width of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore

from feature_repo.contract import (
    DATA_CUTOFF_FIELD,
    EMBEDDING_FIELD,
    EVENT_TIMESTAMP,
    PRESENT,
    EmbeddingVersion,
    RepoManifest,
    activity_view,
    attributes_view,
    embedding_view,
    feature_reference,
    history_view,
    join_key,
    service_name,
)
from feature_repo.stores.offline.asof_store import AsofOfflineStore
from feature_repo.stores.offline.footers import newest_time
from feature_repo.stores.offline.snapshots import find_files, local_source
from feature_repo.stores.online.status import OnlineRead, OnlineReader
from feature_repo.stores.packed.times import to_datetime, to_micros

MICROS = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, kw_only=True, slots=True)
class EntityRows:
    """N entities at a moment."""

    features: pa.Table
    """Join key and a `view__feature` column for activity, attributes and histories; null where a view has no row that
    may be used."""
    activity_at: pa.Array
    """From when each entity's activity may be used; null where there is none."""
    vectors: pa.Array
    """Vector of the version that each entity has now; null where there is none."""
    vectors_at: pa.Array
    """From when each of those may be used; null where there is none."""


class InputReader:
    """Reads entities of one kind for one embedding version; made once, used for every push, also from threads."""

    def __init__(self, store: FeatureStore, manifest: RepoManifest, entity: str, version: EmbeddingVersion) -> None:
        self._store, self._entity = store, entity
        self._vectors = embedding_view(entity, version.model, version.version)
        self._activity = activity_view(entity)
        self._online = OnlineReader(store, service_name("ranking", (version,), (entity,)), entity)
        self._histories = [history_view(name) for name in manifest.histories if entity == "user"]
        self._base = [self._activity, *([attributes_view(entity)] if manifest.attributes(entity) else [])]

    def online(self, ids: Sequence[int], now: datetime) -> EntityRows:
        """Entities as the online store has them; long histories, which are offline alone, from there.

        Raises:
            OnlineStoreUnavailableError: The store does not answer.
        """
        read = self._online.read(ids, now)
        features = _keyed(self._entity, ids, dict(zip(read.features.column_names, read.features.columns, strict=True)))
        for name, column in self._joined(ids, now, self._histories).items():
            features = features.append_column(name, column)
        return EntityRows(
            features=features,
            activity_at=_usable(read, self._activity),
            vectors=read.features[feature_reference(self._vectors, EMBEDDING_FIELD)].combine_chunks(),
            vectors_at=_usable(read, self._vectors),
        )

    def offline(self, ids: Sequence[int], moment: datetime) -> EntityRows:
        """Entities as they were at a moment; of their own vectors nothing.

        The join does not say how old activity is: it counts as that of the newest snapshot that could be used.
        """
        columns = self._joined(ids, moment, [*self._base, *self._histories])
        counts = columns[feature_reference(self._activity, "impressions_ever")]
        newest = self._newest_activity(moment) if counts.null_count < len(counts) else None
        at = pc.if_else(counts.is_valid(), pa.scalar(newest or moment, MICROS), pa.scalar(None, MICROS))
        nothing = pa.nulls(len(ids))
        return EntityRows(
            features=_keyed(self._entity, ids, columns),
            activity_at=at.combine_chunks(),
            vectors=nothing,
            vectors_at=nothing,
        )

    def vectors_of_day(self, ids: Sequence[int], usable_from: datetime, cutoff: datetime) -> pa.Array:
        """Vectors in the snapshot of a day; null where it has none."""
        columns = self._joined(ids, usable_from, [self._vectors])
        cutoffs = columns[feature_reference(self._vectors, DATA_CUTOFF_FIELD)].combine_chunks()
        vectors = columns[feature_reference(self._vectors, EMBEDDING_FIELD)].combine_chunks()
        is_of_day = pc.fill_null(pc.equal(cutoffs.cast(MICROS), pa.scalar(cutoff, MICROS)), False)
        return vectors.take(pc.if_else(is_of_day, pa.array(range(len(ids))), None))

    def _newest_activity(self, moment: datetime) -> datetime | None:
        """From when the newest snapshot of activity may be used, of those that can be at a moment.

        None where the offline store is another one than ours, which does not say.
        """
        store = self._store
        if not isinstance(store._get_provider().offline_store, AsofOfflineStore):
            return None
        view, label = (
            store.get_feature_view(self._activity, allow_registry_cache=True),
            f"feature view {self._activity}",
        )
        source = local_source(view.batch_source, label)
        files = find_files(source, Path(store.config.repo_path), label)
        times = (newest_time(file, label, source.timestamp_field) for file in files)
        usable = [each for each in times if each is not None and each <= to_micros(moment)]
        return to_datetime(max(usable)) if usable else None

    def _joined(self, ids: Sequence[int], moment: datetime, views: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """Columns `view__feature` of whole views, joined point in time."""
        if not views:
            return {}
        found = [self._store.get_feature_view(name, allow_registry_cache=True) for name in views]
        references = [f"{view.name}:{field.name}" for view in found for field in view.features]
        rows = pd.DataFrame({join_key(self._entity): list(ids), EVENT_TIMESTAMP: [moment] * len(ids)})
        joined = self._store.get_historical_features(rows, references, full_feature_names=True).to_arrow()
        return {name: joined[name] for name in (reference.replace(":", "__", 1) for reference in references)}


def _keyed(entity: str, ids: Sequence[int], columns: Mapping[str, Any]) -> pa.Table:
    return pa.table({join_key(entity): pa.array(ids, pa.int64()), **columns})


def _usable(read: OnlineRead, view: str) -> pa.Array:
    """Times of the rows of a view that may be used: not of those outside max age."""
    is_present = pa.array([status == PRESENT for status in read.status(view)])
    return pc.if_else(is_present, read.event_timestamps[view], pa.scalar(None, MICROS))
