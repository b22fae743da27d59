"""A catalogue in each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete, event, inspect, text, update
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from feature_repo.catalogue.tables import SCHEMA_VERSION, metadata, pointers, schema
from feature_repo.versions import Catalogue
from tests.feature_repo.catalogue.kills import do_not_sync
from tests.feature_repo.catalogue.postgres_server import running, why_absent


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """A PostgreSQL server that lives as long as the tests."""
    reason = why_absent() or (None if find_spec("psycopg") else "psycopg must be installed (extra `postgres`)")
    if reason is not None:
        pytest.skip(reason)
    with running() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: URL) -> URL:
    """The server's database without any table."""
    engine = create_engine(postgres_server, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return postgres_server


@pytest.fixture
def postgres_catalogue(postgres_server: URL) -> URL:
    """The server's database with the tables of a catalogue that was never used: quicker than making them each time."""
    engine = create_engine(postgres_server, poolclass=NullPool)
    if inspect(engine).has_table(schema.name):
        with engine.begin() as connection:
            unset = {"live": None, "shadow": None, "shadow_share": 0.0, "revision": 0, "promotion": None}
            connection.execute(update(pointers).values(**unset))
            connection.execute(update(schema).values(schema_version=SCHEMA_VERSION))
            for table in reversed(metadata.sorted_tables):
                if table is not schema and table is not pointers:
                    connection.execute(delete(table))
    return postgres_server


@pytest.fixture
def file_url(tmp_path: Path) -> URL:
    """A SQLite file that is not there yet."""
    return URL.create("sqlite", database=str(tmp_path / "registry.db"))


@pytest.fixture(params=["file_url", "postgres_catalogue"], ids=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> URL:
    """Where an empty catalogue is or may be made, in each kind of database."""
    found: URL = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["file_url", "postgres_url"], ids=["sqlite", "postgresql"])
def url_without_tables(request: pytest.FixtureRequest) -> URL:
    """Where a catalogue may be made, in each kind of database."""
    found: URL = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def catalogue(url: URL) -> Iterator[Catalogue]:
    """An empty catalogue in each kind of database."""
    with opened(url) as made:
        yield made


@pytest.fixture
def file_catalogue(file_url: URL) -> Iterator[Catalogue]:
    """An empty catalogue in a file."""
    with opened(file_url) as made:
        yield made


@contextmanager
def opened(url: URL) -> Iterator[Catalogue]:
    """A catalogue that a file need not be synchronised for, closed afterwards."""
    made = Catalogue(url)
    if url.get_backend_name() == "sqlite":
        event.listen(made._database.engine, "connect", do_not_sync)
    yield made
    made.close()
