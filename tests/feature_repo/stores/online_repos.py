"""Feature repos of the online contract: every type, two embedding versions, string and composite keys."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import (
    Array,
    Bool,
    Bytes,
    Decimal,
    FeastType,
    Float32,
    Float64,
    Int32,
    Int64,
    Json,
    Map,
    Set,
    String,
    Struct,
    UnixTimestamp,
    Uuid,
)

MOMENT = pa.timestamp("us", tz="UTC")
NOON = dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC)
TTL = dt.timedelta(days=2)
DIMS = {"pin_embedding_ctr_v1": 4, "pin_embedding_ctr_v2": 8}
"""Widths of two embedding versions side by side."""

_fresh = itertools.count(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TypeCase:
    """A Feast type, a column of it, and what a Feast client must read back."""

    kind: FeastType
    column: pa.Array
    read: list[Any]


def _case(
    kind: FeastType, values: list[Any], arrow: pa.DataType | None = None, read: list[Any] | None = None
) -> TypeCase:
    return TypeCase(kind=kind, column=pa.array(values, arrow), read=values if read is None else read)


_UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
TYPES: dict[str, TypeCase] = {
    "int32": _case(Int32, [-7, None, 2**31 - 1], pa.int32()),
    "int64": _case(Int64, [-(2**63), None, 300], pa.int64()),
    "float32": _case(Float32, [0.5, None, -0.0], pa.float32()),
    "float64": _case(Float64, [0.1, None, 0.0], pa.float64()),
    "boolean": _case(Bool, [True, None, False], pa.bool_()),
    "string": _case(String, ["é" * 100, None, ""], pa.string()),
    "binary": _case(Bytes, [b"\x00\xff", None, b""], pa.binary()),
    "moment": _case(UnixTimestamp, [NOON, None, dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=dt.UTC)], MOMENT),
    "float32_list": _case(Array(Float32), [[0.5, -1.0], None, []], pa.list_(pa.float32())),
    "float64_list": _case(Array(Float64), [[0.1] * 20, None, [2.0]], pa.list_(pa.float64())),
    "int32_list": _case(Array(Int32), [[-1, 2], None, []], pa.list_(pa.int32())),
    "int64_list": _case(Array(Int64), [[2**62, -1, 0], None, [5]], pa.list_(pa.int64())),
    "boolean_list": _case(Array(Bool), [[True, False], None, []], pa.list_(pa.bool_())),
    "string_list": _case(Array(String), [["a", "", "ü"], None, []], pa.list_(pa.string())),
    "binary_list": _case(Array(Bytes), [[b"a", b""], None, []], pa.list_(pa.binary())),
    "moment_list": _case(Array(UnixTimestamp), [[NOON], None, []], pa.list_(MOMENT)),
    "int64_set": _case(Set(Int64), [[1, 2], None, [3]], pa.list_(pa.int64()), read=[{1, 2}, None, {3}]),
    "string_map": _case(Map, [{"a": "b"}, None, {}], pa.map_(pa.string(), pa.string()), read=[{"a": "b"}, None, {}]),
    "json": _case(Json, ['{"a": [1]}', None, "2"], pa.string(), read=[{"a": [1]}, None, 2]),
    "decimal": _case(Decimal, [decimal.Decimal("1.50"), None, decimal.Decimal("-2.00")], pa.decimal128(9, 2)),
    "uuid": _case(Uuid, [str(_UUID), None, str(_UUID)], pa.string(), read=[_UUID, None, _UUID]),
    "struct": _case(Struct({"x": Int64}), [{"x": 4}, None, {"x": 5}], pa.struct([("x", pa.int64())])),
}
"""Every shape of value that Feast stores, with a null in the middle."""

_PIN = Entity(name="pin", join_keys=["pin_id"], value_type=ValueType.INT64)
_SURFACE = Entity(name="surface", join_keys=["surface"], value_type=ValueType.STRING)
_SOURCE = FileSource(
    path="unused.parquet", timestamp_field="event_timestamp", created_timestamp_column="created_timestamp"
)
_PIN_KEY, _SURFACE_KEY = Field(name="pin_id", dtype=Int64), Field(name="surface", dtype=String)


def _view(name: str, entities: list[Entity], fields: list[Field], ttl: dt.timedelta | None = None) -> FeatureView:
    return FeatureView(name=name, entities=entities, schema=fields, source=_SOURCE, ttl=ttl)


def _embedding(name: str, dim: int) -> FeatureView:
    vector = Field(name="embedding", dtype=Array(Float32), vector_index=True, vector_length=dim)
    fields = [_PIN_KEY, vector, Field(name="clicks", dtype=Int64), Field(name="rate", dtype=Float64)]
    return _view(name, [_PIN], fields, TTL)


def objects(types: Sequence[str]) -> list[Any]:
    """Feast objects of the contract's repo, with `types` in the view `every_type`."""
    fields = [Field(name=name, dtype=TYPES[name].kind) for name in types]
    views = [_embedding(name, dim) for name, dim in DIMS.items()]
    return [
        _PIN,
        _SURFACE,
        *views,
        _view("every_type", [_PIN], [_PIN_KEY, *fields]),
        _view("by_surface", [_SURFACE], [_SURFACE_KEY, Field(name="clicks", dtype=Int64)]),
        _view("by_pair", [_PIN, _SURFACE], [_PIN_KEY, _SURFACE_KEY, Field(name="clicks", dtype=Int64)]),
        FeatureService(name="both", features=views),
    ]


def feature_store(folder: Path, online_store: dict[str, Any]) -> FeatureStore:
    """Feast's client of the repo in `folder`, on the given online store."""
    config = RepoConfig(
        project="contract",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store=online_store,
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    return FeatureStore(config=config)


def new_ids(count: int) -> npt.NDArray[np.int64]:
    """Keys that no other test uses: tests share a store."""
    return np.arange(count) + next(_fresh) * 1_000_000


def embedding_rows(
    view: str,
    ids: Sequence[int] | npt.NDArray[np.int64],
    *,
    value: float = 1.0,
    at: dt.datetime | Sequence[dt.datetime] = NOON,
    created: dt.datetime | Sequence[dt.datetime] | None = None,
) -> pa.Table:
    """Rows of an embedding version: the vector is `value` throughout, `clicks` its whole part, `rate` its half."""
    num_rows, dim = len(ids), DIMS[view]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.full(num_rows * dim, value, np.float32)), dim)
    columns = {
        "pin_id": pa.array(ids, pa.int64()),
        "embedding": vectors.cast(pa.list_(pa.float32())),
        "clicks": pa.array([int(value)] * num_rows, pa.int64()),
        "rate": pa.array([value / 2] * num_rows, pa.float64()),
        "event_timestamp": _moments(at, num_rows),
    }
    if created is not None:
        columns["created_timestamp"] = _moments(created, num_rows)
    return pa.table(columns)


def _moments(at: dt.datetime | Sequence[dt.datetime], num_rows: int) -> pa.Array:
    return pa.array([at] * num_rows if isinstance(at, dt.datetime) else list(at), MOMENT)


def write(store: FeatureStore, view: str, table: pa.Table) -> int:
    """Write a table through the packed path."""
    written: int = store._get_provider().online_store.write_table(store.config, store.get_feature_view(view), table)
    return written
