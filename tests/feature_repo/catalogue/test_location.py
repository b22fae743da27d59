"""The catalogue of a feature repo: in its registry's database, where Feast leaves it alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from feast import FeatureStore
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import URL

from feature_repo.catalogue.location import url_of_repo
from feature_repo.layout import apply, create_repo, forget, open_store
from feature_repo.versions import URL_VARIABLE, Catalogue, CatalogueError
from tests.feature_repo.catalogue.lives import ALICE, add_live, states, version
from tests.feature_repo.repos import MANIFEST


def write_registry(repo: Path, registry: str) -> None:
    repo.mkdir(parents=True, exist_ok=True)
    (repo / "feature_store.yaml").write_text(f"project: headwater\nprovider: local\nregistry: {registry}\n")


@pytest.mark.parametrize("profile", ["embedded", "redis"])
def test_catalogue_is_in_the_registry_of_a_profile(tmp_path: Path, profile: str) -> None:
    create_repo(tmp_path / "what? a #run", MANIFEST, profile)
    Catalogue.of_repo(tmp_path / "what? a #run")
    with sqlite3.connect(tmp_path / "what? a #run" / "data" / "registry.db") as connection:
        assert connection.execute("SELECT count(*) FROM headwater_versions").fetchone() == (0,)


def test_catalogue_of_a_repo_that_is_not_made_yet_is_where_it_will_be(tmp_path: Path) -> None:
    Catalogue.of_repo(tmp_path / "repo")
    assert (tmp_path / "repo" / "data" / "registry.db").is_file()


def test_catalogue_follows_an_sql_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_HOST", "db.example")
    write_registry(tmp_path, "{registry_type: sql, path: 'postgresql://${REGISTRY_HOST}/feast'}")
    assert str(url_of_repo(tmp_path)) == "postgresql://db.example/feast"


def test_repo_of_the_postgres_profile_keeps_registry_and_catalogue_there(
    tmp_path: Path, postgres_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_URL", postgres_url.render_as_string(hide_password=False))
    create_repo(tmp_path, MANIFEST, "postgres")
    apply(tmp_path)
    Catalogue.of_repo(tmp_path)
    assert open_store(tmp_path).get_feature_service("ranking__ctr_v1").name == "ranking__ctr_v1"
    assert {"feature_views", "headwater_versions"} <= set(inspect(create_engine(postgres_url)).get_table_names())
    assert not (tmp_path / "data" / "registry.db").exists()


def test_variable_names_another_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, f"sqlite:///{tmp_path}/elsewhere.db")
    Catalogue.of_repo(tmp_path / "repo")
    assert (tmp_path / "elsewhere.db").is_file()
    assert not (tmp_path / "repo" / "data" / "registry.db").exists()


@pytest.mark.parametrize(
    "registry", ["data/registry.db", "{path: 's3://bucket/registry.pb'}", "{registry_type: remote}"]
)
def test_registry_that_holds_no_tables_needs_the_variable(tmp_path: Path, registry: str) -> None:
    write_registry(tmp_path, registry)
    with pytest.raises(CatalogueError, match=f"name a database in {URL_VARIABLE}"):
        Catalogue.of_repo(tmp_path)


def test_catalogue_elsewhere_belongs_to_one_repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, f"sqlite:///{tmp_path}/elsewhere.db")
    add_live(Catalogue.of_repo(tmp_path / "one"), "r-1", "ctr_v1")
    with pytest.raises(CatalogueError, match=r"must be that of .*/two \(got another feature repo's\)"):
        Catalogue.of_repo(tmp_path / "two")
    (tmp_path / "one").rename(tmp_path / "moved")
    assert Catalogue.of_repo(tmp_path / "moved").pointers().live == "r-1"


def test_claim_that_was_killed_is_made_by_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL_VARIABLE, f"sqlite:///{tmp_path}/elsewhere.db")
    (tmp_path / "one" / "data").mkdir(parents=True)
    (tmp_path / "one" / "data" / "catalogue_id").write_text("0123\n")
    Catalogue.of_repo(tmp_path / "one")
    assert (tmp_path / "one" / "data" / "catalogue_id").read_text() == "0123\n"
    assert Catalogue.of_repo(tmp_path / "one").versions() == []


def test_catalogue_in_the_repo_needs_no_claim(tmp_path: Path) -> None:
    Catalogue.of_repo(tmp_path)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["registry.db"]


def test_apply_forget_and_teardown_keep_the_catalogue(tmp_path: Path) -> None:
    create_repo(tmp_path, MANIFEST)
    catalogue = Catalogue.of_repo(tmp_path)
    add_live(catalogue, "r-1", "ctr_v1")
    before = catalogue.transitions()
    for change in (apply, forget, apply, lambda repo: open_store(repo).teardown()):
        change(tmp_path)
        assert (states(catalogue), catalogue.transitions()) == ({"ctr_v1": "live", "r-1": "live"}, before)
    assert Catalogue.of_repo(tmp_path).pointers().live == "r-1"


def test_catalogue_does_not_hold_up_apply(tmp_path: Path) -> None:
    create_repo(tmp_path, MANIFEST)
    catalogue = Catalogue.of_repo(tmp_path)
    with catalogue._database.reading() as connection:
        connection.exec_driver_sql("SELECT 1")
        apply(tmp_path)
    assert len(open_store(tmp_path).list_feature_views()) > 0


def test_teardown_of_an_sql_registry_keeps_the_catalogue(tmp_path: Path) -> None:
    settings = f"""{{registry_type: sql, path: "sqlite:///{tmp_path}/registry.db"}}
offline_store: {{type: duckdb}}
online_store: {{type: sqlite, path: online.db}}
entity_key_serialization_version: 3"""
    write_registry(tmp_path, settings)
    catalogue = Catalogue.of_repo(tmp_path)
    catalogue.create_version(version("ctr_v1"), **ALICE)
    FeatureStore(repo_path=str(tmp_path)).teardown()
    assert states(catalogue) == {"ctr_v1": "training"}
