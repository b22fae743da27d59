"""Which key of an online request is not of its declared type; Feast says only what Python or protobuf made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from feast import FeatureView, ValueType, utils
from feast.type_map import python_values_to_proto_values

WRONG_TYPE = (TypeError, ValueError)
"""Errors of Feast's conversion of keys, among others."""


def refuse_wrong_keys(
    error: BaseException, features: Any, entity_rows: Any, registry: Any, project: str, *_: Any, **__: Any
) -> None:
    """Return only if all keys of a request that failed can be converted.

    Args:
        error: Why it failed.

    Raises:
        ValueError: A key is not of the declared type; with view, key and value.
    """
    views, _on_demand = utils._get_feature_views_to_use(registry, project, features, allow_cache=True)
    for view in views:
        for name, kind in _asked_names(view):
            for value in _values(entity_rows, name):
                if not _fits(value, kind):
                    raise ValueError(
                        f"join key {name} of feature view {view.name} must be {kind.name} (got {value!r})"
                    ) from error


def _asked_names(view: FeatureView) -> Iterator[tuple[str, ValueType]]:
    """Join keys as a caller names them, with their declared types."""
    for column in getattr(view, "entity_columns", ()):
        yield view.projection.join_key_map.get(column.name, column.name), column.dtype.to_value_type()


def _values(entity_rows: Any, name: str) -> list[Any]:
    if isinstance(entity_rows, Mapping):
        values = entity_rows.get(name, ())
        # Feast's own messages are of a type already.
        return list(values) if isinstance(values, Sequence) else []
    return [row[name] for row in entity_rows if name in row]


def _fits(value: Any, kind: ValueType) -> bool:
    """Whether Feast makes something of it; a null is told elsewhere."""
    try:
        (converted,) = python_values_to_proto_values([value], kind)
    except WRONG_TYPE:
        return False
    return value is None or converted.WhichOneof("val") is not None
