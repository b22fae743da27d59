"""What is answered while the online store hangs, is gone, was emptied or comes back: within the deadline, and said."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.feature_repo.stores.servers import HOST, free_port, running
from tests.serving.tiny_run import NOW, build, write_features

PATIENCE_S = 30.0
ASK = {"user_id": 1, "surface": "1"}


class Store:
    """A Redis-compatible server that a test may stop, kill and start again on its port."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack, self.port = folder, contextlib.ExitStack(), free_port()

    def start(self) -> None:
        self._stack.enter_context(running(self._folder, port=self.port))

    def kill(self) -> None:
        self._stack.close()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(HOST, self.port)

    def learn_pid(self) -> None:
        with self.client as client:
            self.pid = int(client.info("server")["process_id"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Store, Path]]:
    """A server whose features lie in a store of its own."""
    folder = tmp_path_factory.mktemp("degraded")
    store = Store(folder / "store")
    store.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_CONNECTION", f"{HOST}:{store.port}")
        run = build(folder / "run", "redis")
        with TestClient(create_app(Settings(run=run, as_of=NOW, threads=1))) as client:
            yield client, store, run
    store.kill()


@pytest.fixture
def client(served: tuple[TestClient, Store, Path]) -> TestClient:
    return served[0]


@pytest.fixture
def store(served: tuple[TestClient, Store, Path]) -> Iterator[Store]:
    """The store, well again and full after the test, whatever that did to it."""
    client, store, run = served
    store.learn_pid()
    yield store
    with contextlib.suppress(ProcessLookupError):
        store.signal(signal.SIGCONT)
    with contextlib.suppress(redis.ConnectionError), store.client as pinged:
        pinged.ping()
        write_features(run / "feature_repo")
        assert settled(lambda: whole(client))
        return
    store.start()
    write_features(run / "feature_repo")
    assert settled(lambda: whole(client))


def settled(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def ask(client: TestClient, route: str, deadline_ms: int = 60_000, **body: Any) -> dict[str, Any]:
    response = client.post(f"/v1/{route}", json=body, headers={"x-deadline-ms": str(deadline_ms)})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def whole(client: TestClient) -> bool:
    return ask(client, "recommend", **ASK)["degraded"] is None


def pins(answer: dict[str, Any], name: str = "ranked") -> list[int]:
    return [item["pin_id"] for item in answer[name]]


def test_store_that_hangs_is_answered_for_within_the_deadline(client: TestClient, store: Store) -> None:
    """What is popular on the surface, from the release itself; the store stays stopped until it has been answered."""
    store.signal(signal.SIGSTOP)
    answer = ask(client, "recommend", deadline_ms=300, **ASK)
    assert answer["degraded"] == {"reason": "store_timeout", "lacks": "user_features"}
    assert (answer["source"], answer["cold_start"]) == ("popular", False)
    assert pins(answer) == [104, 102, 103]
    assert {item["score"] for item in answer["ranked"]} == {None}
    assert answer["user"] == {"user_id": 1, "status": {}}
    assert answer["release"] == "tiny-1"
    store.signal(signal.SIGCONT)
    assert settled(lambda: whole(client))


def test_store_that_hangs_keeps_nobody_waiting_after_the_first(client: TestClient, store: Store) -> None:
    """None of the later ones reads anything, unless the machine was too busy to ask at once."""
    store.signal(signal.SIGSTOP)
    ask(client, "recommend", deadline_ms=200, **ASK)
    answers = [ask(client, "recommend", deadline_ms=5_000, **ASK) for _ in range(2)]
    assert {answer["degraded"]["reason"] for answer in answers} == {"store_timeout"}


def test_each_route_says_what_it_lacks(client: TestClient, store: Store) -> None:
    store.kill()
    assert pins(ask(client, "rank", **ASK, pin_ids=[101, 103, 102])) == [102, 103, 101]
    assert pins(ask(client, "recommend", **ASK, candidates=[101, 103, 102], exclude_pins=[102])) == [103, 101]
    retrieved = ask(client, "retrieve", user_id=1, surface="1", k=2)
    assert (pins(retrieved, "pins"), retrieved["source"]) == ([104, 102], "popular")
    assert retrieved["degraded"] == {"reason": "store_unavailable", "lacks": "user_features"}
    similar = ask(client, "similar", pin_id=101, k=2)
    assert (pins(similar, "pins"), similar["pins"][0]["title"]) == ([102, 106], None)
    assert similar["degraded"]["lacks"] == "titles"
    response = client.post("/v1/features", json={"entity": "user", "ids": [1]})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "store_unavailable")
    assert response.headers["retry-after"] == "1"
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_filter_that_cannot_be_checked_lets_nothing_through(client: TestClient, store: Store) -> None:
    store.kill()
    filters = [{"feature": "pin_attributes:title", "none_of": ["Pin 102"]}]
    answer = ask(client, "recommend", **ASK, filters=filters)
    assert (answer["ranked"], answer["filtered"]) == ([], 3)
    assert answer["degraded"]["lacks"] == "user_features"


def test_store_that_was_started_again_is_read_without_a_restart(client: TestClient, store: Store) -> None:
    """It comes back empty: a user whom no view knows gets popular Pins, which is an answer and no failure."""
    store.kill()
    assert ask(client, "recommend", **ASK)["degraded"]["reason"] == "store_unavailable"
    store.start()
    assert settled(lambda: whole(client))
    answer = ask(client, "recommend", **ASK)
    assert (answer["source"], answer["cold_start"]) == ("popular", True)
    assert (answer["ranked"], answer["missing"]["unknown"]) == ([], 3)
    assert client.get("/readyz").status_code == 200


def test_store_that_is_emptied_under_load_never_fails_a_request(client: TestClient, store: Store) -> None:
    answers: list[dict[str, Any]] = []

    def load() -> None:
        answers.extend(ask(client, "recommend", **ASK) for _ in range(20))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    with store.client as emptied:
        emptied.flushall()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert {answer["source"] for answer in answers} <= {"retrieval", "popular"}
    assert {answer["degraded"] is None for answer in answers} == {True}


def test_request_that_waited_until_its_deadline_reads_nothing(client: TestClient) -> None:
    answer = ask(client, "recommend", deadline_ms=1, **ASK)
    assert answer["degraded"]["reason"] == "deadline"
    assert pins(answer) == [104, 102, 103]
    assert whole(client)


def test_candidates_are_answered_unscored_when_no_time_is_left_to_score_them(
    client: TestClient, served: tuple[TestClient, Store, Path]
) -> None:
    """Scoring that lately took two minutes is not begun; expecting less each time, it is tried again in the end."""
    recommender = served[0].app.state.follower.recommender  # type: ignore[attr-defined]
    recommender.pace.expected_s = 120.0
    answer = ask(client, "recommend", **ASK)
    assert answer["degraded"] == {"reason": "deadline", "lacks": "pin_features"}
    assert (answer["source"], pins(answer)) == ("retrieval", [101, 102, 106, 105, 103, 104])
    assert {item["pctr"] for item in answer["ranked"]} == {None}
    assert settled(lambda: whole(client))


@pytest.mark.parametrize("given", ["0", "-5", "60001", "soon"])
def test_deadline_out_of_bounds_is_refused(client: TestClient, given: str) -> None:
    response = client.post("/v1/recommend", json=ASK, headers={"x-deadline-ms": given})
    assert response.status_code == 422
    assert response.json()["error"]["field"] == "x-deadline-ms"
