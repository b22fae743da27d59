"""Scalars of a few rows, each decoded by itself: for one entity a call of numpy costs more than the value.

Dims: N rows.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
from feast import ValueType

from feature_repo.stores.packed.cells import FixedWidthColumn
from feature_repo.stores.packed.decode import Mask, Stored
from feature_repo.stores.packed.encode import DOUBLE_TAG, FLOAT_TAG, TEXT_TAGS, VARINT_TAGS
from feature_repo.stores.packed.varints import read_varint

FEW_ROWS = 4


def few_scalars(values: Stored, kind: ValueType, arrow: pa.DataType | None, wanted: Mask) -> pa.Array | None:
    """An array of N as `decode_column` gives it; None for other types and where a message is not laid out as usual."""
    decode = _DECODERS.get(kind)
    if decode is None or isinstance(values, FixedWidthColumn):
        return None
    try:
        found = [decode(value) if keep and value else None for value, keep in zip(values, wanted.tolist(), strict=True)]
        return pa.array(found, arrow)
    # What cannot be so is named, or decoded otherwise, by the way that decodes any column.
    except (IndexError, OverflowError, ValueError):
        return None


def _float(tag: int, layout: struct.Struct, message: bytes) -> float | None:
    if message[0] != tag or len(message) != layout.size + 1:
        raise ValueError("a number must take its tag and its width")
    (number,) = layout.unpack_from(message, 1)
    # Feast's materialize goes through pandas, which turns a null number into NaN.
    return None if math.isnan(number) else number


def _integer(tag: int, message: bytes) -> int:
    number, end = read_varint(message, 1)
    if message[0] != tag or end != len(message):
        raise ValueError("an integer must take its tag and its groups")
    return number


def _text(tag: int, message: bytes) -> bytes:
    size, start = read_varint(message, 1)
    if message[0] != tag or start + size != len(message):
        raise ValueError("a text must take its tag, its size and its bytes")
    return message[start:]


def _string(message: bytes) -> str:
    return _text(TEXT_TAGS[ValueType.STRING][0], message).decode()


_DECODERS: dict[ValueType, Callable[[bytes], Any]] = {
    ValueType.FLOAT: partial(_float, FLOAT_TAG[0], struct.Struct("<f")),
    ValueType.DOUBLE: partial(_float, DOUBLE_TAG[0], struct.Struct("<d")),
    ValueType.INT32: partial(_integer, VARINT_TAGS[ValueType.INT32][0]),
    ValueType.INT64: partial(_integer, VARINT_TAGS[ValueType.INT64][0]),
    ValueType.BYTES: partial(_text, TEXT_TAGS[ValueType.BYTES][0]),
    ValueType.STRING: _string,
}
