"""Reads of entities' hashes: one `HMGET` per key, all of a call in one pipeline.

Dims: N entity keys, W bytes of one command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
from feast import FeatureView, ValueType
from feast.infra.online_stores.helpers import _mmh3
from redis import Redis
from redis.exceptions import RedisError

from feature_repo.stores.packed.cells import Cells, FixedWidthColumn, Integers
from feature_repo.stores.packed.encode import PACKED_WIDTHS
from feature_repo.stores.packed.times import decode_times
from feature_repo.stores.redis.pipeline import Client, bulk, exchange, is_one_server
from feature_repo.stores.redis.replies import Replies, sent

_FIXED_WIDTH = (*PACKED_WIDTHS, ValueType.FLOAT, ValueType.DOUBLE, ValueType.BOOL, ValueType.UNIX_TIMESTAMP)
"""Types whose values nearly always take the same number of bytes in all rows of a view."""
_MOST_AT_ONCE = 10_000
"""Commands of one pipeline that only reads: a thousand entities in ten views."""
_MANY_KEYS = 16
"""From so many on, matrices of bytes are faster than bytes one by one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HashRequest:
    """Features of a view, asked for N entities."""

    stored_name: str
    """Name of the view in the store."""
    names: tuple[str, ...]
    """Features to read."""
    keys: Sequence[bytes]
    """Serialised entity keys."""
    suffix: bytes
    """What the store's keys have after them."""
    view: FeatureView

    @property
    def even(self) -> bool:
        """Whether the replies are many, and likely to be of one shape."""
        if len(self.keys) < _MANY_KEYS:
            return False
        kinds = {field.name: field.dtype.to_value_type() for field in self.view.features}
        return all(kinds.get(name) in _FIXED_WIDTH for name in self.names)


@lru_cache(maxsize=4096)
def field_names(view: str, names: tuple[str, ...]) -> tuple[bytes, ...]:
    """Fields of an entity's hash in which a view's features are, as bulk strings."""
    return tuple(bulk(_mmh3(f"{view}:{name}")) for name in names)


def time_field(view: str) -> bytes:
    """Field of an entity's hash in which the row's event timestamp is, as a bulk string."""
    return bulk(f"_ts:{view}".encode())


def read_hashes(client: Client, requests: Sequence[HashRequest]) -> list[Cells]:
    """What a store holds for each request, in one round trip.

    Raises:
        redis.exceptions.RedisError: A server cannot be reached, or answered with an error.
    """
    if is_one_server(client) and sum(len(request.keys) for request in requests) <= _MOST_AT_ONCE:
        return _from_one_server(client, requests)
    keys = [key + request.suffix for request in requests for key in request.keys]
    replies = exchange(client, keys, [command for request in requests for command in _commands(request)])
    incoming = iter(replies)
    return [_cells(request, list(islice(incoming, len(request.keys)))) for request in requests]


def _from_one_server(client: Redis, requests: Sequence[HashRequest]) -> list[Cells]:
    evens = [request.even for request in requests]
    # What is even comes first: after a reply of another shape nothing can be cut any more.
    order = sorted(range(len(requests)), key=evens.__getitem__, reverse=True)
    found: dict[int, Cells] = {}
    with sent(client, b"".join([_joined(requests[place]) for place in order])) as replies:
        for place in order:
            found[place] = _next_cells(replies, requests[place], even=evens[place])
    return [found[place] for place in range(len(requests))]


def _next_cells(replies: Replies, request: HashRequest, *, even: bool) -> Cells:
    columns = replies.take_even(len(request.keys), len(request.names) + 1) if even else None
    if columns is None:
        return _cells(request, replies.take(len(request.keys)))
    return Cells(values=columns[:-1], event_micros=_times(columns[-1]))


def _cells(request: HashRequest, replies: Sequence[Any]) -> Cells:
    if set(map(type, replies)) - {list}:
        raise next(reply for reply in replies if isinstance(reply, RedisError))
    columns = list(zip(*replies, strict=True)) if replies else [()] * (len(request.names) + 1)
    return Cells(values=columns[:-1], event_micros=_times(columns[-1]))


def _times(column: Sequence[bytes | None]) -> Integers:
    """Decoded event timestamps; a view's rows often have one in common."""
    if len(column) < _MANY_KEYS:
        return decode_times(column)
    if isinstance(column, FixedWidthColumn):
        is_one = bool((column.rows == column.rows[0]).all())
    else:
        is_one = column.count(column[0]) == len(column)
    return np.full(len(column), decode_times(column[:1])[0]) if is_one else decode_times(list(column))


@lru_cache(maxsize=4096)
def _around_key(stored_name: str, names: tuple[str, ...], suffix: bytes, key_bytes: int) -> tuple[bytes, bytes]:
    """What a command has before and after a serialised entity key of this length."""
    head = b"*%d\r\n" % (3 + len(names)) + bulk(b"HMGET") + b"$%d\r\n" % (key_bytes + len(suffix))
    return head, suffix + b"\r\n" + b"".join(field_names(stored_name, names)) + time_field(stored_name)


def _commands(request: HashRequest) -> list[bytes]:
    asked = (request.stored_name, request.names, request.suffix)
    return [key.join(_around_key(*asked, len(key))) for key in request.keys]


def _joined(request: HashRequest) -> bytes:
    """All commands; where keys are of one length, filled into a matrix of bytes [N, W]."""
    if len(request.keys) < _MANY_KEYS or len(set(map(len, request.keys))) != 1:
        return b"".join(_commands(request))
    width = len(request.keys[0])
    head, tail = _around_key(request.stored_name, request.names, request.suffix, width)
    rows = np.empty((len(request.keys), len(head) + width + len(tail)), np.uint8)
    rows[:, : len(head)] = np.frombuffer(head, np.uint8)
    rows[:, len(head) : len(head) + width] = np.frombuffer(b"".join(request.keys), np.uint8).reshape(-1, width)
    rows[:, len(head) + width :] = np.frombuffer(tail, np.uint8)
    return rows.tobytes()
