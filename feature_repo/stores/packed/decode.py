"""Serialised Feast `Value` messages to Arrow columns and float32 matrices, without making the messages.

Each type has one layout that every protobuf library writes; a column that does not have it throughout goes through
protobuf, value by value.

Source: protos/feast/types/Value.proto of Feast 0.67.
Dims: N rows, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from feast import ValueType
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type
from feast.types import FeastType, from_feast_to_pyarrow_type

from feature_repo.stores.online.values import column_array
from feature_repo.stores.packed.cells import FixedWidthColumn, JoinedColumn
from feature_repo.stores.packed.encode import (
    ARROW_TYPES,
    BOOL_TAG,
    DOUBLE_TAG,
    FLOAT_TAG,
    LIST_TAGS,
    PACKED_WIDTHS,
    TEXT_TAGS,
    VARINT_TAGS,
    list_header,
)
from feature_repo.stores.packed.varints import decode_varints, varint

Mask = npt.NDArray[np.bool_]
Stored = Sequence[bytes | None]
Matrix = npt.NDArray[np.float32]

_TEXT_TAGS = TEXT_TAGS | {
    ValueType.JSON: b"\x82\x02",
    ValueType.UUID: b"\xa2\x02",
    ValueType.TIME_UUID: b"\xaa\x02",
    ValueType.DECIMAL: b"\xe2\x02",
}
_INNER_TAG = 0x0A
_LARGEST_BYTE = 127
"""Largest varint of one byte."""
_KEPT_AS_TEXT = (ValueType.JSON, ValueType.UUID, ValueType.TIME_UUID, ValueType.DECIMAL)


def arrow_type(dtype: FeastType) -> pa.DataType | None:
    """Arrow type of a feature's column; JSON, UUIDs and decimals are the text that Feast stores.

    Returns:
        None where the type follows from the values.
    """
    kind = dtype.to_value_type()
    if kind in _KEPT_AS_TEXT:
        return pa.string()
    try:
        return from_feast_to_pyarrow_type(dtype)
    except ValueError:
        return ARROW_TYPES.get(kind)


def decode_column(values: Stored, kind: ValueType, arrow: pa.DataType | None, wanted: Mask) -> pa.Array:
    """Values as an array of N; null where not `wanted` and where the store holds none.

    Args:
        kind: Declared type of the feature.
        arrow: From `arrow_type`.
    """
    values = list(values) if isinstance(values, JoinedColumn) else values
    held, places = _held(values, wanted)
    decoder = _DECODERS.get(kind)
    found = decoder(held, kind, arrow) if decoder else None
    if found is None:
        return _through_protobuf(values, kind, arrow, wanted)
    if len(held) == len(values):
        return found
    return found.take(pa.array(np.cumsum(places) - 1, mask=~places))


def _through_protobuf(values: Stored, kind: ValueType, arrow: pa.DataType | None, wanted: Mask) -> pa.Array:
    messages = [Value.FromString(value or b"") for value in values]
    is_set, is_map = kind.name.endswith("_SET"), arrow is not None and pa.types.is_map(arrow)
    if arrow is not None and not is_set and not is_map:
        return column_array(messages, arrow, wanted)
    found = [
        feast_value_type_to_python_type(message) if keep else None
        for message, keep in zip(messages, wanted.tolist(), strict=True)
    ]
    if is_set:
        found = [None if value is None else list(value) for value in found]
    if is_map:
        found = [None if value is None else list(value.items()) for value in found]
    return pa.array(found, arrow)


def _held(values: Stored, wanted: Mask) -> tuple[Sequence[bytes], Mask]:
    """Messages that are to be decoded, and which rows they belong to."""
    if isinstance(values, FixedWidthColumn):
        return (values if wanted.all() else FixedWidthColumn(values.rows[wanted])), wanted
    if wanted.all() and all(values):
        return cast(Sequence[bytes], values), wanted
    places = np.fromiter(map(bool, values), np.bool_, len(values)) & wanted
    return cast(list[bytes], [values[place] for place in np.flatnonzero(places).tolist()]), places


def decode_matrix(values: Stored, kind: ValueType, wanted: Mask) -> Matrix:
    """Vectors as a float32 matrix [N, D]; NaN where not `wanted` and where the store holds none.

    Raises:
        ValueError: The vectors are not of one width, or are no lists of numbers.
    """
    held, places = _held(list(values) if isinstance(values, JoinedColumn) else values, wanted)
    if not held:
        return np.full((len(values), 0), np.nan, np.float32)
    rows = _matrix(held, kind)
    if len(held) == len(values):
        return rows
    full = np.full((len(values), rows.shape[1]), np.nan, np.float32)
    full[places] = rows
    return full


def _matrix(held: Sequence[bytes], kind: ValueType) -> Matrix:
    if (numbers := _even_numbers(held, kind)) is not None:
        return numbers.astype(np.float32, copy=False)
    lists = [_numbers(value) for value in held]
    widths = sorted(set(map(len, lists)))
    if len(widths) != 1:
        raise ValueError(f"vectors must be of one width (got widths {widths}); write them again")
    return np.array(lists, np.float32)


def _even_numbers(held: Sequence[bytes], kind: ValueType) -> npt.NDArray[Any] | None:
    """Numbers of packed lists of one width [N, D], in memory of their own; None if the messages are not that."""
    if isinstance(held, FixedWidthColumn):
        rows = held.rows
    elif len(set(map(len, held))) == 1:
        rows = np.frombuffer(b"".join(held), np.uint8).reshape(len(held), -1)
    else:
        return None
    header = _header_of(kind, rows.shape[1])
    if not header or not (rows[:, : len(header)] == np.frombuffer(header, np.uint8)).all():
        return None
    return np.array(rows[:, len(header) :], order="C").view(PACKED_WIDTHS[kind][0])


def _numbers(value: bytes) -> list[float]:
    message = Value.FromString(value)
    kind = message.WhichOneof("val")
    if kind not in ("float_list_val", "double_list_val"):
        raise ValueError(f"a vector must be stored as a list of numbers (got {kind}); read it as a column")
    return list(getattr(message, kind).val)


def _header_of(kind: ValueType, length: int) -> bytes | None:
    """Header of a packed list that takes `length` bytes with it; None if there is no such list."""
    if kind not in PACKED_WIDTHS:
        return None
    width = PACKED_WIDTHS[kind][1]
    # A header is two or three bytes of tag and size, one of the inner tag, and the inner size.
    for size in range(max(0, length - 14), length):
        if size % width == 0 and len(header := list_header(kind, size)) + size == length:
            return header
    return None


def _bytes_of(held: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    if isinstance(held, FixedWidthColumn):
        return held.rows.ravel(), np.full(len(held), held.rows.shape[1])
    lengths = np.fromiter(map(len, held), np.int64, len(held))
    return np.frombuffer(b"".join(held), np.uint8), lengths


def _fixed(held: Sequence[bytes], kind: ValueType, arrow: pa.DataType) -> pa.Array | None:
    tag, dtype = (FLOAT_TAG, "<f4") if kind == ValueType.FLOAT else (DOUBLE_TAG, "<f8")
    joined, lengths = _bytes_of(held)
    width = np.dtype(dtype).itemsize + 1
    if not (lengths == width).all():
        return None
    rows = joined.reshape(-1, width)
    if not (rows[:, 0] == tag[0]).all():
        return None
    numbers = np.ascontiguousarray(rows[:, 1:]).view(dtype).ravel()
    # Feast's materialize goes through pandas, which turns a null number into NaN.
    return pa.array(numbers, arrow, from_pandas=True)


def _varints(held: Sequence[bytes], kind: ValueType, arrow: pa.DataType) -> pa.Array | None:
    joined, lengths = _bytes_of(held)
    starts = np.cumsum(lengths) - lengths
    if not (joined[starts] == VARINT_TAGS[kind][0]).all():
        return None
    numbers = decode_varints(joined, starts + 1, lengths - 1)
    if numbers is None:
        return None
    if kind == ValueType.UNIX_TIMESTAMP:
        return pa.array(numbers, pa.int64()).cast(pa.timestamp("s", tz=arrow.tz)).cast(arrow)
    return pa.array(numbers, pa.int64()).cast(arrow)


def _booleans(held: Sequence[bytes], kind: ValueType, arrow: pa.DataType) -> pa.Array | None:
    del kind
    if not set(held) <= {BOOL_TAG + b"\x00", BOOL_TAG + b"\x01"}:
        return None
    return pa.array([value[1] == 1 for value in held], arrow)


def _texts(held: Sequence[bytes], kind: ValueType, arrow: pa.DataType) -> pa.Array | None:
    tag = _TEXT_TAGS[kind]
    if (found := _short_texts(held, tag)) is not None:
        return found.cast(arrow)
    headers = {length: _text_header(tag, length) for length in set(map(len, held))}
    parts = []
    for value in held:
        header = headers[len(value)]
        if not header or not value.startswith(header):
            return None
        parts.append(value[len(header) :])
    return pa.array(parts, pa.binary()).cast(arrow)


def _short_texts(held: Sequence[bytes], tag: bytes) -> pa.Array | None:
    """Texts whose size takes one byte, without looking at them one by one; None if there are others."""
    joined, lengths = _bytes_of(held)
    num_header = len(tag) + 1
    sizes, starts = lengths - num_header, np.cumsum(lengths) - lengths
    if len(held) == 0 or sizes.min() < 0 or sizes.max() > _LARGEST_BYTE:
        return None
    headers = joined[starts[:, None] + np.arange(num_header)]
    if not (headers[:, :-1] == np.frombuffer(tag, np.uint8)).all() or not (headers[:, -1] == sizes).all():
        return None
    kept = np.ones(len(joined), np.bool_)
    kept[starts[:, None] + np.arange(num_header)] = False
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(held), [None, pa.py_buffer(offsets), pa.py_buffer(joined[kept])])


def _text_header(tag: bytes, length: int) -> bytes:
    """Tag and size of a text that takes `length` bytes with them; empty if there is no such text."""
    for size in range(max(0, length - len(tag) - 10), length):
        if len(header := tag + varint(size)) + size == length:
            return header
    return b""


def _packed_lists(held: Sequence[bytes], kind: ValueType, arrow: pa.DataType) -> pa.Array | None:
    if (numbers := _even_numbers(held, kind)) is not None:
        ends = np.arange(len(held) + 1, dtype=np.int32) * np.int32(numbers.shape[1])
        return _lists(ends, numbers.ravel(), arrow)
    headers = {length: _header_of(kind, length) for length in set(map(len, held))}
    parts = []
    for value in held:
        header = headers[len(value)]
        if header is None or not value.startswith(header):
            return None
        parts.append(value[len(header) :])
    dtype, width = PACKED_WIDTHS[kind]
    offsets = np.concatenate([[0], np.cumsum([len(part) // width for part in parts])]).astype(np.int32)
    return _lists(offsets, np.frombuffer(b"".join(parts), dtype), arrow)


def _integer_lists(held: Sequence[bytes], kind: ValueType, arrow: pa.DataType) -> pa.Array | None:
    """Lists whose sizes take one byte, without looking at them one by one; None if there are others.

    A message is tag, size, inner tag, inner size, integers; that of an empty list ends after its size.
    """
    joined, lengths = _bytes_of(held)
    if len(held) == 0 or lengths.min() < 2 or lengths.max() > _LARGEST_BYTE:
        return None
    starts, filled = np.cumsum(lengths) - lengths, lengths > 2
    inner, inner_lengths = starts[filled] + 2, lengths[filled] - 2
    if not (joined[starts] == LIST_TAGS[kind][0]).all() or not (joined[starts + 1] == lengths - 2).all():
        return None
    if (inner_lengths < 3).any() or not (joined[inner] == _INNER_TAG).all():
        return None
    if not (joined[inner + 1] == inner_lengths - 2).all():
        return None
    counted = np.ones(len(joined), np.bool_)
    for header in (starts, starts + 1, inner, inner + 1):
        counted[header] = False
    numbers, row_ends = joined[counted], np.cumsum(np.where(filled, lengths - 4, 0))
    ends = np.flatnonzero(numbers <= _LARGEST_BYTE)
    # Each integer ends with a byte below 128, and each list with an integer.
    if not (numbers[row_ends[filled] - 1] <= _LARGEST_BYTE).all():
        return None
    begins = np.concatenate([[0], ends + 1])[: len(ends)]
    found = decode_varints(numbers, begins, ends - begins + 1)
    offsets = np.concatenate([[0], np.searchsorted(ends, row_ends)]).astype(np.int32)
    return None if found is None else _lists(offsets, found, arrow)


def _lists(offsets: npt.NDArray[np.int32], numbers: npt.NDArray[Any], arrow: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(numbers, arrow.value_type), type=arrow)


_DECODERS: dict[ValueType, Callable[[Sequence[bytes], ValueType, Any], pa.Array | None]] = {
    **dict.fromkeys((ValueType.FLOAT, ValueType.DOUBLE), _fixed),
    **dict.fromkeys(VARINT_TAGS, _varints),
    ValueType.BOOL: _booleans,
    **dict.fromkeys(_TEXT_TAGS, _texts),
    **dict.fromkeys(PACKED_WIDTHS, _packed_lists),
    **dict.fromkeys((ValueType.INT32_LIST, ValueType.INT64_LIST), _integer_lists),
}
