"""A shadow release: scored on a share of the requests, off the answer path, with what differs recorded."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serving.answering import Question
from serving.follower import Follower
from serving.loading import load_recommender
from serving.metrics import Metrics
from serving.recommender import Recommender
from serving.settings import Settings
from serving.shadow import Answered, Shadow, difference
from tests.serving.test_follow import recommend, served, settled
from tests.serving.tiny_run import NOW

GAP = 0.982014 - 0.952574
"""sigmoid(3 + 1) - sigmoid(3): how `tiny-2` differs from `tiny-1` on Pin 102 for user 1."""


def other(run: Path) -> Recommender:
    return load_recommender(Settings(run=run, as_of=NOW, threads=1), run / "releases" / "tiny-2")


def answered(pctr: dict[int, float] | None = None, **changes: object) -> Answered:
    given = {"user_id": 1, "surface": "0", "k": 1} | changes
    question = Question(**given)  # type: ignore[arg-type]
    return Answered(release="tiny-1", question=question, now=NOW, pctr={102: 0.952574} if pctr is None else pctr)


def counted(client: TestClient, outcome: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    name = f'headwater_shadow_requests_total{{outcome="{outcome}"}} '
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)


def test_difference_is_that_of_the_other_release_on_the_same_request(tiny_run: Path) -> None:
    found = difference(answered(), other(tiny_run))
    assert found.overlap == 1.0
    assert found.score_difference == pytest.approx(GAP, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "overlap", "known"),
    [
        ({"pctr": {101: 0.5}}, 0.0, False),
        ({"k": 2, "pctr": {102: 0.9, 104: 0.1}}, 0.5, True),
        ({"candidates": (103,), "pctr": {103: 0.5}}, 1.0, True),
        ({"exclude": (102,), "pctr": {102: 0.9}}, 0.0, False),
        ({"candidates": (777,), "pctr": {}}, 1.0, False),
        ({"pctr": {}}, 0.0, False),
    ],
)
def test_overlap_counts_answered_pins_that_the_other_release_answers_too(
    tiny_run: Path, given: dict[str, object], overlap: float, known: bool
) -> None:
    found = difference(answered(**given), other(tiny_run))
    assert found.overlap == overlap
    assert (found.score_difference is not None) is known


def test_shadow_scores_requests_and_leaves_answers_as_they_are(
    changing_run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving.shadow")
    with served(changing_run) as (client, follower, catalogue):
        before = recommend(client)
        catalogue.shadow("tiny-2", 1.0, who="a@b", why="a trial")
        assert settled(lambda: follower.shadow is not None)
        assert client.get("/readyz").json()["shadow"] == "tiny-2"
        assert recommend(client) == before
        ranked = client.post("/v1/rank", json={"user_id": 1, "surface": "0", "pin_ids": [102]})
        assert ranked.json()["release"] == "tiny-1"
        assert settled(lambda: counted(client, "compared") == 2.0)
        (first, second) = [record.getMessage() for record in caplog.records if "shadow_compared" in record.getMessage()]
        assert first == second
        assert "live=tiny-1 shadow=tiny-2 surface=0 pins=1 overlap=1.0000" in first
        assert float(first.rpartition("=")[2]) == pytest.approx(GAP, abs=1e-6)
        assert "headwater_shadow_overlap_count 2.0" in client.get("/metrics").text
        catalogue.shadow(None, who="a@b", why="seen enough")
        assert settled(lambda: follower.shadow is None)
        assert recommend(client) == before


def test_shadow_that_is_promoted_answers_and_shadows_no_more(changing_run: Path) -> None:
    with served(changing_run) as (client, follower, catalogue):
        catalogue.shadow("tiny-2", 0.5, who="a@b", why="a trial")
        assert settled(lambda: follower.shadow is not None)
        catalogue.promote("tiny-2", who="a@b", why="it was better")
        assert settled(lambda: recommend(client)["release"] == "tiny-2")
        assert settled(lambda: follower.shadow is None)


def test_shadow_that_fails_is_counted_and_answers_go_on(changing_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such luck")

    with served(changing_run) as (client, follower, catalogue):
        monkeypatch.setattr("serving.shadow.difference", fail)
        catalogue.shadow("tiny-2", 1.0, who="a@b", why="a trial")
        assert settled(lambda: follower.shadow is not None)
        assert recommend(client)["release"] == "tiny-1"
        assert settled(lambda: counted(client, "failed") == 1.0)
        assert recommend(client)["release"] == "tiny-1"


def test_shadow_that_cannot_be_loaded_is_named_and_answers_go_on(changing_run: Path) -> None:
    (changing_run / "releases" / "tiny-2" / "ctr.onnx").write_bytes(b"")
    with served(changing_run) as (client, follower, catalogue):
        catalogue.shadow("tiny-2", 1.0, who="a@b", why="a trial")
        assert settled(lambda: follower.shadow_refusal is not None)
        assert recommend(client)["release"] == "tiny-1"
        (warning,) = client.get("/readyz").json()["warnings"]
        assert "tiny-2/ctr.onnx must have sha256" in warning


def test_full_queue_drops_requests_and_never_waits(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, may_end = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        began.set()
        assert may_end.wait(30.0)
        raise RuntimeError("over")

    monkeypatch.setattr("serving.shadow.difference", wait)
    metrics = Metrics()
    shadow = Shadow(other(tiny_run), 1.0, 2, metrics)
    shadow.offer(answered())
    assert began.wait(30.0)
    for _ in range(5):
        shadow.offer(answered())
    assert b'headwater_shadow_requests_total{outcome="dropped"} 3.0' in metrics.text()
    may_end.set()
    shadow.stop()


@pytest.mark.parametrize(("share", "expected"), [(1.0, 200), (0.25, 50)])
def test_share_of_the_requests_is_offered(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch, share: float, expected: int
) -> None:
    draws = iter([step / 200 for step in range(200)])
    monkeypatch.setattr("serving.shadow.random.random", lambda: next(draws))
    shadow = Shadow(other(tiny_run), share, 1, Metrics())
    assert sum(shadow.chosen() for _ in range(200)) == expected
    shadow.stop()


def test_server_without_a_shadow_offers_nothing(client: TestClient) -> None:
    follower = client.app.state.follower  # type: ignore[attr-defined]
    assert isinstance(follower, Follower)
    assert follower.shadow is None
    recommend(client)
    assert counted(client, "compared") == 0.0
