"""Connections to Milvus: a milvus-lite file that this process owns, or a server by its URI."""

from __future__ import annotations

import fcntl
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from feast.infra.online_stores.milvus_online_store.milvus import _milvus_token
from pymilvus import MilvusClient, MilvusException

from feature_repo.stores.online.errors import OnlineStoreUnavailableError

_LOCK_FILE = "LOCK"


class Guard:
    """What the writers of one database in this process share, however many store objects they have."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Held by whoever compares with what is stored and then writes."""
        self.newest: dict[str, int] = {}
        """Of a milvus-lite file, per collection, a moment that no stored row is newer than."""


_GUARDS: dict[str, Guard] = defaultdict(Guard)


def guard_of(address: str) -> Guard:
    """The guard of a milvus-lite file or of a server."""
    return _GUARDS[address]


def connect_lite(path: Path) -> MilvusClient:
    """Client of a milvus-lite file; the database runs in this process, and its threads share it.

    Raises:
        OnlineStoreUnavailableError: Another process has it open, or it cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return MilvusClient(str(path))
    except MilvusException as error:
        if _is_locked(path):
            raise OnlineStoreUnavailableError(
                f"milvus-lite file {path} must be open in one process at a time (got a second one); "
                "end the other process, or use a Milvus server: `uri` in feature_store.yaml"
            ) from error
        raise OnlineStoreUnavailableError(
            f"milvus-lite file {path} must be a readable database (got: {error}); move it away and materialize again"
        ) from error


def connect_server(settings: Any) -> MilvusClient:
    """Client of a Milvus server.

    Raises:
        OnlineStoreUnavailableError: The server does not answer.
    """
    uri = settings.uri or f"{settings.host}:{settings.port}"
    named = {"db_name": settings.db_name} if settings.db_name else {}
    try:
        return MilvusClient(uri=uri, token=_milvus_token(settings), timeout=settings.timeout_s, **named)
    except MilvusException as error:
        raise OnlineStoreUnavailableError(
            f"Milvus must answer at the address of feature_store.yaml (got: {error.message}); start it, or mend `uri`"
        ) from error


def close_lite(path: Path) -> None:
    """Stop the database of a file, so that another process may open it."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(path))
    guard_of(str(path)).newest.clear()


@contextmanager
def named_errors(view: str, should: str) -> Iterator[None]:
    """Errors of Milvus with the feature view; the server's address may hold a token, so it is not in them."""
    try:
        yield
    except MilvusException as error:
        raise OnlineStoreUnavailableError(
            f"Milvus must {should} for feature view {view} (got {error.code}: {error.message}); "
            "what it holds are whole rows: try again when it is well"
        ) from error


def _is_locked(path: Path) -> bool:
    lock = path / _LOCK_FILE
    if not lock.exists():
        return False
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
