"""SQLite online store that writes tables in one transaction and keeps rows in order.

Tables and values are those of Feast's own SQLite store, with one more column, `event_us`: Feast keeps whole seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.infra.key_encoding_utils import deserialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo.stores.online.errors import OnlineStoreUnavailableError
from feature_repo.stores.online.read_clock import Clock
from feature_repo.stores.packed.cells import CellRequest, Cells
from feature_repo.stores.packed.checks import checked_table
from feature_repo.stores.packed.reads import PackedReads
from feature_repo.stores.packed.rows import KEY_VERSION, RowChunk, batch_chunks, check_key_version, table_chunks
from feature_repo.stores.packed.times import NO_TIME, to_datetime
from feature_repo.stores.prefetch import prefetch
from feature_repo.stores.sqlite.cells import TableWriter, add_micros_column, read_table

CHUNK_ROWS = 10_000
"""Rows that are encoded and compared at once; the transaction spans all of them."""

PAGE_BYTES = 16_384
"""Page size of a new file."""

_REMEDIES = {
    "no such table": "run `feast apply`",
    "readonly": "make the file and its folder writable",
    "full": "free some disk space and try again",
    "locked": "another process writes the file; try again, or raise busy_timeout_ms",
}
"""What to do, by a word of SQLite's error."""

JournalMode = Literal["wal", "delete"]


class PackedSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):  # type: ignore[misc]
    """Feast's SQLite settings and three of ours."""

    type: Literal["feature_repo.stores.sqlite.packed_store.PackedSqliteOnlineStore"] = (
        "feature_repo.stores.sqlite.packed_store.PackedSqliteOnlineStore"
    )
    clock: Clock = "wall"
    """Against what rows age in `get_online_features`: `wall`, or `materialized` for logs that ended long ago."""
    busy_timeout_ms: int = 30_000
    """How long to wait for another writer."""
    journal_mode: JournalMode = "wal"
    """`wal` lets servers read while a table is written; `delete` suits files that are read from a read-only disk.

    A file goes over to `wal` when it is first read: until then there is nobody to keep waiting, and every page is
    written once rather than twice.
    """


class PackedSqliteOnlineStore(PackedReads, SqliteOnlineStore):  # type: ignore[misc]
    """Feast's SQLite store, with packed tables, order-safe writes, and TTL enforced on reads."""

    _is_wal = False

    def update(self, config: RepoConfig, tables_to_delete: Any, tables_to_keep: Any, *args: Any, **kwargs: Any) -> None:
        """Create and drop tables, as Feast does, and add the column for microseconds."""
        super().update(config, tables_to_delete, tables_to_keep, *args, **kwargs)
        connection = self._get_conn(config)
        # `feast delete` names the view among both.
        gone = {view.name for view in tables_to_delete}
        for view in (each for each in tables_to_keep if each.name not in gone):
            add_micros_column(connection, _table(config, view))

    def write_table(
        self, config: RepoConfig, view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None = None
    ) -> int:
        """Write the rows of a view in one transaction; see `PackedOnlineStore.write_table`.

        Of equal event_timestamps the last write stays.
        """
        check_key_version(config, view.name)
        chunks = table_chunks(checked_table(view, table), num_rows=CHUNK_ROWS, by_key=True)
        # The next rows are encoded while these are inserted.
        with prefetch(chunks, is_ahead=table.num_rows > CHUNK_ROWS) as ready:
            return self._write(config, view, ready, progress)

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Feast's write of protobuf rows, with the same guard."""
        chunks = (chunk.by_key() for chunk in batch_chunks(table, data, config=config))
        self._write(config, table, chunks, progress)

    def _write(
        self, config: RepoConfig, view: FeatureView, chunks: Iterable[RowChunk], progress: Callable[[int], Any] | None
    ) -> int:
        """Write chunks in one transaction that holds the write lock from the first comparison to the end."""
        written = 0
        with _named_errors(config, view), self._transaction(config) as connection:
            target = TableWriter(connection, _table(config, view))
            for chunk in chunks:
                newer = target.newer_rows(chunk)
                if _has_stock_columns(config):
                    _insert_as_feast(config, view, connection, newer)
                else:
                    target.insert(newer)
                written += len(newer.keys)
                if progress:
                    progress(len(chunk.keys))
        return written

    @contextmanager
    def _transaction(self, config: RepoConfig) -> Iterator[sqlite3.Connection]:
        """A connection of its own, so that reads never see what is not committed; rolled back on any error."""
        settings = config.online_store
        connection = sqlite3.connect(self._get_db_path(config), settings.busy_timeout_ms / 1000, isolation_level=None)
        try:
            if settings.journal_mode == "delete":
                connection.execute("PRAGMA journal_mode = delete")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            # Closing rolls back what was not committed.
            connection.close()

    def _get_conn(self, config: RepoConfig) -> Any:
        fresh = not self._conn
        connection = super()._get_conn(config)
        if fresh:
            self._is_wal = False
            # Only for a file that is still empty; a third less to copy and to search than with SQLite's 4096.
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute(f"PRAGMA busy_timeout = {config.online_store.busy_timeout_ms}")
        return connection

    def read_cells(self, config: RepoConfig, requests: Sequence[CellRequest]) -> list[Cells]:
        """What the store holds for each request, one query per view and ten thousand keys."""
        found = []
        for request in requests:
            with _named_errors(config, request.view):
                connection = self._read_connection(config)
                found.append(read_table(connection, _table(config, request.view), request))
        return found

    def retrieve_online_documents(self, config: RepoConfig, table: FeatureView, *args: Any, **kwargs: Any) -> Any:
        """Refuse: there is no vector search here.

        Raises:
            ValueError: Always, with what to use instead.
        """
        del args, kwargs
        raise _no_vector_search(config, table)

    def retrieve_online_documents_v2(self, config: RepoConfig, table: FeatureView, *args: Any, **kwargs: Any) -> Any:
        """Feast's text search, and no vector search.

        Raises:
            ValueError: Vector search is asked for.
        """
        if config.online_store.vector_enabled or not config.online_store.text_search_enabled:
            raise _no_vector_search(config, table)
        try:
            return super().retrieve_online_documents_v2(config, table, *args, **kwargs)
        finally:
            # Feast fills its index anew for every search, and leaves the transaction open, which locks writers out.
            self._get_conn(config).rollback()

    def _read_connection(self, config: RepoConfig) -> Any:
        connection = self._get_conn(config)
        if config.online_store.journal_mode == "wal" and not self._is_wal:
            self._is_wal = _goes_to_wal(connection, config.online_store.busy_timeout_ms)
        return connection


def _table(config: RepoConfig, view: FeatureView) -> str:
    return str(compute_table_id(config.project, view, config.registry.enable_online_feature_view_versioning))


def _goes_to_wal(connection: sqlite3.Connection, busy_timeout_ms: int) -> bool:
    """Whether the file is in WAL mode now; one that is read-only or being written stays as it is, and can be read."""
    try:
        connection.execute("PRAGMA busy_timeout = 0")
        (mode,) = connection.execute("PRAGMA journal_mode = wal").fetchone()
    except sqlite3.OperationalError:
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
    return bool(mode == "wal")


def _no_vector_search(config: RepoConfig, view: FeatureView) -> ValueError:
    # Feast loads sqlite-vec on Python 3.10 and on no other.
    return ValueError(
        f"feature view {view.name} must be in a store with vector search "
        f"(got SQLite store {config.online_store.path}); set online_store.type to "
        "feature_repo.stores.milvus.packed_store.PackedMilvusOnlineStore, or text_search_enabled without "
        "vector_enabled to search by text"
    )


def _has_stock_columns(config: RepoConfig) -> bool:
    return bool(config.online_store.vector_enabled or config.online_store.enable_openai_compatible_store)


def _insert_as_feast(config: RepoConfig, view: FeatureView, connection: sqlite3.Connection, chunk: RowChunk) -> None:
    """Feast's own insert, which also fills the columns of vector and numeric search; it keeps whole seconds."""
    rows = []
    for place, key in enumerate(chunk.keys):
        values = {name: Value.FromString(held[place]) for name, held in zip(chunk.names, chunk.values, strict=True)}
        created = int(chunk.created_micros[place])
        moments = (to_datetime(int(chunk.event_micros[place])), None if created == NO_TIME else to_datetime(created))
        rows.append((deserialize_entity_key(key, KEY_VERSION), values, *moments))
    feast_store = SqliteOnlineStore()
    feast_store._conn = _OpenTransaction(connection)
    feast_store.online_write_batch(config, view, rows, None)


class _OpenTransaction:
    """A connection whose `with` block, in which Feast inserts, leaves the transaction open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.execute = connection.execute

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


@contextmanager
def _named_errors(config: RepoConfig, view: FeatureView) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        remedy = next((what for sign, what in _REMEDIES.items() if sign in str(error)), "try again")
        raise OnlineStoreUnavailableError(
            f"SQLite store {config.online_store.path} must serve feature view {view.name} (got {error}); "
            f"nothing was written by it: {remedy}"
        ) from error
