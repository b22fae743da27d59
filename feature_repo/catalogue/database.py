"""The catalogue's database: one transaction at a time writes, readers see one moment, tables exist."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from feature_repo.catalogue.errors import CatalogueError, CatalogueUnavailableError
from feature_repo.catalogue.records import now
from feature_repo.catalogue.tables import SCHEMA_VERSION, metadata, pointers, schema, split

BUSY_TIMEOUT_S: Final = 30.0
"""How long a writer waits for another one."""
_CREATION_LOCK: Final = 5_017_331_180
"""PostgreSQL advisory lock under which the tables are created."""


class Database:
    """Transactions on the catalogue's tables, which it creates when they are absent.

    Raises:
        CatalogueError: The tables were made by another version of Headwater, or the URL is none.
        CatalogueUnavailableError: The database cannot be reached.
    """

    def __init__(self, url: str | URL) -> None:
        self._url = _parsed(url)
        self.engine = _engine(self._url)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._ensure_tables()

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close idle connections; the next transaction opens others."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Transaction in which every read sees one moment and waits for no writer."""
        with self._translated(), self._own_engine().connect() as connection:
            if not self._sqlite:
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """The one transaction that may write now; rolled back as a whole by any exception."""
        with self._beginning() as connection:
            if not self._sqlite:
                # SQLite locks the file as the transaction begins; elsewhere this row is the lock.
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_S:.0f}s'")
                connection.execute(select(pointers.c.id).with_for_update())
            yield connection

    @contextmanager
    def _beginning(self) -> Iterator[Connection]:
        """Transaction that may write once it has the lock."""
        with self._translated(), self._own_engine().connect() as connection:
            writing = connection.execution_options(headwater_writes=True)
            with writing.begin():
                yield writing

    @property
    def _sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def _own_engine(self) -> Engine:
        """The engine, without connections of the process that this one was forked from."""
        if self._process != os.getpid():
            with self._lock:
                self.engine.dispose(close=False)
                self._process = os.getpid()
        return self.engine

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise CatalogueUnavailableError(
                f"catalogue {self} must be a database that can be read and written (got: {error.orig}); "
                "see that it runs, then repeat the command: what was not done as a whole was not done at all"
            ) from error

    def _ensure_tables(self) -> None:
        if self._sqlite and self._url.database:
            _create_folder(Path(self._url.database).parent)
        with self._translated(), self.engine.connect() as connection:
            stored = _schema_version(connection)
            lacking = stored == SCHEMA_VERSION and not inspect(connection).has_table(split.name)
        if stored is None or lacking:
            self._create_tables()
            stored = SCHEMA_VERSION
        if stored != SCHEMA_VERSION:
            raise CatalogueError(
                f"catalogue {self} must have schema {SCHEMA_VERSION} (got {stored}): another version of Headwater made "
                "it; use that one"
            )

    def _create_tables(self) -> None:
        with self._beginning() as connection:
            if not self._sqlite:
                connection.execute(select(func.pg_advisory_xact_lock(_CREATION_LOCK)))
            stored = _schema_version(connection)
            metadata.create_all(connection)
            if stored is None:
                connection.execute(insert(pointers).values(id=1, shadow_share=0.0, revision=0))
                connection.execute(insert(schema).values(id=1, schema_version=SCHEMA_VERSION, created=now()))


def _parsed(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise CatalogueError(
            "the catalogue's URL must be one of SQLAlchemy's, such as sqlite:///data/registry.db or "
            "postgresql+psycopg://user@host/database (got one that cannot be read; it is not shown for its password)"
        ) from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise CatalogueError(f"the catalogue must be in SQLite or PostgreSQL (got {parsed.get_backend_name()!r})")
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    # No pool: a file may be moved or replaced with the run, and no connection outlives a fork.
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, record: Any) -> None:
    del record
    # Transactions are the explicit ones of _begin_sqlite.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("headwater_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _schema_version(connection: Connection) -> int | None:
    if not inspect(connection).has_table(schema.name):
        return None
    stored: int = connection.execute(select(schema.c.schema_version)).scalar_one()
    return stored


def _create_folder(folder: Path) -> None:
    if folder.is_symlink() and not folder.exists():
        raise CatalogueError(
            f"{folder} must point at a run's data (got a link to {folder.readlink()}, which is gone); "
            "delete the link or select another run"
        )
    folder.mkdir(parents=True, exist_ok=True)
