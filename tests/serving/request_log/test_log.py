"""The request log: what is in it, when it is there, and that nothing it does shows in an answer."""

from __future__ import annotations

import logging
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from feature_repo.request_log.layout import PINS, RESPONSES, logged_files
from feature_repo.versions import Split
from serving.app import create_app
from serving.settings import Settings
from tests.serving.test_follow import served, settled
from tests.serving.tiny_run import NOW

VECTOR = "user_embedding_ctr_v1__embedding"


@contextmanager
def logging_server(run: Path, folder: Path, **changes: Any) -> Iterator[TestClient]:
    """A server that logs every answer and follows nothing."""
    given = {"run": run, "release_dir": run / "releases" / "tiny-1", "as_of": NOW, "threads": 1, "request_log": 1.0}
    settings = Settings(**(given | {"request_log_dir": folder, "request_log_seconds": 0.05} | changes))
    with TestClient(create_app(settings)) as client:
        yield client


def recommend(client: TestClient, user_id: int = 1, **body: Any) -> dict[str, Any]:
    asked = {"user_id": user_id, "surface": "1", "k": 3} | body
    response = client.post("/v1/recommend", json=asked, headers={"x-request-id": f"r-{user_id}"})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def read(folder: Path, table: str) -> list[dict[str, Any]]:
    """Rows of the log, in the order in which they were written."""
    files = [getattr(each, table) for each in logged_files(folder)]
    tables = [pq.read_table(file, partitioning=None) for file in sorted(files, key=lambda file: str(file.name))]
    rows: list[dict[str, Any]] = pa.concat_tables(tables, promote_options="permissive").to_pylist() if tables else []
    return rows


def counted(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name), 0.0)


def written(client: TestClient) -> float:
    return counted(client, 'headwater_request_log_answers_total{outcome="written"}')


def test_log_holds_the_answer_and_what_the_models_read(tiny_run: Path, tmp_path: Path) -> None:
    with logging_server(tiny_run, tmp_path) as client:
        answer = recommend(client)
    (response,), pins = read(tmp_path, RESPONSES), read(tmp_path, PINS)
    assert response["request_id"] == "r-1"
    assert (response["user_id"], response["surface"], response["route"]) == (1, "1", "/v1/recommend")
    assert (response["release"], response["embeddings"], response["as_of"]) == ("tiny-1", ["ctr_v1"], NOW)
    assert (response["source"], response["degraded"], response["split"], response["arm"]) == (
        "retrieval",
        None,
        None,
        None,
    )
    assert response["num_candidates"] == 5
    assert response["sampling_rate"] == 1.0
    assert abs(response["answered_timestamp"] - datetime.now(UTC)).total_seconds() < 600
    assert (response["user_activity__impressions_ever"], response[VECTOR]) == (10, [1.0, 0.0])
    assert response["status__user_activity"] == "present"
    assert [(row["position"], row["pin_id"]) for row in pins] == list(
        enumerate([pin["pin_id"] for pin in answer["ranked"]], start=1)
    )
    assert [row["pctr"] for row in pins] == [pin["pctr"] for pin in answer["ranked"]]
    assert [row["pcvr"] for row in pins] == [pin["pcvr"] for pin in answer["ranked"]]
    assert [row["pin_attributes__price"] for row in pins] == [2.0, 1.0, 1.0]
    assert {row["status__pin_attributes"] for row in pins} == {"present"}
    assert "pin_attributes__title" not in pins[0]


def test_log_tells_missing_from_outside_max_age(tiny_run: Path, tmp_path: Path) -> None:
    with logging_server(tiny_run, tmp_path) as client:
        recommend(client, 2, candidates=[105])
        recommend(client, 999)
    old, unknown = read(tmp_path, RESPONSES)
    assert old["status__user_embedding_ctr_v1"] == "outside_max_age"
    assert old[VECTOR] is None
    assert old["event_timestamp__user_embedding_ctr_v1"] < NOW
    assert unknown["status__user_embedding_ctr_v1"] == "missing"
    assert unknown["event_timestamp__user_embedding_ctr_v1"] is None
    (pin, *_) = read(tmp_path, PINS)
    assert (pin["pin_id"], pin["status__pin_activity"]) == (105, "missing")


def test_answers_without_pins_are_logged_beside_those_with(tiny_run: Path, tmp_path: Path) -> None:
    with logging_server(tiny_run, tmp_path, request_log_seconds=60.0) as client:
        recommend(client, candidates=[777])
        recommend(client)
    assert [row["num_candidates"] for row in read(tmp_path, RESPONSES)] == [0, 5]
    assert len(read(tmp_path, PINS)) == 3
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_log_holds_the_arm_of_a_split(changing_run: Path) -> None:
    with served(changing_run, request_log=1.0) as (client, follower, catalogue):
        split = Split(name="trial", release="tiny-2", share=1.0, salt="s1")
        catalogue.split(split, who="a@b", why="a trial")
        assert settled(lambda: follower.split is not None)
        recommend(client)
    (response,) = read(changing_run / "request_log", RESPONSES)
    assert (response["release"], response["split"], response["arm"]) == ("tiny-2", "trial", "treatment")


def test_folders_are_the_hour_of_the_answer_and_files_name_the_release(tiny_run: Path, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    with logging_server(tiny_run, tmp_path) as client:
        recommend(client)
    (file,) = logged_files(tmp_path)
    assert file.release == "tiny-1"
    moments = (before, datetime.now(UTC))
    assert str(file.responses.parent.relative_to(tmp_path / RESPONSES)) in {
        f"date={moment:%Y-%m-%d}/hour={moment:%H}" for moment in moments
    }


@pytest.mark.parametrize(("changes", "least"), [({"request_log_rows": 3}, 4), ({"request_log_seconds": 0.02}, 2)])
def test_files_are_rolled_by_rows_and_by_seconds(
    tiny_run: Path, tmp_path: Path, changes: dict[str, Any], least: int
) -> None:
    with logging_server(tiny_run, tmp_path, **({"request_log_seconds": 60.0} | changes)) as client:
        for turn in range(4):
            recommend(client)
            assert changes.get("request_log_rows") is None or settled(lambda: written(client) > turn)  # noqa: B023
            time.sleep(0.03)
        assert settled(lambda: written(client) == 4)
        files = list(logged_files(tmp_path))
    assert len(files) >= least
    assert len(read(tmp_path, RESPONSES)) == 4


def test_shutdown_writes_what_was_taken(tiny_run: Path, tmp_path: Path) -> None:
    with logging_server(tiny_run, tmp_path, request_log_seconds=3600.0) as client:
        for _ in range(5):
            recommend(client)
        assert read(tmp_path, RESPONSES) == []
    assert len(read(tmp_path, RESPONSES)) == 5
    assert not list(tmp_path.rglob(".*"))


def test_nothing_is_logged_unless_it_is_asked_for(tiny_run: Path, tmp_path: Path) -> None:
    assert Settings(run=tiny_run).request_log == 0.0
    with logging_server(tiny_run, tmp_path / "log", request_log=0.0) as client:
        recommend(client)
    assert not (tmp_path / "log").exists()


def test_share_of_the_answers_is_logged(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([step / 20 for step in range(20)])
    monkeypatch.setattr("serving.request_log.log.random.random", lambda: next(draws))
    with logging_server(tiny_run, tmp_path, request_log=0.25) as client:
        for _ in range(20):
            recommend(client)
    rows = read(tmp_path, RESPONSES)
    assert len(rows) == 5
    assert {row["sampling_rate"] for row in rows} == {0.25}


def test_full_queue_drops_answers_and_delays_none(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_end = threading.Event(), threading.Event()
    from serving.request_log import log

    def slow(*given: Any) -> int:
        began.set()
        assert may_end.wait(30.0)
        return real(*given)

    real = log.write_answers
    monkeypatch.setattr(log, "write_answers", slow)
    with logging_server(tiny_run, tmp_path, request_log_rows=1, request_log_queue=2) as client:
        recommend(client)
        assert began.wait(30.0)
        for _ in range(6):
            recommend(client)
        assert counted(client, 'headwater_request_log_answers_total{outcome="dropped"}') == 4.0
        may_end.set()
    assert len(read(tmp_path, RESPONSES)) == 3


def test_unwritable_folder_fails_no_answer_is_said_and_recovers(
    tiny_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving.request_log.log")
    folder = tmp_path / "log"
    folder.write_text("in the way")
    with logging_server(tiny_run, folder) as client:
        recommend(client)
        assert settled(lambda: counted(client, "headwater_request_log_failing") == 1.0)
        recommend(client)
        assert counted(client, "headwater_request_log_failures_total") >= 1.0
        folder.unlink()
        assert settled(lambda: written(client) == 2.0)
        assert counted(client, "headwater_request_log_failing") == 0.0
    assert len(read(folder, RESPONSES)) == 2
    lines = [record.getMessage() for record in caplog.records]
    assert sum("event=request_log_failed" in line and "NotADirectoryError" in line for line in lines) == 1
    assert sum("event=request_log_recovered" in line for line in lines) == 1


def test_full_disk_fails_no_answer_and_leaves_no_part_of_a_file(tiny_run: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with logging_server(tiny_run, tmp_path) as client:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
            recommend(client)
            assert settled(lambda: counted(client, "headwater_request_log_failing") == 1.0)
            assert recommend(client)["ranked"]
            assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert settled(lambda: written(client) == 2.0)
    assert len(read(tmp_path, RESPONSES)) == 2


def test_old_answers_give_way_while_the_folder_cannot_be_written(tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.write_text("in the way")
    with logging_server(tiny_run, folder, request_log_rows=3) as client:
        for user in range(1, 8):
            recommend(client, user, candidates=[101, 102, 103])
        dropped = 'headwater_request_log_answers_total{outcome="dropped"}'
        assert settled(lambda: counted(client, dropped) == 3.0)
        folder.unlink()
        assert settled(lambda: written(client) == 4.0)
    assert [row["user_id"] for row in read(folder, RESPONSES)] == [4, 5, 6, 7]
