"""Serialised entity keys, whole columns at a time, byte for byte as Feast's `serialize_entity_key` (version 3).

Layout: number of join keys, their names in order, then type, length and bytes of each value; all integers 32 bits,
little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from feast import ValueType
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key_prefix

_FIXED = {
    ValueType.INT32: ("<i4", pa.int32()),
    ValueType.INT64: ("<i8", pa.int64()),
    ValueType.UNIX_TIMESTAMP: ("<i8", pa.int64()),
}
_LAYOUTS = {
    kind: struct.Struct("<II" + dtype.replace("<i4", "i").replace("<i8", "q")) for kind, (dtype, _) in _FIXED.items()
}
"""Type, length and bytes of a value of fixed width."""
_TEXT = {ValueType.STRING: pa.string(), ValueType.BYTES: pa.binary()}
KEY_TYPES = (*_FIXED, *_TEXT)
"""Types that a join key may have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinKey:
    """A join key of a feature view."""

    name: str
    """Name that is stored; an alias of it may be asked for."""
    kind: ValueType
    """Declared type."""


def entity_keys(join_keys: Sequence[JoinKey], columns: Sequence[pa.Array], suffix: bytes = b"") -> list[bytes]:
    """Serialised key of each row.

    Args:
        columns: Values without nulls, in the order of `join_keys`.
        suffix: Bytes to append to each key; Redis adds the project's name.

    Raises:
        TypeError: A join key is of a type that cannot be one.
        pyarrow.ArrowInvalid: A value does not fit the declared type.
    """
    pairs = sorted(zip(join_keys, columns, strict=True), key=lambda pair: pair[0].name)
    prefix = serialize_entity_key_prefix([key.name for key, _ in pairs])
    if len(pairs) == 1 and pairs[0][0].kind in _FIXED:
        return _fixed(pairs[0][0], pairs[0][1], prefix, suffix)
    parts = [_values(key, column) for key, column in pairs]
    return [b"".join((prefix, *values, suffix)) for values in zip(*parts, strict=True)]


def entity_key(join_keys: Sequence[JoinKey], values: Sequence[Any]) -> bytes:
    """Serialised key of one row, faster than `entity_keys` for a few.

    Args:
        values: As Python has them, of the declared types, in the order of `join_keys`.

    Raises:
        TypeError: A join key is of a type that cannot be one.
    """
    pairs = (
        sorted(zip(join_keys, values, strict=True), key=_name_of) if len(join_keys) > 1 else [(join_keys[0], values[0])]
    )
    return b"".join([_prefix(tuple(key.name for key, _ in pairs)), *(_value(key, value) for key, value in pairs)])


def _name_of(pair: tuple[JoinKey, Any]) -> str:
    return pair[0].name


@lru_cache(maxsize=4096)
def _prefix(names: tuple[str, ...]) -> bytes:
    return bytes(serialize_entity_key_prefix(list(names)))


def _value(key: JoinKey, value: Any) -> bytes:
    layout = _LAYOUTS.get(key.kind)
    if layout is not None:
        return layout.pack(key.kind.value, layout.size - 8, value)
    if key.kind not in _TEXT:
        raise TypeError(f"join key {key.name} must be of one of {[kind.name for kind in KEY_TYPES]} (got {key.kind})")
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<II", key.kind.value, len(raw)) + raw


def _values(key: JoinKey, column: pa.Array) -> list[bytes]:
    if key.kind in _FIXED:
        return _fixed(key, column, b"", b"")
    if key.kind not in _TEXT:
        raise TypeError(f"join key {key.name} must be of one of {[kind.name for kind in KEY_TYPES]} (got {key.kind})")
    code = struct.pack("<I", key.kind.value)
    values = column.cast(_TEXT[key.kind]).cast(pa.binary()).to_pylist()
    return [code + struct.pack("<I", len(value)) + value for value in values]


def _fixed(key: JoinKey, column: pa.Array, prefix: bytes, suffix: bytes) -> list[bytes]:
    """Keys of fixed width: one matrix of bytes, cut into rows."""
    dtype, arrow = _FIXED[key.kind]
    numbers = np.ascontiguousarray(column.cast(arrow).to_numpy(zero_copy_only=False), dtype)
    head = prefix + struct.pack("<II", key.kind.value, numbers.itemsize)
    width = len(head) + numbers.itemsize + len(suffix)
    rows = np.empty((len(numbers), width), np.uint8)
    rows[:, : len(head)] = np.frombuffer(head, np.uint8)
    rows[:, len(head) : width - len(suffix)] = numbers.view(np.uint8).reshape(-1, numbers.itemsize)
    rows[:, width - len(suffix) :] = np.frombuffer(suffix, np.uint8)
    raw = rows.tobytes()
    return [raw[start : start + width] for start in range(0, len(raw), width)]


def key_text(key: bytes) -> str:
    """A serialised entity key, with or without a suffix, as `name=value` for a message."""
    # Feast's reader takes a suffix for another value, so the key's own length is found first.
    (num_keys,) = struct.unpack_from("<I", key)
    end = 4
    for _ in range(2 * num_keys):
        (size,) = struct.unpack_from("<I", key, end + 4)
        end += 8 + size
    entity = deserialize_entity_key(key[:end])
    values = (getattr(value, value.WhichOneof("val")) for value in entity.entity_values)
    return ", ".join(f"{name}={value!r}" for name, value in zip(entity.join_keys, values, strict=True))
