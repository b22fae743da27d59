"""Small feature repos with rows that tests write by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_repo.contract import AttributeField, EmbeddingVersion, RepoManifest, activity_fields

START = datetime(2024, 3, 1, tzinfo=UTC)
DIM = 4
MOMENT = pa.timestamp("us", tz="UTC")

MANIFEST = RepoManifest(
    dataset="handmade",
    labels=("click",),
    conversions=(),
    windows_days=(1,),
    sequence_length=3,
    user_attributes=(),
    pin_attributes=(
        AttributeField(name="topic", kind="categorical", type="string"),
        AttributeField(name="quality", kind="dense", type="float"),
    ),
    histories=("before",),
    embeddings=(
        EmbeddingVersion(model="ctr", version=1, dim=DIM, ttl_hours=48),
        EmbeddingVersion(model="cvr", version=1, dim=DIM, ttl_hours=48),
    ),
    activity_ttl_hours=48,
)

_ACTIVITY_TYPES = {
    "int64": pa.int64(),
    "float": pa.float64(),
    "int64_list": pa.list_(pa.int64()),
    "float_list": pa.list_(pa.float32()),
    "string_list": pa.list_(pa.string()),
}


def hours(count: float) -> datetime:
    """Moment `count` hours after the start of the test data."""
    return START + timedelta(hours=count)


def activity_schema(entity: str) -> pa.Schema:
    """Schema of an activity snapshot of `MANIFEST`."""
    fields = [(name, _ACTIVITY_TYPES[kind]) for name, kind in activity_fields(MANIFEST, entity).items()]
    return _schema(entity, fields)


def embedding_schema(entity: str) -> pa.Schema:
    """Schema of an embedding snapshot."""
    return _schema(entity, [("embedding", pa.list_(pa.float32())), ("data_cutoff", MOMENT)])


def attributes_schema() -> pa.Schema:
    """Schema of the Pin attributes of `MANIFEST`."""
    return _schema("pin", [("topic", pa.string()), ("quality", pa.float64())])


def history_schema() -> pa.Schema:
    """Schema of a long user history."""
    return _schema("user", [("pin_ids", pa.list_(pa.int64()))])


def _schema(entity: str, fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    times = [("event_timestamp", MOMENT), ("created_timestamp", MOMENT)]
    return pa.schema([(f"{entity}_id", pa.int64()), *times, *fields])


def write_snapshot(repo: Path, view: str, name: str, schema: pa.Schema, rows: Sequence[dict[str, Any]]) -> Path:
    """Write `rows` as one snapshot file of a view; absent columns are null."""
    folder = repo / "data" / "offline" / view
    folder.mkdir(parents=True, exist_ok=True)
    columns = {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema}
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(columns, schema=schema), path)
    return path


def write_all(repo: Path, *, first: datetime = START, days: int = 2) -> None:
    """Snapshots of every view of `MANIFEST`: users 1 and 2, Pins 10 and 11, one file a day, an hour after each cut-off.

    On day `d` the entity with key `k` has `impressions_1d = 100 * d + k` and the vector `[k, d, 0, 1]`.
    """
    for entity, keys in (("user", (1, 2)), ("pin", (10, 11))):
        for day in range(days):
            _write_day(repo, entity, keys, first + timedelta(days=day), day)
    rows = [
        {"pin_id": 10, "topic": "food", "quality": 0.5},
        {"pin_id": 11, "topic": None, "quality": None},
    ]
    stamped = [{**row, "event_timestamp": first, "created_timestamp": first} for row in rows]
    write_snapshot(repo, "pin_attributes", "all", attributes_schema(), stamped)
    history = {"user_id": 1, "pin_ids": [11, 10], "event_timestamp": first, "created_timestamp": first}
    write_snapshot(repo, "user_history_before", "all", history_schema(), [history])


def _write_day(repo: Path, entity: str, keys: Sequence[int], cutoff: datetime, day: int) -> None:
    usable = cutoff + timedelta(hours=1)
    stamp = {"event_timestamp": usable, "created_timestamp": usable}
    name = f"date={cutoff:%Y-%m-%d}"
    activity = [{f"{entity}_id": key, "impressions_1d": 100 * day + key, **stamp} for key in keys]
    write_snapshot(repo, f"{entity}_activity", name, activity_schema(entity), activity)
    for model in ("ctr", "cvr"):
        vectors = [
            {f"{entity}_id": key, "embedding": [float(key), float(day), 0.0, 1.0], "data_cutoff": cutoff, **stamp}
            for key in keys
        ]
        write_snapshot(repo, f"{entity}_embedding_{model}_v1", name, embedding_schema(entity), vectors)
