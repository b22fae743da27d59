"""Moments as integers, microseconds of Unix time, and as Feast's `Timestamp` messages.

Redis holds such a message in the field `_ts:<view>` of an entity's hash.
Source: google/protobuf/timestamp.proto, seconds and nanoseconds as varints.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from feature_repo.stores.packed.varints import read_varint, varint

NO_TIME = int(np.iinfo(np.int64).min)
"""Stands for a moment that there is none of."""
_SECONDS, _NANOS = 0x08, 0x10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Integers = npt.NDArray[np.int64]


def to_micros(moment: datetime) -> int:
    """Unix time in microseconds; a naive moment is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // _MICROSECOND


def to_datetime(micros: int) -> datetime:
    """Moment of a Unix time in microseconds, UTC."""
    return _EPOCH + timedelta(microseconds=micros)


def encode_times(micros: Integers) -> list[bytes]:
    """Serialised `Timestamp` of each moment."""
    distinct, places = np.unique(micros, return_inverse=True)
    encoded = [encode_time(moment) for moment in distinct.tolist()]
    return [encoded[place] for place in places.tolist()]


@lru_cache(maxsize=65_536)
def encode_time(micros: int) -> bytes:
    """Serialised `Timestamp`; fields that are zero are left out, as protobuf does."""
    seconds, rest = divmod(micros, 1_000_000)
    first = bytes((_SECONDS,)) + varint(seconds) if seconds else b""
    return first + (bytes((_NANOS,)) + varint(rest * 1000) if rest else b"")


def decode_times(encoded: Sequence[bytes | None]) -> Integers:
    """Unix times in microseconds; `NO_TIME` where there is no message."""
    decoded = {message: _decoded(message) for message in set(encoded)}
    return np.fromiter((decoded[message] for message in encoded), np.int64, len(encoded))


@lru_cache(maxsize=65_536)
def _decoded(message: bytes | None) -> int:
    if message is None:
        return NO_TIME
    fields = {_SECONDS: 0, _NANOS: 0}
    at = 0
    while at < len(message):
        tag = message[at]
        fields[tag], at = read_varint(message, at + 1)
    return fields[_SECONDS] * 1_000_000 + fields[_NANOS] // 1000
