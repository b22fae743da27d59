"""A small Feast repo of any views on the as-of store, or on Feast's own DuckDB store, with files that tests write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.data_format import ParquetFormat
from feast.types import Int64

START = datetime(2024, 3, 1, tzinfo=UTC)
MOMENT = pa.timestamp("us", tz="UTC")
ASOF = {"type": "feature_repo.stores.offline.asof_store.AsofOfflineStore"}
SHOP = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)
SHELF = Entity(name="shelf", join_keys=["shelf_id"], value_type=ValueType.INT64)


def hours(count: float) -> datetime:
    """Moment `count` hours after the start of the test data."""
    return START + timedelta(hours=count)


def open_repo(folder: Path, **options: Any) -> FeatureStore:
    """An empty repo; `options` go into its offline store."""
    config = RepoConfig(
        project="shops",
        provider="local",
        registry=str(folder / "registry.db"),
        offline_store={**ASOF, **options},
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
        coerce_tz_aware=False,
        repo_path=folder,
    )
    return FeatureStore(config=config)


def source(path: Path | str, name: str = "sales_source", **options: Any) -> FileSource:
    """Source of a folder, file or glob."""
    return FileSource(
        name=name,
        path=str(path),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        **options,
    )


def sales_view(
    path: Path | str,
    entities: Sequence[Entity] = (SHOP,),
    features: Mapping[str, Any] | None = None,
    ttl: timedelta = timedelta(hours=48),
    name: str = "sales",
) -> FeatureView:
    """View of some entities with one feature `sold`, or with others."""
    fields = [Field(name=feature, dtype=kind) for feature, kind in (features or {"sold": Int64}).items()]
    return FeatureView(
        name=name, entities=list(entities), ttl=ttl, schema=fields, source=source(path, f"{name}_source")
    )


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType] | None = None) -> Path:
    """Write rows with `at` and `written` hours as timestamps; other types are inferred unless given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [name for name in (rows[0] if rows else {}) if name not in ("at", "written")]
    columns = {name: pa.array([row[name] for row in rows], (types or {}).get(name)) for name in names}
    for name, hour in (("event_timestamp", "at"), ("created_timestamp", "written")):
        moments = [None if row.get(hour) is None else hours(row[hour]) for row in rows]
        columns[name] = pa.array(moments, MOMENT)
    pq.write_table(pa.table(columns), path)
    return path


def entities(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Entity rows with their `at` hours as event_timestamp."""
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0] if name != "at"}
    return pa.table({**columns, "event_timestamp": pa.array([hours(row["at"]) for row in rows], MOMENT)})


def joined(store: FeatureStore, rows: Any, feature: str = "sales:sold", **options: Any) -> list[Any]:
    """Values of one feature for entity rows."""
    table = store.get_historical_features(rows, [feature], **options).to_arrow()
    values: list[Any] = table[feature.split(":")[1]].to_pylist()
    return values
