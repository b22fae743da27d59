"""Join keys of entity rows made comparable with those in the files, and refused where they are of another kind."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from feature_repo.stores.offline.arrow_types import plain_type

_KINDS = (
    ("whole numbers", pt.is_integer),
    ("numbers", lambda kind: pt.is_floating(kind)),
    ("text", lambda kind: pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind)),
    ("bytes", lambda kind: pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind)),
    ("booleans", pt.is_boolean),
    ("timestamps", pt.is_timestamp),
    ("dates", pt.is_date),
    ("decimals", pt.is_decimal),
)


def check_keys(given: pa.Field, stored: pa.DataType, label: str) -> None:
    """See that a key column of the entity rows is of the kind that the files hold.

    Raises:
        ValueError: It is not: text is never compared with numbers.
    """
    wanted, got = key_kind(stored), key_kind(given.type)
    # pandas makes floats of whole numbers when one is missing.
    if pt.is_null(given.type) or got == wanted or (wanted == "whole numbers" and got == "numbers"):
        return
    raise ValueError(
        f"join key {given.name} must hold {wanted} ({stored}) as the files of {label} do (got {given.type}); "
        f"convert that column of the entity rows"
    )


def key_kind(kind: pa.DataType) -> str:
    """What a column of keys holds, in words."""
    plain = plain_type(kind)
    return next((name for name, is_kind in _KINDS if is_kind(plain)), str(plain))


def comparable(keys: pa.ChunkedArray, name: str, stored: pa.DataType) -> pa.ChunkedArray:
    """Keys as DuckDB compares them with those of the files: whole numbers from floats, moments as microseconds.

    Raises:
        ValueError: A key that must be a whole number is not.
    """
    if pa.types.is_null(keys.type):
        return keys.cast(pa.int64() if pa.types.is_timestamp(stored) else plain_type(stored))
    if pa.types.is_floating(keys.type) and pa.types.is_integer(stored):
        return _whole_numbers(keys, name)
    if pa.types.is_timestamp(keys.type):
        if keys.type.tz is None:
            raise ValueError(
                f"join key {name} must have a time zone (got {keys.type}); use pandas.to_datetime(utc=True)"
            )
        moments = pc.floor_temporal(keys, unit="microsecond") if keys.type.unit == "ns" else keys
        return moments.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())
    return keys


def _whole_numbers(keys: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Floats merge large keys, so they are compared as int64."""
    try:
        return keys.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise ValueError(f"join key {name} must hold whole numbers (got {keys.type}: {error})") from error
