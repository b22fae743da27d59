"""Feast repos of the benchmark: the same views on our stores and on Feast's own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Float64, Int64, String

from tests.benchmarks.store_paths.plan import OURS

PROJECT = "bench"
VIEW = "pin_vectors"
USER_VIEW, PIN_VIEW = "users", "pins"
FEATURES = ("embedding", "impressions", "clicks", "rate", "quality", "topic")
"""Features of the view `pin_vectors`."""
MEMORY_LIMIT = "1GB"
"""What DuckDB may hold in our offline store."""
_STORES = "feature_repo.stores"
_ONLINE = {
    "redis": (f"{_STORES}.redis.packed_store.PackedRedisOnlineStore", "redis"),
    "sqlite": (f"{_STORES}.sqlite.packed_store.PackedSqliteOnlineStore", "sqlite"),
    "milvus": (f"{_STORES}.milvus.packed_store.PackedMilvusOnlineStore", "milvus"),
}


def open_repo(
    folder: Path, variant: str, views: Sequence[FeatureView], *, online: dict[str, Any] | None = None
) -> FeatureStore:
    """A store with the views applied, on our plugins or on Feast's."""
    ours = variant == OURS
    offline: dict[str, Any] = {"type": "duckdb"}
    if ours:
        offline = {"type": f"{_STORES}.offline.asof_store.AsofOfflineStore", "memory_limit": MEMORY_LIMIT}
    folder.mkdir(parents=True, exist_ok=True)
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"path": str(folder / "registry.db")},
        offline_store=offline,
        online_store=online or {"type": "sqlite", "path": str(folder / "online.db")},
        batch_engine={"type": f"{_STORES}.engine.compute_engine.ArrowComputeEngine" if ours else "local"},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = FeatureStore(config=config)
    store.apply([*{entity.name: entity for view in views for entity in _entities(view)}.values(), *views])
    return store


def online_settings(name: str, variant: str, folder: Path, dim: int, redis_port: int) -> dict[str, Any]:
    """`online_store` of a repo."""
    settings: dict[str, Any] = {"type": _ONLINE[name][0 if variant == OURS else 1]}
    if name == "redis":
        return {**settings, "connection_string": f"127.0.0.1:{redis_port}"}
    settings["path"] = str(folder / f"{name}.db")
    if name == "milvus":
        width = {} if variant == OURS else {"embedding_dim": dim, "vector_enabled": True}
        settings |= {"index_type": "FLAT", "metric_type": "COSINE", **width}
    return settings


def pin_vectors(path: Path, dim: int) -> FeatureView:
    """A vector and five scalars of each Pin."""
    types = {"impressions": Int64, "clicks": Int64, "rate": Float64, "quality": Float64, "topic": String}
    vector = Field(
        name="embedding",
        dtype=Array(Float32),
        vector_index=True,
        vector_length=dim,
        vector_search_metric="COSINE",
    )
    scalars = [Field(name=name, dtype=kind) for name, kind in types.items()]
    return _view(VIEW, "pin", path, [vector, *scalars], timedelta(days=2))


def history_view(name: str, entity: str, path: Path, ttl_days: int) -> FeatureView:
    """A vector and two scalars of each entity and day."""
    types = {"embedding": Array(Float32), "clicks": Int64, "rate": Float64}
    fields = [Field(name=field, dtype=kind) for field, kind in types.items()]
    return _view(name, entity, path, fields, timedelta(days=ttl_days))


def _view(name: str, entity: str, path: Path, fields: list[Field], ttl: timedelta) -> FeatureView:
    source = FileSource(
        name=f"{name}_source",
        path=str(path),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    key = Entity(name=entity, join_keys=[f"{entity}_id"], value_type=ValueType.INT64)
    schema = [Field(name=f"{entity}_id", dtype=Int64), *fields]
    return FeatureView(name=name, entities=[key], schema=schema, source=source, ttl=ttl)


def _entities(view: FeatureView) -> list[Entity]:
    names = [column.name.removesuffix("_id") for column in view.entity_columns]
    return [Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.INT64) for name in names]
