"""The database under the catalogue: schema, transactions, what is told when it cannot be used."""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import MetaData, create_engine, insert, inspect, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL
from sqlalchemy.exc import StatementError
from sqlalchemy.schema import CreateIndex, CreateTable

from feature_repo.catalogue import tables
from feature_repo.versions import Catalogue, CatalogueError, CatalogueUnavailableError
from tests.feature_repo.catalogue.lives import ALICE, add_live, version


def test_schema_version_is_recorded(catalogue: Catalogue) -> None:
    with catalogue._database.reading() as connection:
        assert connection.execute(select(tables.schema.c.schema_version)).scalar_one() == tables.SCHEMA_VERSION


def test_tables_of_another_schema_version_are_left_alone(catalogue: Catalogue, url: URL) -> None:
    with catalogue._database.writing() as connection:
        connection.execute(update(tables.schema).values(schema_version=99))
    with pytest.raises(CatalogueError, match=r"must have schema 1 \(got 99\): another version of Headwater"):
        Catalogue(url)


def test_stored_tables_are_those_that_are_declared(catalogue: Catalogue) -> None:
    stored = MetaData()
    stored.reflect(catalogue._database.engine)
    declared = {name: set(table.columns.keys()) for name, table in tables.metadata.tables.items()}
    assert {name: set(table.columns.keys()) for name, table in stored.tables.items()} == declared
    indexes = inspect(catalogue._database.engine).get_indexes("headwater_releases")
    assert "headwater_one_live_release" in {index["name"] for index in indexes if index["unique"]}


def test_statements_are_postgresql() -> None:
    dialect = postgresql.dialect()
    ddl = {table.name: str(CreateTable(table).compile(dialect=dialect)) for table in tables.metadata.sorted_tables}
    assert "gates JSON NOT NULL" in ddl["headwater_days"]
    assert "cutoff TIMESTAMP WITH TIME ZONE NOT NULL" in ddl["headwater_days"]
    live = next(index for index in tables.releases.indexes if index.name == "headwater_one_live_release")
    assert "WHERE state = 'live'" in str(CreateIndex(live).compile(dialect=dialect))
    lock = select(tables.pointers.c.id).with_for_update()
    assert str(lock.compile(dialect=dialect)).endswith("FOR UPDATE")


def test_database_itself_refuses_a_second_live_release(catalogue: Catalogue) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    add_live(catalogue, "r-2", "ctr_v1")
    with pytest.raises(Exception, match=r"(?i)unique"), catalogue._database.writing() as connection:
        connection.execute(update(tables.releases).values(state="live"))


def test_naive_timestamps_never_reach_a_table(catalogue: Catalogue) -> None:
    row = {"subject": "x", "who": "x", "why": "x", "details": {}, "at": datetime(2024, 3, 1)}
    with pytest.raises(StatementError, match="UTC-aware"), catalogue._database.writing() as connection:
        connection.execute(insert(tables.transitions).values(**row))


def test_reader_is_not_held_up_by_a_writer_that_takes_its_time(catalogue: Catalogue, url: URL) -> None:
    add_live(catalogue, "r-1", "ctr_v1")
    server = Catalogue(url)
    with catalogue._database.writing() as connection:
        connection.execute(update(tables.pointers).values(revision=7))
        assert server.pointers().revision == 1
    assert server.pointers().revision == 7
    server.close()


def test_reader_sees_one_moment(catalogue: Catalogue, url: URL) -> None:
    operator = Catalogue(url)
    with catalogue._database.reading() as connection:
        assert connection.execute(select(tables.pointers.c.revision)).scalar_one() == 0
        if catalogue._database.engine.dialect.name == "postgresql":
            # SQLite makes the writer wait for this reader instead.
            add_live(operator, "r-1", "ctr_v1")
        assert connection.execute(select(tables.pointers.c.revision)).scalar_one() == 0
    operator.close()


def test_catalogue_works_on_in_a_forked_process(catalogue: Catalogue) -> None:
    catalogue.create_version(version("ctr_v1"), **ALICE)
    child = os.fork()
    if child == 0:
        try:
            catalogue.create_version(version("ctr_v2"), **ALICE)
            os._exit(len(catalogue.versions()))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert [each.key for each in catalogue.versions()] == ["ctr_v1", "ctr_v2"]


def test_catalogue_works_on_after_close(catalogue: Catalogue) -> None:
    catalogue.close()
    catalogue.create_version(version("ctr_v1"), **ALICE)
    assert catalogue.version("ctr_v1").key == "ctr_v1"


def test_postgresql_that_was_restarted_is_used_again(postgres_url: URL) -> None:
    catalogue = Catalogue(postgres_url.set(drivername="postgresql"))
    catalogue.pointers()
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()"
        connection.execute(text(f"{others} AND query LIKE '%headwater_pointers%'"))
    assert catalogue.pointers().revision == 0
    engine.dispose()
    catalogue.close()


def test_password_is_never_shown(tmp_path: Path) -> None:
    url = f"postgresql://team:s3cret@/database?host={tmp_path}"
    with pytest.raises(CatalogueUnavailableError, match=r"team:\*\*\*@") as refused:
        Catalogue(url)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(CatalogueError, match="not shown for its password") as refused_url:
        Catalogue("team:s3cret")
    assert "s3cret" not in str(refused_url.value)


def test_other_databases_are_refused() -> None:
    with pytest.raises(CatalogueError, match=r"SQLite or PostgreSQL \(got 'mysql'\)"):
        Catalogue("mysql://host/database")


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_text("a registry of another kind, which is long enough to be looked at" * 20)
    with pytest.raises(CatalogueUnavailableError, match="file is not a database"):
        Catalogue(f"sqlite:///{path}")


def test_folder_is_made_and_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    Catalogue(f"sqlite:///{tmp_path}/run/data/registry.db")
    assert (tmp_path / "run" / "data" / "registry.db").is_file()
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CatalogueError, match=r"got a link to .*nowhere, which is gone"):
        Catalogue(f"sqlite:///{tmp_path}/gone/registry.db")


def test_file_keeps_no_connection_open(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    catalogue = Catalogue(f"sqlite:///{path}")
    catalogue.pointers()
    opened = [each.resolve() for each in Path("/proc/self/fd").iterdir()]
    assert path.resolve() not in opened
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_representation_names_the_database_without_the_password(tmp_path: Path) -> None:
    assert repr(Catalogue(f"sqlite:///{tmp_path}/a.db")) == f"Catalogue('sqlite:///{tmp_path}/a.db')"


def test_catalogue_of_before_there_were_splits_gets_their_table(catalogue: Catalogue, url: URL) -> None:
    with catalogue._database.writing() as connection:
        tables.split.drop(connection)
    assert Catalogue(url).pointers().split is None
