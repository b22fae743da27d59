"""The registry in a SQLite table."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from feast import Entity
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.repo_config import RegistryConfig

from feature_repo.layout import create_repo, open_store
from feature_repo.stores.sqlite.registry import RegistryConflictError, SqliteRegistryStore
from tests.feature_repo.repos import MANIFEST


def registry_store(repo: Path) -> SqliteRegistryStore:
    return SqliteRegistryStore(RegistryConfig(path="data/registry.db"), repo)


def test_registry_lies_relative_to_the_repo_and_is_read_back(tmp_path: Path) -> None:
    stored = Registry(registry_schema_version="1")
    registry_store(tmp_path).update_registry_proto(stored)
    assert (tmp_path / "data" / "registry.db").is_file()
    assert registry_store(tmp_path).get_registry_proto() == stored


def test_registry_is_not_found_before_the_first_write(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run `feast apply`"):
        registry_store(tmp_path).get_registry_proto()


def test_registry_is_not_found_in_a_database_of_others(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    sqlite3.connect(tmp_path / "data" / "registry.db").execute("CREATE TABLE releases (id INTEGER)").close()
    with pytest.raises(FileNotFoundError, match="run `feast apply`"):
        registry_store(tmp_path).get_registry_proto()


def test_update_refuses_to_overwrite_what_it_has_not_read(tmp_path: Path) -> None:
    registry_store(tmp_path).update_registry_proto(Registry())
    mine, theirs = (registry_store(tmp_path).get_registry_proto() for _ in range(2))
    registry_store(tmp_path).update_registry_proto(theirs)
    with pytest.raises(RegistryConflictError, match="another process changed it"):
        registry_store(tmp_path).update_registry_proto(mine)
    assert registry_store(tmp_path).get_registry_proto().version_id == theirs.version_id


def test_feast_refuses_a_lost_update_of_two_open_stores(tmp_path: Path) -> None:
    create_repo(tmp_path, MANIFEST)
    first = open_store(tmp_path)
    first.apply([Entity(name="first", join_keys=["first_id"])])
    second, third = open_store(tmp_path), open_store(tmp_path)
    for store in (second, third):
        assert store.registry.list_entities("headwater")
    third.registry.apply_entity(Entity(name="third", join_keys=["third_id"]), "headwater")
    with pytest.raises(RegistryConflictError):
        second.registry.apply_entity(Entity(name="second", join_keys=["second_id"]), "headwater")
    names = {entity.name for entity in open_store(tmp_path).registry.list_entities("headwater")}
    assert {"first", "third"} <= names


def test_teardown_leaves_other_tables(tmp_path: Path) -> None:
    registry_store(tmp_path).update_registry_proto(Registry())
    path = tmp_path / "data" / "registry.db"
    sqlite3.connect(path).execute("CREATE TABLE releases (id INTEGER)").close()
    registry_store(tmp_path).teardown()
    tables = sqlite3.connect(path).execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert tables == [("releases",)]


def test_registry_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "registry.db").write_bytes(b"a protobuf registry, not a database" * 100)
    with pytest.raises(RuntimeError, match="must be a SQLite database"):
        registry_store(tmp_path).get_registry_proto()


def test_registry_that_is_being_written_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_repo.stores.sqlite.registry._BUSY_TIMEOUT_S", 0.05)
    registry_store(tmp_path).update_registry_proto(Registry())
    path = tmp_path / "data" / "registry.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RuntimeError, match=rf"registry {path} .*locked.*wait for the process that writes it"):
            registry_store(tmp_path).update_registry_proto(registry_store(tmp_path).get_registry_proto())


def test_link_to_a_deleted_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="select another run"):
        registry_store(tmp_path).update_registry_proto(Registry())


def test_registry_path_must_be_given(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"set it to data/registry\.db"):
        SqliteRegistryStore(RegistryConfig(), tmp_path)
