"""Columns of an online response, lists of protobuf values, as Arrow arrays of the declared type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast.type_map import feast_value_type_to_python_type

# Field of Feast's `Value` message by declared type.
_SCALARS: dict[pa.DataType, str] = {
    pa.int64(): "int64_val",
    pa.int32(): "int32_val",
    pa.float64(): "double_val",
    pa.float32(): "float_val",
    pa.string(): "string_val",
    pa.bool_(): "bool_val",
}
_PACKED: dict[pa.DataType, tuple[str, str]] = {
    pa.list_(pa.float32()): ("float_list_val", "<f4"),
    pa.list_(pa.float64()): ("double_list_val", "<f8"),
}
_LISTS: dict[pa.DataType, str] = {
    pa.list_(pa.int64()): "int64_list_val",
    pa.list_(pa.int32()): "int32_list_val",
    pa.list_(pa.string()): "string_list_val",
}

Mask = npt.NDArray[np.bool_]


def column_array(values: Sequence[Any], kind: pa.DataType, wanted: Mask) -> pa.Array:
    """Values as an array; null where not `wanted` and where the store holds none.

    Args:
        values: Feast `Value` messages.
        wanted: Which of them to hand out.
    """
    if kind in _SCALARS:
        return _scalars(values, kind, wanted, _SCALARS[kind])
    if kind in _PACKED:
        return _packed(values, kind, wanted, *_PACKED[kind])
    if kind in _LISTS:
        return _lists(values, kind, wanted, _LISTS[kind])
    if pa.types.is_timestamp(kind):
        return _moments(values, kind, wanted)
    plain = [
        feast_value_type_to_python_type(value) if keep else None for value, keep in zip(values, wanted, strict=True)
    ]
    return pa.array(plain, kind)


def _scalars(values: Sequence[Any], kind: pa.DataType, wanted: Mask, field: str) -> pa.Array:
    found = [
        getattr(value, field) if keep and value.HasField(field) else None
        for value, keep in zip(values, wanted, strict=True)
    ]
    # Feast's materialize goes through pandas, which turns a null number into NaN.
    return pa.array(found, kind, from_pandas=True)


def _moments(values: Sequence[Any], kind: pa.DataType, wanted: Mask) -> pa.Array:
    """Feast keeps whole seconds of a timestamp feature."""
    seconds = _scalars(values, pa.int64(), wanted, "unix_timestamp_val")
    return seconds.cast(pa.timestamp("s", tz=kind.tz)).cast(kind)


def _packed(values: Sequence[Any], kind: pa.DataType, wanted: Mask, field: str, dtype: str) -> pa.Array:
    """Number lists by their bytes: on the wire a packed list ends with its elements, little-endian."""
    width = np.dtype(dtype).itemsize

    def elements(message: Any) -> tuple[bytes, int]:
        count = len(message.val)
        return message.SerializeToString()[-width * count :] if count else b"", count

    return _from_parts(values, kind, wanted, field, elements, lambda parts: np.frombuffer(b"".join(parts), dtype))


def _lists(values: Sequence[Any], kind: pa.DataType, wanted: Mask, field: str) -> pa.Array:
    def elements(message: Any) -> tuple[list[Any], int]:
        return list(message.val), len(message.val)

    def flatten(parts: list[list[Any]]) -> list[Any]:
        return [item for part in parts for item in part]

    return _from_parts(values, kind, wanted, field, elements, flatten)


def _from_parts(
    values: Sequence[Any],
    kind: pa.DataType,
    wanted: Mask,
    field: str,
    elements: Callable[[Any], tuple[Any, int]],
    flatten: Callable[[list[Any]], Any],
) -> pa.Array:
    parts: list[Any] = []
    lengths = np.zeros(len(values), np.int32)
    present = np.zeros(len(values), np.bool_)
    for row, (value, keep) in enumerate(zip(values, wanted, strict=True)):
        if keep and value.HasField(field):
            part, lengths[row] = elements(getattr(value, field))
            parts.append(part)
            present[row] = True
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = pa.array(flatten(parts), kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=kind, mask=pa.array(~present))
