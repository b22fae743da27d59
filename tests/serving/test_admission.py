"""A process takes on a bounded number of requests, and says so to the others at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.serving.test_follow import PATIENCE_S, recommend, served, settled

ASKED = {"user_id": 1, "surface": "0", "k": 1}


def test_requests_beyond_what_may_wait_are_told_to_come_back(
    changing_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(changing_run, concurrency=1, queue=1, hold=0) as (client, follower, _), ThreadPoolExecutor(2) as pool:
        live = follower.recommender
        assert live is not None
        may_end, began = threading.Event(), threading.Semaphore(0)
        retriever = type(live.release.retriever)
        retrieve = retriever.retrieve

        def slowly(self: Any, *arguments: Any) -> list[int]:
            began.release()
            assert may_end.wait(PATIENCE_S)
            found: list[int] = retrieve(self, *arguments)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(retriever, "retrieve", slowly)
            refused: list[Any] = []
            taken = [pool.submit(taken_once, client, refused) for _ in range(2)]
            assert began.acquire(timeout=PATIENCE_S)
            assert settled(lambda: refused_once(client, refused))
            answer = refused[-1]
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "overloaded"
            assert "at most 2 requests" in answer.json()["error"]["message"]
            assert client.get("/healthz").status_code == 200
            may_end.set()
            assert {each.result(PATIENCE_S)["release"] for each in taken} == {"tiny-1"}
        assert recommend(client)["release"] == "tiny-1"
        assert f"headwater_requests_refused_total {float(len(refused))}" in client.get("/metrics").text


def taken_once(client: TestClient, refused: list[Any]) -> Any:
    """A recommendation, asked for until it is taken on: the questions of `refused_once` take places too."""
    while (answer := client.post("/v1/recommend", json=ASKED)).status_code == 429:
        refused.append(answer)
    return answer.json()


def refused_once(client: TestClient, refused: list[Any]) -> bool:
    """Whether a question is refused now; an unknown route is asked for, so that nothing waits when it is not."""
    answer = client.get("/v1/nothing")
    if answer.status_code == 429:
        refused.append(answer)
    return answer.status_code == 429
