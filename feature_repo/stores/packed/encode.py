"""Feature columns to serialised Feast `Value` messages, without making the messages.

A `Value` is a tag, which says the type, and the value as protobuf lays it out; a null is the empty message, no bytes.
Types with a layout of their own (maps, JSON, decimals, sets, …) go through Feast's conversion, value by value.

Source: protos/feast/types/Value.proto of Feast 0.67.
Dims: N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast import ValueType
from feast.type_map import python_values_to_proto_values

from feature_repo.stores.packed.varints import encode_varints, varint

NULL = b""
"""A null value on the wire."""
FLOAT_TAG, DOUBLE_TAG = b"\x35", b"\x29"
"""Tags of the scalars of fixed width."""
VARINT_TAGS = {ValueType.INT32: b"\x18", ValueType.INT64: b"\x20", ValueType.UNIX_TIMESTAMP: b"\x40"}
BOOL_TAG = b"\x38"
TEXT_TAGS = {ValueType.BYTES: b"\x0a", ValueType.STRING: b"\x12"}
LIST_TAGS = {
    ValueType.BYTES_LIST: b"\x5a",
    ValueType.STRING_LIST: b"\x62",
    ValueType.INT32_LIST: b"\x6a",
    ValueType.INT64_LIST: b"\x72",
    ValueType.DOUBLE_LIST: b"\x7a",
    ValueType.FLOAT_LIST: b"\x82\x01",
    ValueType.BOOL_LIST: b"\x8a\x01",
    ValueType.UNIX_TIMESTAMP_LIST: b"\x92\x01",
}
PACKED_WIDTHS = {ValueType.FLOAT_LIST: ("<f4", 4), ValueType.DOUBLE_LIST: ("<f8", 8)}

_SCALAR_ARROW = {
    ValueType.FLOAT: pa.float32(),
    ValueType.DOUBLE: pa.float64(),
    ValueType.INT32: pa.int32(),
    ValueType.INT64: pa.int64(),
    ValueType.BOOL: pa.bool_(),
    ValueType.UNIX_TIMESTAMP: pa.timestamp("us", tz="UTC"),
    ValueType.STRING: pa.string(),
    ValueType.BYTES: pa.binary(),
}
_ELEMENT_OF = {kind: ValueType[kind.name.removesuffix("_LIST")] for kind in LIST_TAGS} | {
    ValueType.DOUBLE_LIST: ValueType.DOUBLE,
    ValueType.FLOAT_LIST: ValueType.FLOAT,
}
ARROW_TYPES: dict[ValueType, pa.DataType] = _SCALAR_ARROW | {
    kind: pa.list_(_SCALAR_ARROW[element]) for kind, element in _ELEMENT_OF.items()
}
"""Types that are encoded without Feast, and the Arrow type that a column must have."""

Encoded = list[bytes]
Offsets = npt.NDArray[np.int64]


@lru_cache(maxsize=4096)
def list_header(kind: ValueType, size: int) -> bytes:
    """Bytes that precede a packed list whose elements take `size` bytes."""
    if not size:
        return LIST_TAGS[kind] + b"\x00"
    inner = b"\x0a" + varint(size)
    return LIST_TAGS[kind] + varint(len(inner) + size) + inner


def encode(column: pa.Array, kind: ValueType) -> Encoded:
    """Serialised `Value` of each row.

    Args:
        column: Of the type that `ARROW_TYPES` names, or of any that Feast can convert to `kind`.
    """
    encoder = _ENCODERS.get(kind)
    if encoder is None or column.type != ARROW_TYPES[kind]:
        return _through_feast(column, kind)
    if pa.types.is_list(column.type) and column.flatten().null_count:
        return _through_feast(column, kind)
    return encoder(column, kind)


def _through_feast(column: pa.Array, kind: ValueType) -> Encoded:
    values = column.to_pylist()
    if pa.types.is_map(column.type):
        values = [None if value is None else dict(value) for value in values]
    return [value.SerializeToString() for value in python_values_to_proto_values(values, kind)]


def _with_nulls(encoded: Encoded, column: pa.Array) -> Encoded:
    """`encoded` with the empty message where the column has no value."""
    if column.null_count:
        for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
            encoded[row] = NULL
    return encoded


def _fixed(column: pa.Array, kind: ValueType) -> Encoded:
    """Floating-point scalars; NaN counts as null, as everywhere in Feast."""
    tag, dtype = (FLOAT_TAG, "<f4") if kind == ValueType.FLOAT else (DOUBLE_TAG, "<f8")
    numbers = pc.fill_null(column, 0).to_numpy(zero_copy_only=False).astype(dtype)
    width = numbers.itemsize + 1
    rows = np.empty((len(numbers), width), np.uint8)
    rows[:, 0] = tag[0]
    rows[:, 1:] = numbers.view(np.uint8).reshape(-1, width - 1)
    encoded = _slices(rows, np.full(len(rows), width))
    for row in np.flatnonzero(np.isnan(numbers)).tolist():
        encoded[row] = NULL
    return _with_nulls(encoded, column)


def _varints(column: pa.Array, kind: ValueType) -> Encoded:
    rows, lengths = encode_varints(_integers(column))
    tagged = np.concatenate([np.full((len(rows), 1), VARINT_TAGS[kind][0], np.uint8), rows], axis=1)
    return _with_nulls(_slices(tagged, lengths + 1), column)


def _integers(column: pa.Array) -> Offsets:
    """Integers to store; a timestamp becomes whole seconds, cut towards zero as Feast does."""
    if pa.types.is_timestamp(column.type):
        micros = pc.fill_null(column.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        return np.asarray(np.where(micros < 0, -(-micros // 1_000_000), micros // 1_000_000), np.int64)
    return np.asarray(pc.fill_null(column, 0).to_numpy(zero_copy_only=False), np.int64)


def _booleans(column: pa.Array, kind: ValueType) -> Encoded:
    del kind
    encoded = [BOOL_TAG + (b"\x01" if value else b"\x00") for value in column.to_pylist()]
    return _with_nulls(encoded, column)


def _texts(column: pa.Array, kind: ValueType) -> Encoded:
    tag = TEXT_TAGS[kind]
    values = pc.fill_null(column.cast(pa.binary()), b"").to_pylist()
    return _with_nulls([tag + varint(len(value)) + value for value in values], column)


def _packed_lists(column: pa.Array, kind: ValueType) -> Encoded:
    """Lists of numbers of fixed width: a header, then the row's bytes as they lie in memory."""
    dtype, width = PACKED_WIDTHS[kind]
    flat, offsets = _flat(column)
    raw = np.ascontiguousarray(flat.to_numpy(zero_copy_only=False), dtype).tobytes()
    return _rows_of(kind, raw, offsets * width, column)


def _varint_lists(column: pa.Array, kind: ValueType) -> Encoded:
    flat, offsets = _flat(column)
    rows, lengths = encode_varints(_integers(flat))
    ends = np.concatenate([[0], np.cumsum(lengths)])
    raw = rows[np.arange(rows.shape[1]) < lengths[:, None]].tobytes()
    return _rows_of(kind, raw, ends[offsets], column)


def _boolean_lists(column: pa.Array, kind: ValueType) -> Encoded:
    flat, offsets = _flat(column)
    return _rows_of(kind, flat.to_numpy(zero_copy_only=False).astype(np.uint8).tobytes(), offsets, column)


def _text_lists(column: pa.Array, kind: ValueType) -> Encoded:
    flat, offsets = _flat(column)
    parts = [b"\x0a" + varint(len(value)) + value for value in flat.cast(pa.binary()).to_pylist()]
    tag = LIST_TAGS[kind]
    encoded = []
    for start, end in pairwise(offsets.tolist()):
        inner = b"".join(parts[start:end])
        encoded.append(tag + varint(len(inner)) + inner)
    return _with_nulls(encoded, column)


def _flat(column: pa.Array) -> tuple[pa.Array, Offsets]:
    """Elements of all rows, and where each row begins and the last one ends; a null row is empty."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    return column.flatten(), np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _rows_of(kind: ValueType, raw: bytes, ends: Offsets, column: pa.Array) -> Encoded:
    headers = {size: list_header(kind, size) for size in np.unique(np.diff(ends)).tolist()}
    bounds = ends.tolist()
    encoded = [headers[end - start] + raw[start:end] for start, end in pairwise(bounds)]
    return _with_nulls(encoded, column)


def _slices(rows: npt.NDArray[np.uint8], lengths: Offsets) -> Encoded:
    """The first `lengths` bytes of each row."""
    raw, width = rows.tobytes(), rows.shape[1]
    starts = range(0, len(raw), width)
    return [raw[start : start + length] for start, length in zip(starts, lengths.tolist(), strict=True)]


_ENCODERS: dict[ValueType, Callable[[Any, ValueType], Encoded]] = {
    **dict.fromkeys((ValueType.FLOAT, ValueType.DOUBLE), _fixed),
    **dict.fromkeys(VARINT_TAGS, _varints),
    ValueType.BOOL: _booleans,
    **dict.fromkeys(TEXT_TAGS, _texts),
    **dict.fromkeys(PACKED_WIDTHS, _packed_lists),
    **dict.fromkeys((ValueType.INT32_LIST, ValueType.INT64_LIST, ValueType.UNIX_TIMESTAMP_LIST), _varint_lists),
    ValueType.BOOL_LIST: _boolean_lists,
    **dict.fromkeys((ValueType.STRING_LIST, ValueType.BYTES_LIST), _text_lists),
}
