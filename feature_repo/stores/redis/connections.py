"""Connections of redis-py that keep to the end of a read, also while they are made.

A server that hangs takes connections and says nothing on them; one that is gone is tried again by redis-py for
seconds. Neither may hold up a read that has a deadline.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from redis import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from feature_repo.stores.online.deadline import seconds_left

_LEAST_S = 0.001


def keep_deadlines(client: Redis) -> None:
    """Let the connections that a client will make keep to the end of a read."""
    pool = client.connection_pool
    pool.connection_class = _with_deadline(pool.connection_class)


def allow(connection: Any) -> None:
    """Let a connection wait no longer than until the read must have ended.

    Raises:
        redis.exceptions.TimeoutError: It must have ended already.
    """
    left = seconds_left()
    if left is not None:
        if left < _LEAST_S:
            raise RedisTimeoutError("the read's deadline has passed")
        connection._sock.settimeout(left)


def restore(connection: Any) -> None:
    """Let a connection wait as long as its settings say again."""
    if seconds_left() is not None:
        connection._sock.settimeout(getattr(connection, "own_timeout_s", connection.socket_timeout))


@lru_cache(maxsize=16)
def _with_deadline(kind: type[Any]) -> type[Any]:
    class Connection(kind):  # type: ignore[misc]
        """A connection whose making, too, ends with the read."""

        socket_timeout: float | None
        socket_connect_timeout: float | None

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.own_timeout_s: float | None = self.socket_timeout
            self.own_connect_timeout_s: float | None = self.socket_connect_timeout

        def connect(self) -> None:
            left = seconds_left()
            if left is None:
                self.socket_timeout, self.socket_connect_timeout = self.own_timeout_s, self.own_connect_timeout_s
                super().connect()
            elif self._sock is None:
                self.socket_timeout = self.socket_connect_timeout = max(left, _LEAST_S)
                self.connect_check_health(check_health=True, retry_socket_connect=False)

    return Connection
