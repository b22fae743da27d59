"""Pruning deletes what is retired from every store, nothing else, and goes on after a kill."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from feast import FeatureService

from feature_repo.contract import RepoManifest
from feature_repo.layout import open_store
from feature_repo.stores.online.status import read_online
from feature_repo.versions import (
    Catalogue,
    InUseError,
    ReleaseState,
    UnknownSubjectError,
    VersionState,
    WrongStateError,
)
from tests.feature_repo.stores.servers import running
from tests.life.releases.files import add_files
from tests.serving.tiny_run import NOW, build
from trainers.life import prune as pruning
from trainers.life.prune import prunable, prune
from trainers.markers import read_marker

AUTHOR = {"who": "a@b", "why": "a test"}
GONE_VIEWS = ("user_embedding_ctr_v1", "pin_embedding_ctr_v1")


def retire_first(catalogue: Catalogue) -> None:
    """Version 1 and the release of it, in place of which version 2 is live."""
    catalogue.promote("tiny-2", **AUTHOR)
    catalogue.retire_release("tiny-1", **AUTHOR)
    catalogue.retire_version("ctr_v1", **AUTHOR)


def files_of(run: Path) -> set[str]:
    """Files of the run but those of databases."""
    found = (file for file in run.rglob("*") if file.is_file() and ".db" not in file.name)
    return {str(file.relative_to(run)) for file in found}


def online(run: Path, version: int, entity: str = "user", key: int = 1) -> dict[str, str]:
    """Status of an entity's row in each view that a version's service reads."""
    rows = read_online(open_store(run / "feature_repo"), f"ranking__ctr_v{version}", entity, [key], NOW)
    return {view: rows.status(view)[0] for view in rows.statuses}


def assert_only_first_is_gone(run: Path, before: set[str]) -> None:
    """All of version 1 and its release is gone from every store, and all else is there."""
    gone = ("releases/tiny-1/", "upstream/ctr_v1/", *(f"feature_repo/data/offline/{view}/" for view in GONE_VIEWS))
    after = files_of(run)
    assert before - after == {file for file in before if file.startswith(gone)}
    assert after - before == set()
    store = open_store(run / "feature_repo")
    views = {view.name for view in store.list_feature_views()}
    assert views.isdisjoint(GONE_VIEWS)
    assert "user_embedding_ctr_v2" in views
    assert not any("ctr_v1" in service.name for service in store.list_feature_services())
    assert not any("ctr_v1" in source.name for source in store.list_data_sources())
    assert [each.key for each in RepoManifest.load(run / "feature_repo" / "data").embeddings] == ["ctr_v2"]
    for entity, key in (("user", 1), ("pin", 101)):
        assert set(online(run, 2, entity, key).values()) == {"present"}
    catalogue = Catalogue.of_repo(run / "feature_repo")
    assert catalogue.version("ctr_v1").state == VersionState.PRUNED
    assert catalogue.release("tiny-1").state == ReleaseState.PRUNED


def test_prune_deletes_what_is_retired_and_nothing_else(run: Path, catalogue: Catalogue) -> None:
    before = files_of(run)
    retire_first(catalogue)
    prune(run, catalogue, prunable(run, catalogue), **AUTHOR)
    assert_only_first_is_gone(run, before)
    assert prunable(run, catalogue) == []
    (last,) = [each for each in catalogue.transitions("version ctr_v1") if each.after == "pruned"]
    assert (last.who, last.details["views"], last.details["bytes"]) == ("a@b", list(GONE_VIEWS), 30)


def test_prunable_says_paths_and_sizes_and_deletes_nothing(run: Path, catalogue: Catalogue) -> None:
    retire_first(catalogue)
    before = files_of(run)
    release, version = prunable(run, catalogue)
    assert (release.subject, release.views) == ("release tiny-1", ())
    assert release.paths == (run / "releases" / "tiny-1",)
    assert release.bytes == sum(file.stat().st_size for file in (run / "releases" / "tiny-1").iterdir())
    assert (version.subject, version.views, version.bytes) == ("version ctr_v1", GONE_VIEWS, 30)
    assert sorted(path.name for path in version.paths) == sorted([*GONE_VIEWS, "ctr_v1"])
    assert files_of(run) == before
    assert online(run, 1) == online(run, 1) | {"user_embedding_ctr_v1": "present"}


def test_prune_of_a_target_leaves_the_other_retired_ones(run: Path, catalogue: Catalogue) -> None:
    retire_first(catalogue)
    prune(run, catalogue, prunable(run, catalogue, ["tiny-1"]), **AUTHOR)
    assert not (run / "releases" / "tiny-1").exists()
    assert (run / "upstream" / "ctr_v1").is_dir()
    assert online(run, 1)["user_embedding_ctr_v1"] == "present"


def test_prune_refuses_what_is_not_retired(run: Path, catalogue: Catalogue) -> None:
    for target in ("tiny-1", "tiny-2", "ctr_v1", "ctr_v2"):
        with pytest.raises(WrongStateError, match="must be retired to be pruned"):
            prunable(run, catalogue, [target])
    with pytest.raises(UnknownSubjectError, match="got 'ctr_v9'"):
        prunable(run, catalogue, ["ctr_v9"])
    assert prunable(run, catalogue) == []


def test_prune_refuses_a_version_that_a_team_has_begun_to_read(run: Path, catalogue: Catalogue) -> None:
    retire_first(catalogue)
    store = open_store(run / "feature_repo")
    store.apply([FeatureService(name="ads", features=[store.get_feature_view("user_embedding_ctr_v1")])])
    before = files_of(run)
    with pytest.raises(InUseError, match=r"service ads \(reads ctr_v1\)"):
        prunable(run, catalogue)
    assert files_of(run) == before


def test_prune_leaves_services_of_teams_as_they_are(run: Path, catalogue: Catalogue) -> None:
    store = open_store(run / "feature_repo")
    store.apply([FeatureService(name="ads", features=[store.get_feature_view("user_embedding_ctr_v2")])])
    retire_first(catalogue)
    prune(run, catalogue, prunable(run, catalogue), **AUTHOR)
    (view,) = open_store(run / "feature_repo").get_feature_service("ads").feature_view_projections
    assert view.name == "user_embedding_ctr_v2"


def test_finished_steps_stay_finished_without_the_pruned_files(run: Path, catalogue: Catalogue) -> None:
    marker = read_marker(run, "evaluate")
    assert marker is not None
    assert all((run / file).exists() for file in marker.files)
    retire_first(catalogue)
    prune(run, catalogue, prunable(run, catalogue), **AUTHOR)
    kept = read_marker(run, "evaluate")
    assert kept is not None
    assert all((run / file).exists() for file in kept.files)
    assert any("ctr_v2" in file for file in kept.files)
    assert (kept.fingerprint, kept.finished) == (marker.fingerprint, marker.finished)


class Killed(BaseException):
    """Stands for a kill: nothing on the way catches it."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the n-th step of a prune not be reached; gives how many were taken."""
    taken = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal taken
            if taken == step:
                raise Killed
            taken += 1
            return function(*arguments, **options)

        return call

    for name in ("_unmark", "_undeclare", "_unregister", "_delete"):
        monkeypatch.setattr(pruning, name, counted(getattr(pruning, name)))
    monkeypatch.setattr(pruning.shutil, "rmtree", counted(pruning.shutil.rmtree))
    monkeypatch.setattr(Catalogue, "mark_pruned", counted(Catalogue.mark_pruned))
    return lambda: taken


def test_prune_goes_on_after_a_kill_at_any_step(whole_run: Path, tmp_path: Path) -> None:
    step = 0
    while True:
        run = Path(shutil.copytree(whole_run, tmp_path / str(step)))
        catalogue = Catalogue.of_repo(run / "feature_repo")
        before = files_of(run)
        retire_first(catalogue)
        with pytest.MonkeyPatch.context() as patch:
            steps = killed_at(step, patch)
            try:
                prune(run, catalogue, prunable(run, catalogue), **AUTHOR)
            except Killed:
                assert steps() == step
            else:
                break
        prune(run, catalogue, prunable(run, catalogue), **AUTHOR)
        assert_only_first_is_gone(run, before)
        step += 1
    assert step > 10


@pytest.fixture
def redis_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with running(tmp_path / "redis") as port:
        monkeypatch.setenv("REDIS_CONNECTION", f"127.0.0.1:{port}")
        yield build(tmp_path / "run", "redis")


def test_prune_deletes_the_rows_of_a_redis_store(redis_run: Path) -> None:
    add_files(redis_run)
    catalogue, before = Catalogue.of_repo(redis_run / "feature_repo"), files_of(redis_run)
    retire_first(catalogue)
    fields = hash_fields(redis_run)
    prune(redis_run, catalogue, prunable(redis_run, catalogue), **AUTHOR)
    assert_only_first_is_gone(redis_run, before)
    # Two features and the time of each row: of users 1 and 2, and of five Pins.
    assert fields - hash_fields(redis_run) == 3 * (2 + 5)


def hash_fields(run: Path) -> int:
    """Fields of all hashes in the run's Redis server."""
    store = open_store(run / "feature_repo")
    client = store._get_provider().online_store._get_client(store.config.online_store)
    return sum(client.hlen(key) for key in client.scan_iter())


def test_prune_drops_the_collections_of_a_milvus_store(tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    run = build(tmp_path / "run", "milvus")
    add_files(run)
    catalogue = Catalogue.of_repo(run / "feature_repo")
    retire_first(catalogue)
    collections = collections_of(run)
    prune(run, catalogue, prunable(run, catalogue), **AUTHOR)
    gone = collections - collections_of(run)
    assert sorted(name.partition("_")[2] for name in gone) == sorted(GONE_VIEWS)
    assert set(online(run, 2).values()) == {"present"}


def collections_of(run: Path) -> set[str]:
    store = open_store(run / "feature_repo")
    client = store._get_provider().online_store._connect(store.config)
    return set(client.list_collections())


def test_rows_of_a_pruned_version_are_gone_from_sqlite(run: Path, catalogue: Catalogue) -> None:
    retire_first(catalogue)
    prune(run, catalogue, prunable(run, catalogue), **AUTHOR)
    with sqlite3.connect(run / "feature_repo" / "data" / "online_store.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {name for name in tables if "ctr_v1" in name} == set()
    assert any("ctr_v2" in name for name in tables)
