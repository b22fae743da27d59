"""Pipelines of ready-made Redis commands: one buffer out, the replies back in order.

redis-py packs a command piece by piece, which costs more than the server needs for it. Here the caller gives the bytes.
Source: Redis serialization protocol specification, "RESP protocol description".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.cluster import RedisCluster
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    MovedError,
    RedisError,
    ResponseError,
    SlotNotCoveredError,
    TryAgainError,
)

MAX_IN_FLIGHT = 2000
"""Commands of one pipeline; the replies to them are in memory together."""
_REDIRECTIONS = (MovedError, AskError, TryAgainError, ClusterDownError)
_ATTEMPTS = 5

Client = Redis | RedisCluster


def bulk(value: bytes) -> bytes:
    """A bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def command(*words: bytes) -> bytes:
    """A whole command."""
    return b"*%d\r\n" % len(words) + b"".join(bulk(word) for word in words)


def exchange(
    client: Client, keys: Sequence[bytes], commands: Sequence[bytes], first: Sequence[bytes] = ()
) -> list[Any]:
    """Replies to one command per key, in the order of the keys; an error reply is its exception.

    Args:
        client: Of one server, of a Sentinel's master, or of a cluster, where each command goes to its key's node.
        commands: A whole command for each key.
        first: Whole commands that each pipeline starts with; an error reply to one is raised.

    Raises:
        redis.exceptions.RedisError: A server cannot be reached, or failed before it replied to everything.
    """
    replies: list[Any] = [None] * len(keys)
    left: list[int] = list(range(len(keys)))
    for attempt in range(_ATTEMPTS):
        for node, positions in _by_node(client, keys, left):
            for start in range(0, len(positions), MAX_IN_FLIGHT):
                some = positions[start : start + MAX_IN_FLIGHT]
                answered = _round_trip(node, [*first, *(commands[position] for position in some)], len(first))
                for position, reply in zip(some, answered, strict=True):
                    replies[position] = reply
        left = [position for position in left if isinstance(replies[position], _REDIRECTIONS)]
        if not left or not isinstance(client, RedisCluster) or attempt + 1 == _ATTEMPTS:
            break
        # The slots have moved: learn the new layout and ask again for what was redirected.
        client.nodes_manager.initialize()
    return replies


def _by_node(client: Client, keys: Sequence[bytes], positions: list[int]) -> list[tuple[Redis, Sequence[int]]]:
    if not isinstance(client, RedisCluster):
        return [(client, positions)]
    found: dict[str, tuple[Redis, list[int]]] = {}
    for position in positions:
        slot = client.keyslot(keys[position])  # type: ignore[no-untyped-call]
        try:
            node = client.nodes_manager.get_node_from_slot(slot)
        except SlotNotCoveredError as error:
            raise ClusterError(f"slot {slot} is covered by no node") from error
        if node.name not in found:
            found[node.name] = (client.get_redis_connection(node), [])
        found[node.name][1].append(position)
    return list(found.values())


def _round_trip(node: Redis, commands: Sequence[bytes], num_first: int) -> list[Any]:
    pool = node.connection_pool
    connection = pool.get_connection()
    try:
        connection.send_packed_command([b"".join(commands)])  # type: ignore[no-untyped-call]
        replies = _replies(connection, len(commands))
    except BaseException:
        # Replies may still be under way; they must not be taken for those to the next commands.
        connection.disconnect()  # type: ignore[no-untyped-call]
        raise
    finally:
        pool.release(connection)
    for reply in replies[:num_first]:
        if isinstance(reply, RedisError):
            raise reply
    return replies[num_first:]


def _replies(connection: Any, num_replies: int) -> list[Any]:
    replies: list[Any] = []
    read = connection.read_response
    while len(replies) < num_replies:
        try:
            while len(replies) < num_replies:
                replies.append(read(disable_decoding=True, disconnect_on_error=False))
        except ResponseError as error:
            replies.append(error)
    return replies
