"""A running server follows the catalogue: swaps, refusals, freed releases, and no answer of two."""

from __future__ import annotations

import gc
import sqlite3
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from feature_repo.layout import open_store
from feature_repo.versions import Catalogue, CatalogueUnavailableError
from serving.app import create_app
from serving.follower import Follower
from serving.settings import Settings
from tests.serving.tiny_run import NOW, record_releases

PATIENCE_S = 30.0
ANSWERS = {"tiny-1": (["ctr_v1"], 0.952574), "tiny-2": (["ctr_v2"], 0.982014)}
"""Versions of each release and its pctr of Pin 102 for user 1: sigmoid(3), and sigmoid(3 + 1)."""
PCVR = 0.858149
"""In both: sigmoid(0.8 + 1). With vectors of two versions it would be sigmoid(±0.6 + 1)."""


def settled(check: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Whether something comes true before patience ends."""
    deadline = time.monotonic() + patience_s
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def served(run: Path, **settings: Any) -> Iterator[tuple[TestClient, Follower, Catalogue]]:
    """A server that follows the run, and the run's catalogue."""
    app = create_app(Settings(run=run, as_of=NOW, threads=1, poll_ms=20, **settings))
    with TestClient(app) as client:
        yield client, app.state.follower, Catalogue.of_repo(run / "feature_repo")


def recommend(client: TestClient) -> dict[str, Any]:
    response = client.post("/v1/recommend", json={"user_id": 1, "surface": "0", "k": 1})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def assert_whole(answer: dict[str, Any]) -> None:
    """Everything in the answer is of the release that it names."""
    versions, pctr = ANSWERS[answer["release"]]
    (best,) = answer["ranked"]
    assert answer["embeddings"] == versions
    assert best["pin_id"] == 102
    assert best["pctr"] == pytest.approx(pctr, abs=1e-6)
    assert best["pcvr"] == pytest.approx(PCVR, abs=1e-6)


def test_server_follows_a_promotion_and_a_rollback(changing_run: Path) -> None:
    with served(changing_run) as (client, _, catalogue):
        assert recommend(client)["release"] == "tiny-1"
        catalogue.promote("tiny-2", who="a@b", why="better")
        assert settled(lambda: recommend(client)["release"] == "tiny-2")
        assert_whole(recommend(client))
        catalogue.rollback(who="a@b", why="worse after all")
        assert settled(lambda: recommend(client)["release"] == "tiny-1")
        assert_whole(recommend(client))


def test_server_polls_four_times_a_second_unless_told_otherwise(tiny_run: Path) -> None:
    assert Settings(run=tiny_run).poll_ms == 250


def test_release_that_nothing_goes_back_to_is_freed_after_its_last_request(changing_run: Path) -> None:
    with served(changing_run, hold=0) as (client, follower, catalogue):
        first = follower.recommender
        assert first is not None
        release = first.release
        parts = [release.retriever.index, release.retriever.tower.session, release.ranker.pctr.model.session]
        freed = [weakref.ref(part) for part in parts]
        del release, parts
        gc.disable()
        try:
            catalogue.promote("tiny-2", who="a@b", why="better")
            assert settled(lambda: recommend(client)["release"] == "tiny-2")
            # `first` stands for a request that is still being answered.
            assert all(ref() is not None for ref in freed)
            assert first.release.manifest.release == "tiny-1"
            del first
            assert settled(lambda: all(ref() is None for ref in freed))
        finally:
            gc.enable()


def test_candidate_and_release_before_wait_loaded_and_are_swapped_in(
    changing_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(changing_run) as (client, follower, catalogue):
        assert settled(lambda: follower.held == ["tiny-2"])
        first = follower.recommender

        def fail(*_: Any, **__: Any) -> Any:
            raise AssertionError("nothing needs to be loaded")

        monkeypatch.setattr("serving.follower.load_recommender", fail)
        catalogue.promote("tiny-2", who="a@b", why="better")
        assert settled(lambda: recommend(client)["release"] == "tiny-2")
        assert settled(lambda: follower.held == ["tiny-1"])
        catalogue.rollback(who="a@b", why="worse after all")
        assert settled(lambda: follower.recommender is first)
        assert_whole(recommend(client))
        assert follower.refusal is None
        catalogue.retire_release("tiny-2", who="a@b", why="given up")
        assert settled(lambda: follower.held == [])


def test_release_that_changed_while_it_was_held_is_loaded_anew_and_refused(changing_run: Path) -> None:
    with served(changing_run) as (client, follower, catalogue):
        assert settled(lambda: follower.held == ["tiny-2"])
        break_release(changing_run, "tiny-2")
        catalogue.promote("tiny-2", who="a@b", why="better")
        assert settled(lambda: follower.refusal is not None)
        assert_whole(recommend(client))
        assert recommend(client)["release"] == "tiny-1"


def test_services_that_changed_while_a_release_was_held_are_looked_at_again(changing_run: Path) -> None:
    with served(changing_run) as (client, follower, catalogue):
        assert settled(lambda: follower.held == ["tiny-2"])
        store = open_store(changing_run / "feature_repo")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store.delete_feature_service("ranking__ctr_v2")
        catalogue.promote("tiny-2", who="a@b", why="better")
        assert settled(lambda: follower.refusal is not None)
        assert follower.refusal is not None
        assert "must have service 'ranking__ctr_v2'" in follower.refusal.reason
        assert recommend(client)["release"] == "tiny-1"


def test_files_of_releases_that_were_live_are_closed(changing_run: Path) -> None:
    def handles() -> int:
        links = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        return sum(str(each.readlink()).startswith(str(changing_run)) for each in links)

    with served(changing_run) as (client, _, catalogue):
        gc.disable()
        try:
            most = 0
            for turn in range(6):
                release = ("tiny-2", "tiny-1")[turn % 2]
                catalogue.promote(release, who="a@b", why=f"turn {turn}")
                assert settled(lambda: recommend(client)["release"] == release)  # noqa: B023
                most = max(most, handles()) if turn < 2 else most
            assert settled(lambda: handles() <= most)
        finally:
            gc.enable()


def test_request_that_began_before_a_promotion_ends_with_its_own_release(
    changing_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(changing_run) as (client, follower, catalogue):
        before = follower.recommender
        assert before is not None
        began, may_end = threading.Event(), threading.Event()
        retriever = type(before.release.retriever)
        retrieve = retriever.retrieve

        def slowly(self: Any, *arguments: Any) -> list[int]:
            if self is before.release.retriever:
                began.set()
                assert may_end.wait(PATIENCE_S)
            found: list[int] = retrieve(self, *arguments)
            return found

        monkeypatch.setattr(retriever, "retrieve", slowly)
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(recommend, client)
            assert began.wait(PATIENCE_S)
            catalogue.promote("tiny-2", who="a@b", why="better")
            assert settled(lambda: follower.recommender is not before)
            assert_whole(recommend(client))
            may_end.set()
            answer = slow.result(PATIENCE_S)
        assert answer["release"] == "tiny-1"
        assert_whole(answer)


def test_promote_and_rollback_under_load_drop_and_mix_no_answer(changing_run: Path) -> None:
    done = threading.Event()
    seen: set[str] = set()

    def ask(client: TestClient) -> int:
        asked = 0
        while not done.is_set() or asked == 0:
            answer = recommend(client)
            assert_whole(answer)
            seen.add(answer["release"])
            asked += 1
        return asked

    with served(changing_run) as (client, follower, catalogue), ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(ask, client) for _ in range(3)]
        try:
            for turn in range(6):
                if turn % 2:
                    catalogue.rollback(who="a@b", why=f"turn {turn}")
                else:
                    catalogue.promote("tiny-2", who="a@b", why=f"turn {turn}")
                expected = ("tiny-2", "tiny-1")[turn % 2]
                assert settled(lambda: loaded(follower) == expected)  # noqa: B023
        finally:
            done.set()
        counts = [each.result(PATIENCE_S) for each in clients]
    assert min(counts) > 0
    assert seen <= {"tiny-1", "tiny-2"}


def loaded(follower: Follower) -> str | None:
    recommender = follower.recommender
    return recommender.release.manifest.release if recommender is not None else None


def break_release(run: Path, name: str) -> bytes:
    """Damage a release's index; gives what it was."""
    file = run / "releases" / name / "pins.faiss"
    before = file.read_bytes()
    file.write_bytes(before[:-1])
    return before


def test_release_that_cannot_be_loaded_leaves_the_one_before_and_is_tried_again(changing_run: Path) -> None:
    with served(changing_run) as (client, follower, catalogue):
        whole = break_release(changing_run, "tiny-2")
        catalogue.promote("tiny-2", who="a@b", why="better")
        assert settled(lambda: follower.refusal is not None)
        assert_whole(recommend(client))
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["release"]) == (200, "tiny-1")
        (warning,) = ready.json()["warnings"]
        assert "tiny-2/pins.faiss must have sha256" in warning
        assert 'headwater_release_loads_total{outcome="refused"}' in client.get("/metrics").text
        (changing_run / "releases" / "tiny-2" / "pins.faiss").write_bytes(whole)
        assert settled(lambda: recommend(client)["release"] == "tiny-2")
        assert client.get("/readyz").json()["warnings"] == []


def test_release_of_another_space_than_the_catalogue_knows_is_refused(
    changing_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a training that took the number of a version without its space."""
    known = Catalogue.versions

    def other(self: Catalogue, **options: Any) -> list[Any]:
        return [replace(version, space_id="f" * 12) for version in known(self, **options)]

    monkeypatch.setattr(Catalogue, "versions", other)
    with served(changing_run) as (client, _, _):
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "ctr_v1: 0123456789ab, the catalogue has ffffffffffff" in answer.json()["error"]["message"]


def test_manifest_that_the_catalogue_does_not_know_is_refused(changing_run: Path) -> None:
    """A manifest could be swapped together with the files that it names."""
    file = changing_run / "releases" / "tiny-1" / "manifest.json"
    file.write_text(file.read_text() + "\n")
    with served(changing_run) as (client, _, _):
        assert "must have the sha256 that the catalogue recorded" in client.get("/readyz").json()["error"]["message"]


def test_server_without_a_live_release_becomes_ready_with_the_first(changing_run: Path) -> None:
    Catalogue.of_repo(changing_run / "feature_repo").reset(who="run", why="starts over")
    with served(changing_run) as (client, _, catalogue):
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "a release must be live" in answer.json()["error"]["message"]
        record_releases(catalogue, changing_run)
        assert settled(lambda: client.get("/readyz").status_code == 200)
        assert_whole(recommend(client))


def test_catalogue_that_cannot_be_read_leaves_the_release_in_place(
    changing_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Catalogue) -> Any:
        raise CatalogueUnavailableError("catalogue must be readable (got: disk gone); mend it")

    with served(changing_run) as (client, follower, _):
        with monkeypatch.context() as patch:
            patch.setattr(Catalogue, "pointers", fail)
            assert settled(lambda: follower.refusal is not None)
            assert_whole(recommend(client))
            assert client.get("/readyz").json()["warnings"] == ["catalogue must be readable (got: disk gone); mend it"]
        assert settled(lambda: follower.refusal is None)


def test_locked_catalogue_keeps_no_request_waiting(changing_run: Path) -> None:
    with served(changing_run) as (client, _, catalogue):
        holder = sqlite3.connect(changing_run / "feature_repo" / "data" / "registry.db", isolation_level=None)
        with closing(holder):
            holder.execute("BEGIN EXCLUSIVE")
            for _ in range(5):
                assert_whole(recommend(client))
            holder.execute("ROLLBACK")
        catalogue.promote("tiny-2", who="a@b", why="better")
        assert settled(lambda: recommend(client)["release"] == "tiny-2")


def test_release_dir_is_served_whatever_the_catalogue_says(changing_run: Path) -> None:
    directory = changing_run / "releases" / "tiny-2"
    with served(changing_run, release_dir=directory) as (client, follower, _):
        assert recommend(client)["release"] == "tiny-2"
        assert follower.catalogue is None
        assert client.get("/v1/releases").json()["loaded"] == "tiny-2"


def test_shadow_that_is_promoted_is_not_loaded_again(changing_run: Path) -> None:
    with served(changing_run) as (client, follower, catalogue):
        catalogue.shadow("tiny-2", 0.5, who="a@b", why="a trial")
        assert settled(lambda: follower.shadow is not None)
        break_release(changing_run, "tiny-2")
        catalogue.promote("tiny-2", who="a@b", why="it was better")
        assert settled(lambda: recommend(client)["release"] == "tiny-2")
        assert follower.refusal is None
