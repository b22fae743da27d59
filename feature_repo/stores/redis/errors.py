"""What a server's errors mean for who reads or writes a feature view, and what to do about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from feast import FeatureView, RepoConfig
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.sentinel import MasterNotFoundError

from feature_repo.stores.online.errors import OnlineStoreTimeoutError, OnlineStoreUnavailableError
from feature_repo.stores.packed.entity_keys import key_text

_NODES = "all its slots must be covered: bring its nodes back, then try again"
_PERMISSIONS = "let its user run HMGET and, to write, SCRIPT LOAD, EVALSHA, HGET, HSET and EXPIRE"
_REMEDIES: tuple[tuple[type[Exception], str], ...] = (
    (ReadOnlyError, "connection_string must name the master or a Sentinel, not a replica"),
    (OutOfMemoryError, "raise its maxmemory or delete what is not used, then write again"),
    (NoPermissionError, _PERMISSIONS),
    (AuthenticationError, "correct username and password in connection_string"),
    (MasterNotFoundError, "sentinel_master must be a master that the Sentinels know, and one that is up"),
    (BusyLoadingError, "wait until it has loaded its data, then try again"),
    (ClusterError, _NODES),
    (RedisClusterException, _NODES),
)
_BY_TEXT = (
    ("ACL failure in script", _PERMISSIONS),
    # Redis 7.0 has no such prefix.
    ("The user executing the script can't run this command", _PERMISSIONS),
    ("MISCONF", "free space on its disk, where it cannot save, then write again"),
)
_OTHERWISE = "try again when it is well"


@contextmanager
def named_errors(config: RepoConfig, view: FeatureView, should: str) -> Iterator[None]:
    """Raise errors of a server as ours, with view, server, and what to do."""
    try:
        yield
    except (RedisError, RedisClusterException) as error:
        kind = OnlineStoreTimeoutError if isinstance(error, RedisTimeoutError) else OnlineStoreUnavailableError
        raise kind(
            f"Redis {_addresses(config)} must {should} for feature view {view.name} "
            f"(got {type(error).__name__}: {error}); what it holds are whole rows: {_remedy(error)}"
        ) from error


def check_written(config: RepoConfig, view: FeatureView, keys: Sequence[bytes], replies: Sequence[Any]) -> None:
    """Raise for rows that a server refused.

    Raises:
        OnlineStoreUnavailableError: With the first of them, and how many there are.
    """
    failed = [place for place, reply in enumerate(replies) if isinstance(reply, RedisError)]
    if failed:
        first, key = replies[failed[0]], keys[failed[0]]
        raise OnlineStoreUnavailableError(
            f"Redis {_addresses(config)} must take every row of feature view {view.name} (it refused {len(failed)} of "
            f"{len(replies)}, first entity key {key_text(key)}: {type(first).__name__}: {first}); {_remedy(first)}"
        ) from first


def _addresses(config: RepoConfig) -> str:
    """Servers of the connection string, without what may be a password."""
    parts = str(config.online_store.connection_string).split(",")
    return ",".join(part.rpartition("@")[2] for part in parts if "=" not in part)


def _remedy(error: Exception) -> str:
    by_kind = (remedy for kind, remedy in _REMEDIES if isinstance(error, kind))
    by_text = (remedy for text, remedy in _BY_TEXT if text in str(error))
    return next(by_kind, None) or next(by_text, _OTHERWISE)
