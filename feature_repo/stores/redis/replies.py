"""Replies of a pipeline, read off a connection in large pieces.

redis-py reads reply by reply, which costs more than the server needs to answer. Here the bytes are parsed at C speed by
hiredis, and replies that are all of one shape, as those about vectors and other values of fixed width, are not parsed
at all: they are one matrix of bytes, cut at the same places in every row.

Source: Redis serialization protocol specification.
Dims: N replies, W bytes of one value.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hiredis
import numpy as np
import numpy.typing as npt
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse
from redis.exceptions import TimeoutError as RedisTimeoutError

from feature_repo.stores.packed.cells import FixedWidthColumn
from feature_repo.stores.redis.connections import allow, restore

_PIECE_BYTES = 1 << 16
_MORE = object()
_thread = threading.local()
_END = b"\r\n"

Bytes = npt.NDArray[np.uint8]


@contextmanager
def sent(node: Redis, commands: bytes) -> Iterator[Replies]:
    """Replies to commands that one server was sent; all of them must be taken.

    Raises:
        redis.exceptions.RedisError: The server cannot be reached, or closed the connection.
    """
    pool = node.connection_pool
    connection = pool.get_connection()
    try:
        allow(connection)
        connection.send_packed_command([commands])  # type: ignore[no-untyped-call]
        yield Replies(connection)
        restore(connection)
    except BaseException:
        # Replies may still be under way; they must not be taken for those to the next commands.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    finally:
        pool.release(connection)


class Replies:
    """What arrives on a connection of redis-py, in order."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._held = b""
        self._parsed: list[Any] | None = None
        self._piece = _own_piece()
        self._reader = hiredis.Reader(InvalidResponse, connection._parser.parse_error, notEnoughData=_MORE)

    def take(self, count: int) -> list[Any]:
        """The next replies; an error reply is its exception."""
        if self._parsed is None:
            self._parsed = self._fed(self._held, len(self._held)) if self._held else []
        while len(self._parsed) < count:
            self._parsed += self._fed(self._piece, self._receive(self._piece))
        found, self._parsed = self._parsed[:count], self._parsed[count:]
        return found

    def _fed(self, piece: Any, length: int) -> list[Any]:
        """Replies that are whole with these bytes."""
        self._reader.feed(piece, 0, length)
        whole = list(iter(self._reader.gets, _MORE))
        if hiredis.PushNotification in map(type, whole):
            return [reply for reply in whole if type(reply) is not hiredis.PushNotification]
        return whole

    def take_even(self, count: int, num_values: int) -> list[FixedWidthColumn] | None:
        """The next replies as columns, if all hold values of the same widths.

        Args:
            num_values: Values in each reply.

        Returns:
            None if they are not of one shape, or something was parsed already; then `take` gives them.
        """
        shape = None if self._parsed is not None or not count else self._first_shape(num_values)
        if shape is None:
            return None
        whole = np.empty(count * shape.size, np.uint8)
        space = memoryview(whole)  # type: ignore[arg-type]
        filled = min(len(self._held), len(whole))
        space[:filled] = self._held[:filled]
        self._held, checked = self._held[filled:], 0
        while True:
            if not shape.fits(whole[checked:filled]):
                self._held = bytes(space[:filled]) + self._held
                return None
            checked = filled - filled % shape.size
            if checked == len(whole):
                break
            filled += self._receive(space[filled:])
        rows = whole.reshape(count, shape.size)
        return [FixedWidthColumn(rows[:, start:end]) for start, end in shape.values]

    def _first_shape(self, num_values: int) -> _Shape | None:
        while True:
            try:
                return _Shape.of(self._held, num_values)
            except _IncompleteError:
                self._held += self._piece[: self._receive(self._piece)]

    def _receive(self, space: memoryview | bytearray) -> int:
        """Number of bytes that came, at least one."""
        connection = self._connection
        allow(connection)
        try:
            received = int(connection._sock.recv_into(space))
        except TimeoutError as error:
            raise RedisTimeoutError(f"Timeout reading from {connection.host}:{connection.port}") from error
        except OSError as error:
            raise RedisConnectionError(f"Error while reading from socket: {error}") from error
        if not received:
            raise RedisConnectionError("Connection closed by server.")
        return received


def _own_piece() -> bytearray:
    """Where a thread receives what is parsed or copied before it receives more."""
    if not hasattr(_thread, "piece"):
        _thread.piece = bytearray(_PIECE_BYTES)
    piece: bytearray = _thread.piece
    return piece


class _IncompleteError(Exception):
    """A reply has not arrived as a whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    """Sizes of a reply and of the values in it."""

    size: int
    """Bytes of the reply."""
    values: list[tuple[int, int]]
    """Where each value starts and ends."""
    places: npt.NDArray[np.intp]
    """Bytes that are no values, but say how long those are."""
    frame: Bytes
    """What they are."""

    @classmethod
    def of(cls, held: bytes, num_values: int) -> _Shape | None:
        """Shape of the reply that `held` starts with; None if it lacks a value, or is an error.

        Raises:
            _IncompleteError: There must be more of it to say.
        """
        start = _line_end(held, 0)
        if held[:start] != b"*%d\r\n" % num_values:
            return None
        places, values = list(range(start)), []
        for _ in range(num_values):
            begin = _line_end(held, start)
            digits = held[start + 1 : begin - len(_END)]
            if not digits.isdigit() or not int(digits):
                return None
            end = begin + int(digits)
            values.append((begin, end))
            places += [*range(start, begin), end, end + 1]
            start = end + len(_END)
        if len(held) < start:
            raise _IncompleteError
        frame = np.frombuffer(held, np.uint8, start)[places]
        return cls(size=start, values=values, places=np.array(places), frame=frame)

    def fits(self, replies: Bytes) -> bool:
        """Whether bytes are replies of this shape; the last may be the beginning of one.

        A reply with these bytes between its values has the same lengths in it, so it cannot end earlier.
        """
        num_whole = len(replies) // self.size
        rows = replies[: num_whole * self.size].reshape(num_whole, self.size)
        rest = replies[num_whole * self.size :]
        known = int(np.searchsorted(self.places, len(rest)))
        same_rest = (rest[self.places[:known]] == self.frame[:known]).all()
        return bool(same_rest and (rows[:, self.places] == self.frame).all())


def _line_end(held: bytes, start: int) -> int:
    end = held.find(_END, start)
    if end < 0:
        raise _IncompleteError
    return end + len(_END)
