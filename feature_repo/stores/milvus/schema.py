"""How a feature view becomes a Milvus collection: one collection, and one vector width, per view.

Scalars keep their types, so that filters compare numbers as numbers; moments are INT64 microseconds of Unix time. What
Milvus has no type for (lists, maps, bytes, …) is Feast's serialised `Value` in base64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from feast import FeatureView, Field, ValueType
from feast.infra.online_stores.milvus_online_store.milvus import PLACEHOLDER_VECTOR_DIM, PLACEHOLDER_VECTOR_FIELD
from pymilvus import CollectionSchema, DataType, FieldSchema
from pymilvus.milvus_client.index import IndexParams

from feature_repo.stores.packed.checks import is_vector
from feature_repo.stores.packed.encode import ARROW_TYPES, PACKED_WIDTHS

EVENT_FIELD, CREATED_FIELD = "event_ts", "created_ts"
"""Fields of every collection, as in Feast's own store."""
NATIVE = {
    ValueType.BOOL: DataType.BOOL,
    ValueType.INT32: DataType.INT32,
    ValueType.INT64: DataType.INT64,
    ValueType.FLOAT: DataType.FLOAT,
    ValueType.DOUBLE: DataType.DOUBLE,
    ValueType.STRING: DataType.VARCHAR,
    ValueType.UNIX_TIMESTAMP: DataType.INT64,
}
"""Types that are stored as they are."""
LITE_INDEXES = ("FLAT", "AUTOINDEX", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8")
"""Indexes that milvus-lite builds; others it takes and then searches without one, or not at all."""
_METRICS = {"INNER_PRODUCT": "IP", "DOT": "IP", "EUCLIDEAN": "L2"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A feature or join key of a view in its collection."""

    name: str
    kind: ValueType
    """Declared type."""
    dim: int
    """Width of a vector that is searched; 0 for everything else."""

    @property
    def data_type(self) -> DataType:
        """Milvus' type."""
        return DataType.FLOAT_VECTOR if self.dim else NATIVE.get(self.kind, DataType.VARCHAR)

    @property
    def is_encoded(self) -> bool:
        """Whether it is stored as Feast's serialised `Value`."""
        return not self.dim and self.kind not in NATIVE

    @property
    def arrow_type(self) -> pa.DataType:
        """Type of the Arrow column that is written."""
        return ARROW_TYPES[self.kind]


def primary_key(view: FeatureView) -> str:
    """Field with the entity key, serialised by Feast and hexadecimal."""
    return "_".join(field.name for field in view.entity_columns) + "_pk"


def feature_columns(view: FeatureView, default_dim: int) -> list[Column]:
    """A column per feature, in the view's order."""
    return [_column(field, default_dim) for field in view.features]


def key_columns(view: FeatureView) -> list[Column]:
    """A column per join key, for filters."""
    return [Column(name=field.name, kind=field.dtype.to_value_type(), dim=0) for field in view.entity_columns]


def _column(field: Field, default_dim: int) -> Column:
    kind = field.dtype.to_value_type()
    is_searched = is_vector(field) and kind in PACKED_WIDTHS
    return Column(name=field.name, kind=kind, dim=(field.vector_length or default_dim) if is_searched else 0)


def collection_schema(view: FeatureView, columns: Sequence[Column], max_length: int) -> CollectionSchema:
    """Schema of a view's collection.

    Args:
        columns: Features and join keys.
        max_length: Bytes of the longest text.
    """
    fields = [
        FieldSchema(name=primary_key(view), dtype=DataType.VARCHAR, max_length=max_length, is_primary=True),
        FieldSchema(name=EVENT_FIELD, dtype=DataType.INT64),
        FieldSchema(name=CREATED_FIELD, dtype=DataType.INT64),
        *(_field(column, max_length) for column in columns),
    ]
    if not any(column.dim for column in columns):
        # Milvus wants a vector in every collection.
        fields.append(
            FieldSchema(name=PLACEHOLDER_VECTOR_FIELD, dtype=DataType.FLOAT_VECTOR, dim=PLACEHOLDER_VECTOR_DIM)
        )
    return CollectionSchema(fields=fields, description=f"Feast feature view {view.name}")


def _field(column: Column, max_length: int) -> FieldSchema:
    if column.dim:
        return FieldSchema(name=column.name, dtype=column.data_type, dim=column.dim)
    if column.data_type == DataType.VARCHAR:
        return FieldSchema(name=column.name, dtype=column.data_type, max_length=max_length, nullable=True)
    return FieldSchema(name=column.name, dtype=column.data_type, nullable=True)


def index_parameters(
    schema: CollectionSchema, metrics: dict[str, str], index_type: str, params: dict[str, Any], *, is_lite: bool
) -> IndexParams:
    """An index for every vector: the configured one where it is searched, else an exact one that costs nothing.

    Raises:
        ValueError: milvus-lite has no such index.
    """
    if is_lite and index_type not in LITE_INDEXES:
        raise ValueError(f"index_type must be one of {LITE_INDEXES} on milvus-lite (got {index_type!r})")
    found = IndexParams()
    for field in schema.fields:
        if field.dtype != DataType.FLOAT_VECTOR:
            continue
        is_searched = field.name in metrics
        found.add_index(
            field_name=field.name,
            index_name=f"vector_index_{field.name}",
            index_type=index_type if is_searched else "FLAT",
            metric_type=metrics.get(field.name, "L2"),
            params=params if is_searched else {},
        )
        if is_lite and is_searched:
            # pymilvus sends each parameter by itself; milvus-lite reads only the ones under `params`.
            found[-1].get_index_configs()["params"] = params
    return found


def vector_metrics(view: FeatureView, columns: Sequence[Column], default: str) -> dict[str, str]:
    """Metric of each vector that is searched, as Milvus names it: the field's own, else the store's."""
    own = {field.name: field.vector_search_metric for field in view.features}
    return {column.name: metric_name(own[column.name] or default) for column in columns if column.dim}


def metric_name(name: str) -> str:
    """Milvus' name of a metric: COSINE, IP or L2."""
    upper = name.upper()
    return _METRICS.get(upper, upper)


def differences(stored: Sequence[dict[str, Any]], wanted: CollectionSchema) -> list[str]:
    """In what a collection that is there differs from the one that a view needs."""
    held = {field["name"]: (DataType(field["type"]), _dim(field["params"])) for field in stored}
    needed = {field.name: (field.dtype, _dim(field.params)) for field in wanted.fields}
    found = [f"lacks {name}" for name in needed if name not in held]
    for name, (kind, dim) in needed.items():
        if name in held and held[name] != (kind, dim):
            found.append(f"has {name} as {_described(*held[name])} instead of {_described(kind, dim)}")
    return found


def _dim(params: dict[str, Any]) -> int:
    return int(params.get("dim", 0))


def _described(kind: DataType, dim: int) -> str:
    return f"{kind.name}({dim})" if dim else kind.name
