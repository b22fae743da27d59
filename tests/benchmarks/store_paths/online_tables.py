"""What is in the online stores, looked at with their own clients."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import redis
from feast import FeatureStore

from tests.benchmarks.store_paths.repos import PROJECT, VIEW

TABLE = f"{PROJECT}_{VIEW}"
"""Feast's name for the view's SQLite table and Milvus collection."""


def redis_port(settings: dict[str, Any]) -> int:
    """Port of a repo's Redis."""
    return int(settings["connection_string"].rpartition(":")[2])


def count_rows(name: str, settings: dict[str, Any], store: FeatureStore) -> int:
    """Entities that a store holds."""
    if name == "redis":
        held: Any = redis.Redis(port=redis_port(settings)).dbsize()
        return int(held)
    if name == "sqlite":
        with closing(sqlite3.connect(settings["path"])) as connection:
            query = f"SELECT COUNT(*) FROM {TABLE} WHERE feature_name = 'embedding'"
            return int(connection.execute(query).fetchone()[0])
    client = store._get_provider().online_store.client
    return int(client.query(TABLE, output_fields=["count(*)"])[0]["count(*)"])


def close_milvus(online: Any, settings: dict[str, Any]) -> None:
    """Stop the milvus-lite of this process."""
    from milvus_lite.server_manager import server_manager_instance

    if hasattr(online, "disconnect"):
        online.disconnect()
        return
    if online.client is not None:
        online.client.close()
    server_manager_instance.release_server(settings["path"])
