"""Writing a run's repo and pointing the top-level repo at it."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from feature_repo.contract import RepoManifest
from feature_repo.layout import PACKAGE, apply, create_repo, forget, open_store, profile_path, select
from tests.feature_repo.repos import MANIFEST, hours, write_all


def test_create_repo_keeps_the_state_when_repeated(tmp_path: Path) -> None:
    create_repo(tmp_path, MANIFEST)
    (tmp_path / "data" / "registry.db").write_bytes(b"state")
    create_repo(tmp_path, replace(MANIFEST, embeddings=()))
    assert (tmp_path / "data" / "registry.db").read_bytes() == b"state"
    assert RepoManifest.load(tmp_path / "data").embeddings == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "definitions.py", "feature_store.yaml"]


def test_profile_path_names_the_known_profiles_when_unknown() -> None:
    with pytest.raises(ValueError, match=r"one of embedded, .*redis.* \(got 'oracle'\)"):
        profile_path("oracle")


@pytest.mark.parametrize("profile", sorted(path.stem for path in (PACKAGE / "profiles").glob("*.yaml")))
def test_profiles_differ_from_the_embedded_one_in_one_store_alone(profile: str) -> None:
    embedded, other = (yaml.safe_load(profile_path(name).read_text()) for name in ("embedded", profile))
    store = "registry" if profile == "postgres" else "online_store"
    assert embedded.pop(store) != other.pop(store)
    assert embedded == other


def test_apply_removes_what_is_no_longer_declared_with_its_online_rows(tmp_path: Path) -> None:
    create_repo(tmp_path, MANIFEST)
    apply(tmp_path)
    write_all(tmp_path)
    open_store(tmp_path).materialize(hours(0), hours(48), ["user_embedding_ctr_v1", "user_embedding_cvr_v1"])
    create_repo(tmp_path, replace(MANIFEST, histories=(), embeddings=MANIFEST.embeddings[:1]))
    apply(tmp_path)
    apply(tmp_path)
    store, views = open_store(tmp_path), {"user_activity", "pin_activity", "pin_attributes"}
    views |= {"user_embedding_ctr_v1", "pin_embedding_ctr_v1"}
    assert {view.name for view in store.list_feature_views()} == views
    pushed = {f"{view}_push" for view in views if "activity" not in view}
    assert {source.name for source in store.list_data_sources()} == {f"{view}_source" for view in views} | pushed
    assert [service.name for service in store.list_feature_services() if "cvr" in service.name] == []
    assert {entity.name for entity in store.list_entities()} == {"user", "pin"}
    assert online_tables(tmp_path) == {f"headwater_{view}" for view in views}
    assert store.get_feature_view("user_embedding_ctr_v1").materialization_intervals != []


def online_tables(repo: Path) -> set[str]:
    """Tables of the online store, one for each feature view."""
    with closing(sqlite3.connect(repo / "data" / "online_store.db")) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_forgotten_repo_has_no_rows_online_and_counts_nothing_as_materialized(tmp_path: Path) -> None:
    create_repo(tmp_path, MANIFEST)
    apply(tmp_path)
    write_all(tmp_path)
    open_store(tmp_path).materialize(hours(0), hours(48), ["user_activity"])
    forget(tmp_path)
    assert open_store(tmp_path).list_feature_views() == []
    apply(tmp_path)
    store = open_store(tmp_path)
    assert store.get_feature_view("user_activity").materialization_intervals == []
    read = store.get_online_features(["user_activity:impressions_1d"], [{"user_id": 1}]).to_dict()
    assert read["impressions_1d"] == [None]


def test_open_store_says_what_is_missing_when_the_folder_is_no_repo(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold feature_store\.yaml"):
        open_store(tmp_path)


def test_select_moves_the_link_from_run_to_run(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for run in ("first", "second"):
        create_repo(tmp_path / run, MANIFEST)
        assert select(tmp_path / run, package)
        assert (package / "data").resolve() == tmp_path / run / "data"
    assert [path.name for path in package.iterdir()] == ["data"]


def test_select_replaces_what_apply_leaves_in_a_fresh_clone(tmp_path: Path) -> None:
    create_repo(tmp_path / "run", MANIFEST)
    fresh = tmp_path / "package" / "data"
    fresh.mkdir(parents=True)
    (fresh / "registry.db").write_bytes(b"")
    (fresh / "online_store.db-journal").write_bytes(b"")
    assert select(tmp_path / "run", tmp_path / "package")
    assert fresh.is_symlink()


def test_select_leaves_a_folder_with_own_data_alone(tmp_path: Path) -> None:
    create_repo(tmp_path / "run", MANIFEST)
    own = tmp_path / "package" / "data" / "offline"
    own.mkdir(parents=True)
    assert not select(tmp_path / "run", tmp_path / "package")
    assert own.is_dir()


def test_select_goes_on_when_the_package_folder_is_absent(tmp_path: Path) -> None:
    create_repo(tmp_path / "run", MANIFEST)
    assert not select(tmp_path / "run", tmp_path / "nowhere")
