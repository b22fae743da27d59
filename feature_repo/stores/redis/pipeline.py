"""Pipelines of ready-made Redis commands: one buffer out, the replies back in order.

redis-py packs a command piece by piece, which costs more than the server needs for it. Here the caller gives the bytes.
Source: Redis serialization protocol specification; Redis cluster specification, "Redirection and resharding".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from typing import Any, TypeGuard

from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    SlotNotCoveredError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import SentinelConnectionPool

from feature_repo.stores.redis.replies import sent

MAX_IN_FLIGHT = 2000
"""Commands of one pipeline; the replies to them are in memory together."""
_REDIRECTIONS = (MovedError, AskError, TryAgainError, ClusterDownError)
_LOST = (RedisConnectionError, RedisTimeoutError)
_LEAST_ATTEMPTS = 3
"""Made in any case: a redirection, or a script that was forgotten, is no matter of time."""
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_READ_PATIENCE_S = 5.0
_WRITE_PATIENCE_S = 30.0
"""After so long no other attempt is begun. A cluster takes 15 seconds, if not told otherwise, to miss a node."""

Client = Redis | RedisCluster


def bulk(value: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def command(*words: bytes) -> bytes:
    """A whole command."""
    return b"*%d\r\n" % len(words) + b"".join(bulk(word) for word in words)


_ASKING = command(b"ASKING")


def exchange(
    client: Client,
    keys: Sequence[bytes],
    commands: Sequence[bytes],
    first: Sequence[bytes] = (),
    *,
    writes: bool = False,
) -> list[Any]:
    """Replies to one command per key, in the order of the keys; an error reply is its exception.

    A cluster's redirections are followed, and a script that was forgotten on the way is loaded again. Where another
    server may take over, in a cluster or behind a Sentinel, it is sent what the one before did not answer; so commands
    must do no harm when they are sent twice.

    Args:
        client: Of one server, of a Sentinel's master, or of a cluster, where each command goes to its key's node.
        commands: A whole command for each key.
        first: Whole commands that each pipeline starts with; an error reply to one is raised.
        writes: Whether the next server is waited for as long as one may take to be chosen, or as long as a reader can.

    Raises:
        redis.exceptions.RedisError: A server cannot be reached, or failed before it replied to everything.
    """
    patience_s = _WRITE_PATIENCE_S if writes else _READ_PATIENCE_S
    if is_one_server(client):
        return _OneServerExchange(client, keys, commands, first).replies(patience_s)
    kind = _ClusterExchange if isinstance(client, RedisCluster) else _SentinelExchange
    return kind(client, keys, commands, first).replies(patience_s)


def is_one_server(client: Client) -> TypeGuard[Redis]:
    """Whether no other server could answer in its place."""
    # Their base classes make `isinstance` slow, and Feast makes no others.
    return type(client) is Redis and type(client.connection_pool) is not SentinelConnectionPool


class _OneServerExchange:
    """An exchange, attempt by attempt until each command has its reply."""

    sent_again: tuple[type[RedisError], ...] = (NoScriptError,)
    """Errors after which a command is sent again."""

    def __init__(self, client: Any, keys: Sequence[bytes], commands: Sequence[bytes], first: Sequence[bytes]) -> None:
        self._client, self._keys, self._commands, self._first = client, keys, commands, first
        self._replies: list[Any] = [None] * len(keys)

    def replies(self, patience_s: float) -> list[Any]:
        left: Sequence[int] = range(len(self._keys))
        began = time.monotonic()
        for attempt in count(1):
            if attempt > 1:
                self.prepare_again(attempt)
            for node, places in self.nodes(left):
                self.send(node, places)
            self.follow(left)
            left = [place for place in left if isinstance(self._replies[place], self.sent_again)]
            if not left or (attempt >= _LEAST_ATTEMPTS and time.monotonic() - began > patience_s):
                break
        lost = next((reply for reply in self._replies if isinstance(reply, _LOST)), None)
        if lost is not None:
            raise lost
        return self._replies

    def prepare_again(self, attempt: int) -> None:
        """What must be done before the next attempt."""

    def nodes(self, places: Sequence[int]) -> Sequence[tuple[Redis, Sequence[int]]]:
        """Which commands go where."""
        return [(self._client, places)]

    def follow(self, places: Sequence[int]) -> None:
        """Ask another server where one said so."""

    def send(self, node: Redis, places: Sequence[int], before: Sequence[bytes] = ()) -> None:
        """Send commands to a server, each after what comes `before`; keep the replies."""
        stride = len(before) + 1
        for start in range(0, len(places), MAX_IN_FLIGHT):
            some = places[start : start + MAX_IN_FLIGHT]
            words = [word for place in some for word in (*before, self._commands[place])]
            try:
                found = _round_trip(node, words, self._first)[stride - 1 :: stride]
            except _LOST as error:
                if not isinstance(error, self.sent_again):
                    raise
                found = [error] * len(some)
            for place, reply in zip(some, found, strict=True):
                self._replies[place] = reply


class _SentinelExchange(_OneServerExchange):
    """An exchange with the master that a Sentinel names; after a fail-over with the next one."""

    sent_again = (NoScriptError, ReadOnlyError, *_LOST)

    def prepare_again(self, attempt: int) -> None:
        _pause(attempt)
        # Connections stay with the server they were made to, be it a master or not, until they are closed.
        self._client.connection_pool.disconnect(inuse_connections=False)


class _ClusterExchange(_OneServerExchange):
    """An exchange with all nodes of a cluster."""

    sent_again = (NoScriptError, *_REDIRECTIONS, *_LOST)

    def prepare_again(self, attempt: int) -> None:
        _pause(attempt)
        self._client.nodes_manager.initialize()

    def nodes(self, places: Sequence[int]) -> Sequence[tuple[Redis, Sequence[int]]]:
        found: dict[str, tuple[Redis, list[int]]] = {}
        for place in places:
            slot = self._client.keyslot(self._keys[place])
            try:
                node = self._client.nodes_manager.get_node_from_slot(slot)
            except SlotNotCoveredError as error:
                raise ClusterError(f"slot {slot} is covered by no node") from error
            if node.name not in found:
                found[node.name] = (self._client.get_redis_connection(node), [])
            found[node.name][1].append(place)
        return list(found.values())

    def follow(self, places: Sequence[int]) -> None:
        """Ask where a slot is moving to for keys that have left already; the layout stays as it is until the end."""
        targets: dict[tuple[str, int], list[int]] = {}
        for place in places:
            reply = self._replies[place]
            if isinstance(reply, AskError):
                targets.setdefault((reply.host, reply.port), []).append(place)
        for (host, port), some in targets.items():
            node = self._client.get_node(host=host, port=port)
            # A node that just joined is known after the next attempt's look at the layout.
            if node is not None:
                self.send(self._client.get_redis_connection(node), some, before=(_ASKING,))


def _round_trip(node: Redis, commands: Sequence[bytes], first: Sequence[bytes]) -> list[Any]:
    with sent(node, b"".join((*first, *commands))) as incoming:
        replies = incoming.take(len(first) + len(commands))
    for reply in replies[: len(first)]:
        if isinstance(reply, RedisError):
            raise reply
    return replies[len(first) :]


def _pause(attempt: int) -> None:
    """Nothing before the second attempt, then longer each time: what is being promoted takes a moment."""
    if attempt > 2:
        time.sleep(min(_FIRST_PAUSE_S * 2 ** min(attempt, 10), _LONGEST_PAUSE_S))
