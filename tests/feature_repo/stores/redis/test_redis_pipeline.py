"""Pipelines and their replies, on a server and from bytes that arrive in pieces."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from feature_repo.stores.redis.pipeline import MAX_IN_FLIGHT, bulk, command, exchange
from feature_repo.stores.redis.replies import Replies, sent
from tests.feature_repo.stores.servers import HOST, running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with running(tmp_path_factory.mktemp("pipeline")) as port, redis.Redis(HOST, port) as client:
        yield client


def test_replies_come_in_the_order_of_the_commands_and_errors_in_their_places(client: redis.Redis) -> None:
    keys = [b"a", b"b", b"c"]
    commands = [command(b"SET", b"a", b"1"), command(b"LPUSH", b"a", b"2"), command(b"GET", b"a")]
    first, second, third = exchange(client, keys, commands)
    assert (first, third) == (b"OK", b"1")
    assert isinstance(second, redis.ResponseError)


def test_more_commands_than_one_pipeline_takes(client: redis.Redis) -> None:
    keys = [b"k%d" % number for number in range(2 * MAX_IN_FLIGHT + 1)]
    assert exchange(client, keys, [command(b"ECHO", key) for key in keys]) == keys


def test_script_that_is_forgotten_on_the_way_is_loaded_again(client: redis.Redis) -> None:
    script = b"return redis.call('INCR', KEYS[1])"
    digest = hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
    keys = [b"n1", b"n2", b"n3", b"n4"]
    commands = [command(b"EVALSHA", digest, b"1", key) for key in keys]
    commands[1] = command(b"SCRIPT", b"FLUSH")
    assert exchange(client, keys, commands, [command(b"SCRIPT", b"LOAD", script)]) == [1, b"OK", 1, 1]


def test_connection_is_not_used_again_after_replies_were_left_on_it(client: redis.Redis) -> None:
    with contextlib.suppress(KeyError), sent(client, command(b"ECHO", b"one") + command(b"ECHO", b"two")) as replies:
        assert replies.take(1) == [b"one"]
        raise KeyError
    assert exchange(client, [b"key"], [command(b"ECHO", b"three")]) == [b"three"]


class _Arriving:
    """A connection on which bytes arrive piece by piece, then nothing more."""

    def __init__(self, data: bytes, sizes: Sequence[int]) -> None:
        self.host, self.port = "pair", 0
        self._parser = redis.Connection()._parser
        self._sock, self._other = socket.socketpair()
        self._sock.settimeout(5)
        self._thread = threading.Thread(target=self._deliver, args=(data, sizes))
        self._thread.start()

    def _deliver(self, data: bytes, sizes: Sequence[int]) -> None:
        at = 0
        for size in sizes:
            self._other.sendall(data[at : at + size])
            at += size
        self._other.sendall(data[at:])

    def close(self) -> None:
        self._thread.join()
        self._sock.close()
        self._other.close()


def _reply(values: Sequence[bytes | None]) -> bytes:
    return b"*%d\r\n" % len(values) + b"".join(b"$-1\r\n" if value is None else bulk(value) for value in values)


_EVEN = st.tuples(st.binary(min_size=5, max_size=5), st.binary(min_size=3, max_size=3))
_TRICKY = st.sampled_from([(b"\r\n$3\r", b"\r\n*"), (b"*2\r\n$", b"$5\r")])
_UNEVEN = st.tuples(st.none() | st.binary(max_size=9), st.none() | st.binary(max_size=4))


@given(
    even=st.lists(_EVEN | _TRICKY, min_size=1, max_size=12),
    others=st.lists(_UNEVEN, max_size=3),
    sizes=st.lists(st.integers(1, 40), max_size=12),
)
def test_columns_end_where_replies_of_another_shape_begin(
    even: list[tuple[bytes, bytes]], others: list[tuple[bytes | None, bytes | None]], sizes: list[int]
) -> None:
    arriving = _Arriving(b"".join(map(_reply, [*even, *others])), sizes)
    replies = Replies(arriving)
    columns = replies.take_even(len(even), 2)
    assert columns is not None
    assert list(zip(*columns, strict=True)) == even
    assert replies.take(len(others)) == [list(row) for row in others]
    arriving.close()


@given(rows=st.lists(_EVEN | _TRICKY | _UNEVEN, max_size=12), sizes=st.lists(st.integers(1, 40), max_size=12))
def test_columns_and_parsed_replies_hold_the_same(
    rows: list[tuple[bytes | None, bytes | None]], sizes: list[int]
) -> None:
    arriving = _Arriving(b"".join(map(_reply, rows)), sizes)
    replies = Replies(arriving)
    columns = replies.take_even(len(rows), 2)
    found = replies.take(len(rows)) if columns is None else [list(row) for row in zip(*columns, strict=True)]
    assert found == [list(row) for row in rows]
    arriving.close()


@pytest.mark.parametrize(
    "rows",
    [[(b"a", None)], [(b"a", b"b"), (b"a", None)], [(b"a", b"b"), (None, None)], [(b"a", b"b"), (b"ab", b"b")]],
)
def test_replies_of_other_shapes_are_no_columns(rows: list[tuple[bytes | None, ...]]) -> None:
    arriving = _Arriving(b"".join(map(_reply, rows)), [])
    replies = Replies(arriving)
    assert replies.take_even(len(rows), 2) is None
    assert replies.take(len(rows)) == [list(row) for row in rows]
    arriving.close()


def test_error_among_columns_is_found(client: redis.Redis) -> None:
    client.delete("hash", "text")
    client.hset("hash", mapping={"a": "1", "b": "2"})
    client.set("text", "no hash")
    commands = b"".join(command(b"HMGET", key, b"a", b"b") for key in (b"hash", b"text", b"hash"))
    with sent(client, commands) as replies:
        assert replies.take_even(3, 2) is None
        first, second, third = replies.take(3)
    assert first == third == [b"1", b"2"]
    assert isinstance(second, redis.ResponseError)


def test_columns_are_values_and_slices_of_them(client: redis.Redis) -> None:
    client.hset("even", mapping={"a": "12", "b": "345"})
    with sent(client, command(b"HMGET", b"even", b"a", b"b") * 3) as replies:
        columns = replies.take_even(3, 2)
    assert columns is not None
    assert list(columns[1]) == [b"345"] * 3
    assert columns[0][2] == b"12"
    assert len(columns[0][1:]) == 2
    assert columns[0].rows.dtype == np.uint8
