"""Small repos for the compute engine: views of every shape, on stores of choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Int64, Map, String, UnixTimestamp

START = datetime(2024, 3, 1, tzinfo=UTC)
END = START + timedelta(days=10)
MOMENT = pa.timestamp("us", tz="UTC")
ENGINE = "feature_repo.stores.engine.compute_engine.ArrowComputeEngine"
ASOF = "feature_repo.stores.offline.asof_store.AsofOfflineStore"
PACKED_SQLITE = "feature_repo.stores.sqlite.packed_store.PackedSqliteOnlineStore"
PACKED_REDIS = "feature_repo.stores.redis.packed_store.PackedRedisOnlineStore"
PACKED_MILVUS = "feature_repo.stores.milvus.packed_store.PackedMilvusOnlineStore"
REGISTRY = "feature_repo.stores.sqlite.registry.SqliteRegistryStore"
DIM = 3

PIN = Entity(name="pin", join_keys=["pin_id"], value_type=ValueType.INT64)
CITY = Entity(name="city", join_keys=["city"], value_type=ValueType.STRING)


def hours(count: float) -> datetime:
    return START + timedelta(hours=count)


def open_repo(
    folder: Path,
    views: Sequence[Any],
    *,
    engine: dict[str, Any] | str | None = None,
    offline: str | dict[str, Any] = ASOF,
    online: str | dict[str, Any] = PACKED_SQLITE,
    registry: dict[str, Any] | None = None,
) -> FeatureStore:
    """A store with the views applied; the engine is ours, with chunks of two rows, unless told otherwise."""
    in_file = {"type": online, "path": str(folder / "data" / "online.db")}
    settings: dict[str, Any] = {
        "project": "engine",
        "provider": "local",
        "registry": {"path": str(folder / "data" / "registry.db"), **(registry or {})},
        "offline_store": {"type": offline} if isinstance(offline, str) else offline,
        "online_store": in_file if isinstance(online, str) else online,
        "batch_engine": engine or {"type": ENGINE, "chunk_rows": 2},
        "entity_key_serialization_version": 3,
    }
    (folder / "data").mkdir(parents=True, exist_ok=True)
    store = FeatureStore(config=RepoConfig(**settings, repo_path=folder))
    store.apply([PIN, CITY, *views])
    return store


def source(folder: Path, name: str, **options: Any) -> FileSource:
    """Source of a view: a folder of parquet files."""
    path = folder / "data" / name
    path.mkdir(parents=True, exist_ok=True)
    created = {"created_timestamp_column": "created_timestamp"}
    return FileSource(
        name=f"{name}_source",
        path=str(path),
        file_format=ParquetFormat(),
        **{"timestamp_field": "event_timestamp", **created, **options},
    )


def vector_view(folder: Path, name: str = "vectors", **options: Any) -> FeatureView:
    """Pins with a vector of `DIM`, a count and a text."""
    vector = Field(name="embedding", dtype=Array(Float32), vector_index=True, vector_length=DIM)
    schema = [
        Field(name="pin_id", dtype=Int64),
        vector,
        Field(name="count", dtype=Int64),
        Field(name="label", dtype=String),
    ]
    return FeatureView(name=name, entities=[PIN], schema=schema, source=source(folder, name), **options)


def write_vectors(folder: Path, rows: Iterable[dict[str, Any]], file: str = "a", name: str = "vectors") -> Path:
    """Rows of `vector_view` as one file."""
    types = {"embedding": pa.list_(pa.float32()), "count": pa.int64(), "label": pa.string()}
    return write(folder, name, {"pin_id": pa.int64(), **types}, rows, file)


def write(
    folder: Path, name: str, types: dict[str, pa.DataType], rows: Iterable[dict[str, Any]], file: str = "a"
) -> Path:
    """Rows as one file of a view; absent values are null, absent times are `START`."""
    filled = [{"event_timestamp": START, "created_timestamp": START, **row} for row in rows]
    schema = pa.schema({**types, "event_timestamp": MOMENT, "created_timestamp": MOMENT})
    path = folder / "data" / name / f"{file}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(filled, schema), path, row_group_size=4)
    return path


def vectors(count: int, at: datetime = START, first: int = 0) -> list[dict[str, Any]]:
    """Rows with keys from `first` on."""
    return [
        {
            "pin_id": key,
            "embedding": [float(key), 0.5, -1.0],
            "count": 10 * key,
            "label": f"pin {key}",
            "event_timestamp": at,
        }
        for key in range(first, first + count)
    ]


def read(store: FeatureStore, view: str, rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """What the online store answers for entity rows, per feature."""
    features = [f"{view}:{field.name}" for field in store.get_feature_view(view).features]
    answer: dict[str, list[Any]] = store.get_online_features(features, list(rows)).to_dict()
    return answer


def pins(count: int) -> list[dict[str, Any]]:
    return [{"pin_id": key} for key in range(count)]


def mapped_view(folder: Path) -> FeatureView:
    """A view whose files name everything otherwise, with two join keys and no TTL."""
    renamed = {"pid": "pin_id", "town": "city", "n": "visits"}
    schema = [Field(name="pin_id", dtype=Int64), Field(name="city", dtype=String), Field(name="visits", dtype=Int64)]
    mapped = source(folder, "mapped", field_mapping=renamed, timestamp_field="seen_at", created_timestamp_column="")
    return FeatureView(name="mapped", entities=[PIN, CITY], schema=schema, source=mapped, ttl=timedelta(0))


def write_mapped(folder: Path, rows: Iterable[tuple[int, str, int, datetime]]) -> None:
    types = {"pid": pa.int64(), "town": pa.string(), "n": pa.int64(), "seen_at": MOMENT}
    named = [dict(zip(types, row, strict=True)) for row in rows]
    path = folder / "data" / "mapped" / "a.parquet"
    pq.write_table(pa.Table.from_pylist(named, pa.schema(types)), path)


def entityless_view(folder: Path) -> FeatureView:
    """One row for everyone, with a map and a moment."""
    schema = [
        Field(name="total", dtype=Int64),
        Field(name="extra", dtype=Map),
        Field(name="since", dtype=UnixTimestamp),
    ]
    return FeatureView(name="everyone", entities=[], schema=schema, source=source(folder, "everyone"), ttl=timedelta(0))


def pushed_view(folder: Path) -> FeatureView:
    """A view that also takes pushes."""
    pushed = PushSource(name="pushed", batch_source=source(folder, "counts"))
    schema = [Field(name="pin_id", dtype=Int64), Field(name="count", dtype=Int64)]
    return FeatureView(name="counts", entities=[PIN], schema=schema, source=pushed, ttl=timedelta(0))
