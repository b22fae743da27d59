"""Vector and text search in a view's collection, with filters, and never a row outside max age.

Source: the order of answers and their form are those of Feast's `retrieve_online_documents_v2`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from numbers import Real
from typing import Any, TypeAlias

from feast import FeatureView, ValueType
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.infra.key_encoding_utils import deserialize_entity_key
from feast.infra.online_stores.milvus_online_store.milvus import MilvusFilterTranslator, _milvus_escape_string
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo.stores.milvus.rows import stored_values
from feature_repo.stores.milvus.schema import EVENT_FIELD, Column, metric_name, primary_key
from feature_repo.stores.packed.rows import KEY_VERSION
from feature_repo.stores.packed.times import to_datetime, to_micros

Filters: TypeAlias = ComparisonFilter | CompoundFilter | None
Document: TypeAlias = tuple[datetime, EntityKey, dict[str, Value]]
FEAST_DEFAULT_METRIC = "L2"
"""What Feast asks for when neither the caller nor the field names a metric."""
_COMPARED: dict[ValueType, type] = {ValueType.STRING: str, ValueType.BOOL: bool}
"""Python types of a filter's values by the type of the field; numbers for all others."""
RANK_KEY = "search_rank"
"""Goes first among the join keys of an answer: 1 for the nearest.

Feast orders what it shows of a search by join keys, but the join keys themselves by nearness, so that a Pin's id stands
beside another Pin's features. With the rank as first key both orders are the same.
"""
MAX_TOP_K = 16_384
"""Milvus answers no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRequest:
    """What `retrieve_online_documents_v2` was asked."""

    view: FeatureView
    names: Sequence[str]
    """Features to answer with."""
    top_k: int
    vector: Sequence[float] | None
    text: str | None
    metric: str | None
    """Metric that the caller expects."""
    filters: Filters

    def check(self) -> None:
        """Raise `ValueError` for a request that no collection can answer."""
        if not 0 < self.top_k <= MAX_TOP_K:
            raise ValueError(f"top_k must be from 1 to {MAX_TOP_K} (got {self.top_k})")
        if self.vector is None and self.text is None:
            raise ValueError(
                f"a search in feature view {self.view.name} must have an embedding or a text (got neither)"
            )


def vector_field(request: SearchRequest, columns: Sequence[Column], metrics: dict[str, str]) -> str:
    """Vector that is searched: the requested one, or without any the view's only one.

    Args:
        metrics: Metric of each vector's index.

    Raises:
        ValueError: There is no such field, or the query or the expected metric does not fit it.
    """
    vectors = {column.name: column.dim for column in columns if column.dim}
    asked = [name for name in request.names if name in vectors] or list(vectors)
    if len(asked) != 1:
        raise ValueError(
            f"a search in feature view {request.view.name} must name one of its vectors "
            f"(got {asked or list(request.names)}); vectors are fields with vector_index and vector_length"
        )
    (name,) = asked
    vector = request.vector or ()
    if len(vector) != vectors[name] or not all(math.isfinite(number) for number in vector):
        odd = [number for number in vector if not math.isfinite(number)]
        raise ValueError(
            f"a query for {name} of feature view {request.view.name} must be {vectors[name]} finite numbers "
            f"(got {len(vector)} of them{f', {odd[0]} among them' if odd else ''})"
        )
    if request.metric and metric_name(request.metric) not in (metrics[name], FEAST_DEFAULT_METRIC):
        raise ValueError(
            f"distance_metric of feature view {request.view.name} must be {metrics[name]}, that of its index "
            f"(got {request.metric!r})"
        )
    return name


def search_expression(request: SearchRequest, columns: Sequence[Column], now: int, *, stands: bool) -> str:
    """Milvus' expression of the rows that may be answered; empty for all.

    Raises:
        ValueError: A filter or the text does not fit the view.
    """
    view = request.view
    text = "" if request.text is None else text_expression(view, request.names, request.text)
    age = age_expression(view, now, stands=stands)
    parts = [age, text, filter_expression(view, columns, request.filters)]
    return " and ".join(f"({each})" for each in parts if each)


def text_expression(view: FeatureView, requested: Sequence[str], text: str) -> str:
    """Rows in which a requested text feature contains `text`.

    Raises:
        ValueError: No text feature is requested.
    """
    names = [field.name for field in view.features if field.dtype.to_value_type() == ValueType.STRING]
    searched = [name for name in names if name in requested]
    if not searched:
        raise ValueError(
            f"a search by text in feature view {view.name} must request one of its text features {names} "
            f"(got {list(requested)})"
        )
    # Wildcards of `like` are meant literally.
    escaped = re.sub("([%_])", r"\\\\\1", _milvus_escape_string(text))
    return " or ".join(f"{name} like '%{escaped}%'" for name in searched)


def filter_expression(view: FeatureView, columns: Sequence[Column], filters: Filters) -> str:
    """Feast's filters as Milvus' expression; moments are compared as microseconds.

    Raises:
        ValueError: A filter names no feature or join key, or one that is stored encoded.
    """
    if filters is None:
        return ""
    comparable = {column.name: column for column in columns if not column.dim and not column.is_encoded}
    return MilvusFilterTranslator().translate(_translated(view, comparable, filters)) or ""


def _translated(
    view: FeatureView, comparable: dict[str, Column], filters: ComparisonFilter | CompoundFilter
) -> ComparisonFilter | CompoundFilter:
    if isinstance(filters, CompoundFilter):
        return CompoundFilter(
            type=filters.type, filters=[_translated(view, comparable, each) for each in filters.filters]
        )
    if filters.key not in comparable:
        raise ValueError(
            f"a filter on feature view {view.name} must name one of {sorted(comparable)} (got {filters.key!r})"
        )
    values = filters.value if isinstance(filters.value, list) else [filters.value]
    kind = comparable[filters.key].kind
    if kind != ValueType.UNIX_TIMESTAMP:
        _check_values(view, filters.key, kind, values)
        return filters
    moments = [_moment_micros(value) for value in values]
    value: Any = moments if isinstance(filters.value, list) else moments[0]
    return ComparisonFilter(type=filters.type, key=filters.key, value=value)


def _check_values(view: FeatureView, key: str, kind: ValueType, values: Sequence[Any]) -> None:
    """Raise for values that Milvus could not compare with the field."""
    wanted = _COMPARED.get(kind, Real)
    odd = [
        value for value in values if not isinstance(value, wanted) or isinstance(value, bool) is not (wanted is bool)
    ]
    if odd:
        raise ValueError(
            f"a filter on {key} of feature view {view.name} must compare it with values of {kind.name} (got {odd[0]!r})"
        )


def _moment_micros(value: Any) -> int:
    """A moment in a filter: a datetime or ISO 8601 text, or seconds of Unix time as Feast's values hold them."""
    if isinstance(value, datetime):
        return to_micros(value)
    if isinstance(value, str):
        return to_micros(datetime.fromisoformat(value))
    return round(float(value) * 1_000_000)


def age_expression(view: FeatureView, now: int, *, stands: bool) -> str:
    """Rows that may be used: not outside max age and, unless time stands still, not from the future."""
    parts = [] if stands else [f"{EVENT_FIELD} <= {now}"]
    ttl = getattr(view, "ttl", None)
    if ttl:
        parts.append(f"{EVENT_FIELD} >= {now - int(ttl.total_seconds() * 1_000_000)}")
    return " and ".join(parts)


def wide_enough(parameters: dict[str, Any], top_k: int) -> dict[str, Any]:
    """Search parameters with which HNSW looks at no fewer candidates than it is to answer."""
    return {**parameters, "ef": max(int(parameters["ef"]), top_k)} if "ef" in parameters else parameters


def documents(view: FeatureView, columns: Sequence[Column], hits: Sequence[Any]) -> list[Document]:
    """Event timestamp, entity key and values of each hit, in their order."""
    entities = [hit["entity"] for hit in hits]
    cells = [stored_values(column, [entity[column.name] for entity in entities]) for column in columns]
    found = []
    for at, (hit, entity) in enumerate(zip(hits, entities, strict=True)):
        values = {column.name: Value.FromString(cell[at]) for column, cell in zip(columns, cells, strict=True)}
        distance = hit.get("distance")
        values["distance"] = Value() if distance is None else Value(float_val=distance)
        key = deserialize_entity_key(bytes.fromhex(entity[primary_key(view)]), KEY_VERSION)
        ranked = EntityKey(
            join_keys=[RANK_KEY, *key.join_keys], entity_values=[Value(int64_val=at + 1), *key.entity_values]
        )
        found.append((to_datetime(entity[EVENT_FIELD]), ranked, values))
    return found
