"""Checks of Feast's protobuf rows before they are stored: what a table's vectors must be, theirs must be too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from feast import FeatureView, Field

from feature_repo.stores.online.errors import PackedWriteError
from feature_repo.stores.packed.checks import is_vector

_LISTS = ("float_list_val", "double_list_val")


def check_vectors(view: FeatureView, data: Sequence[Any]) -> None:
    """Refuse declared vectors that are null, of another width or not finite.

    Args:
        data: Entity key, values by feature, and timestamps of each row.

    Raises:
        PackedWriteError: One is; the text names view, key and value.
    """
    for field in (each for each in view.features if is_vector(each)):
        for key, values, *_ in data:
            if field.name in values and (reason := _fault(field, values[field.name])):
                raise PackedWriteError(
                    f"feature view {view.name} at entity key {_shown(key)}: {reason}; nothing of the rows was written"
                )


def _fault(field: Field, value: Any) -> str:
    kind = value.WhichOneof("val")
    if kind is None:
        return f"vector {field.name} must not be null"
    if kind not in _LISTS:
        return ""
    elements = np.array(getattr(value, kind).val)
    if field.vector_length and len(elements) != field.vector_length:
        return f"vector {field.name} must be {field.vector_length} wide (got {len(elements)})"
    bad = elements[~np.isfinite(elements)]
    return f"elements of {field.name} must be finite (got {bad[0]})" if len(bad) else ""


def _shown(key: Any) -> str:
    values = (getattr(each, str(each.WhichOneof("val"))) for each in key.entity_values)
    return ", ".join(f"{name}={value!r}" for name, value in zip(key.join_keys, values, strict=True))
