"""Feast registry in one SQLite table, found relative to the feature repo and never overwritten unread."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from feast.infra.registry.registry_store import RegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto
from feast.repo_config import RegistryConfig

_BUSY_TIMEOUT_S = 30.0
_REMEDIES = {
    "not a database": "a registry file of another kind must be moved away before `feast apply`",
    "malformed": "restore it, or move it away, `feast apply` and materialize again",
    "full": "free some disk space and run again",
    "readonly": "its file and folder must be writable",
    "unable to open": "its folder must be one that can be written",
    "locked": "wait for the process that writes it and run again",
}
_TABLE = """
CREATE TABLE IF NOT EXISTS feast_registry (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version_id TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    proto BLOB NOT NULL
)
"""


class RegistryConflictError(RuntimeError):
    """Another process changed the registry after this one read it; read again and repeat the change."""


class SqliteRegistryStore(RegistryStore):  # type: ignore[misc]
    """Registry store for `registry_store_type`, with `path` relative to the feature repo.

    Feast reads the whole registry, changes it in memory and writes it back. Every write here checks, in the
    transaction that writes, that the stored version is the one that was read.
    """

    def __init__(self, registry_config: RegistryConfig, repo_path: Path | None) -> None:
        if not registry_config.path:
            raise ValueError("registry.path must name a SQLite file (got ''); set it to data/registry.db")
        path = Path(registry_config.path)
        self._path = path if path.is_absolute() or repo_path is None else Path(repo_path) / path

    def get_registry_proto(self) -> RegistryProto:
        """Registry as it is stored.

        Raises:
            FileNotFoundError: Nothing was applied yet; Feast takes it as an empty registry.
        """
        if not self._path.exists():
            raise FileNotFoundError(f"no registry at {self._path}; run `feast apply`")
        with self._connection() as connection:
            if not _has_table(connection):
                raise FileNotFoundError(f"no registry in {self._path}; run `feast apply`")
            row = connection.execute("SELECT proto FROM feast_registry").fetchone()
        if row is None:
            raise FileNotFoundError(f"no registry in {self._path}; run `feast apply`")
        stored: RegistryProto = RegistryProto.FromString(row[0])
        return stored

    def update_registry_proto(self, registry_proto: RegistryProto) -> None:
        """Store the registry in one transaction.

        Raises:
            RegistryConflictError: The registry changed since `registry_proto` was read.
        """
        _create_folder(self._path.parent)
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            self._check_unchanged(connection, registry_proto.version_id)
            stored = RegistryProto()
            stored.CopyFrom(registry_proto)
            stored.version_id = str(uuid.uuid4())
            now = datetime.now(UTC)
            stored.last_updated.FromDatetime(now)
            row = (stored.version_id, now.isoformat(), stored.SerializeToString())
            connection.execute("INSERT OR REPLACE INTO feast_registry VALUES (1, ?, ?, ?)", row)
            connection.execute("COMMIT")
        registry_proto.version_id = stored.version_id
        registry_proto.last_updated.CopyFrom(stored.last_updated)

    def teardown(self) -> None:
        """Forget the registry; other tables of the database stay."""
        if self._path.exists():
            with self._connection() as connection:
                connection.execute("DROP TABLE IF EXISTS feast_registry")

    def _check_unchanged(self, connection: sqlite3.Connection, read_version: str) -> None:
        row = connection.execute("SELECT version_id FROM feast_registry").fetchone()
        stored_version = row[0] if row else None
        if stored_version not in (None, read_version):
            raise RegistryConflictError(
                f"registry {self._path} must be at the version that was read (read {read_version or 'none'!r}, "
                f"stored {stored_version!r}): another process changed it; refresh the registry and run again"
            )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # isolation_level=None: transactions are the explicit ones above; closing one midway rolls it back.
        with closing(sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)) as connection:
            try:
                yield connection
            except sqlite3.DatabaseError as error:
                remedy = next((what for sign, what in _REMEDIES.items() if sign in str(error)), "try again")
                raise RuntimeError(
                    f"registry {self._path} must be a SQLite database that can be read and written (got: {error}); "
                    f"{remedy}"
                ) from error


def _has_table(connection: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'feast_registry'"
    return connection.execute(query).fetchone() is not None


def _create_folder(folder: Path) -> None:
    if folder.is_symlink() and not folder.exists():
        raise FileNotFoundError(
            f"{folder} must point at a run's data (got a link to {folder.readlink()}, which is gone); "
            "delete the link or select another run"
        )
    folder.mkdir(parents=True, exist_ok=True)
