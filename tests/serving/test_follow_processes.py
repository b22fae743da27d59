"""Two worker processes behind one socket follow promotions and rollbacks under load."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from feature_repo.request_log.layout import logged_files
from tests.feature_repo.stores.servers import free_port
from tests.imports import ROOT
from tests.serving.test_follow import ANSWERS, assert_whole, settled
from tests.serving.tiny_run import NOW

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-thirty-two-characters"
NUM_CLIENTS = 3
START_PATIENCE_S = 150.0


@pytest.fixture
def port(changing_run: Path, tmp_path: Path) -> Iterator[int]:
    """A server of two processes."""
    chosen = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HEADWATER_RUN": str(changing_run),
        "HEADWATER_AS_OF": NOW.isoformat(),
        "HEADWATER_THREADS": "1",
        "HEADWATER_TOKEN": TOKEN,
        "HEADWATER_METRICS_DIR": str(tmp_path / "metrics"),
        "HEADWATER_REQUEST_LOG": "1",
        "HEADWATER_REQUEST_LOG_SECONDS": "0.5",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "serving.app:create_app", "--workers", "2"]
    command += ["--timeout-worker-healthcheck", "120"]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen([*command, "--port", str(chosen)], env=environment, stdout=log, stderr=log)
        try:
            ready = settled(lambda: answered(chosen, "GET", "/readyz") == 200, START_PATIENCE_S)
            assert ready, (tmp_path / "server.log").read_text()
            yield chosen
        finally:
            server.terminate()
            server.wait(60)


def call(port: int, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """One request on a connection of its own, which either process may take."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"authorization": f"Bearer {TOKEN}"}
    with contextlib.closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def answered(port: int, method: str, path: str) -> int | None:
    try:
        return call(port, method, path)[0]
    except OSError:
        return None


def test_two_processes_drop_and_mix_no_answer_while_releases_change(port: int, changing_run: Path) -> None:
    done, body = threading.Event(), {"user_id": 1, "surface": "0", "k": 1}
    seen: list[str] = []

    def ask() -> int:
        num_asked = 0
        while not done.is_set():
            status, answer = call(port, "POST", "/v1/recommend", body)
            assert status == 200, answer
            assert_whole(answer)
            seen.append(answer["release"])
            num_asked += 1
        return num_asked

    def everywhere(release: str) -> bool:
        """Whether both processes answer from a release: the last twenty answers came from it."""
        return len(seen) > 20 and set(seen[-20:]) == {release}

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        clients = [pool.submit(ask) for _ in range(NUM_CLIENTS)]
        try:
            for turn in range(4):
                path = "/v1/releases/rollback" if turn % 2 else "/v1/releases/tiny-2/promote"
                status, answer = call(port, "POST", path, {"why": f"turn {turn}"})
                assert (status, answer["live"]) == (200, ("tiny-2", "tiny-1")[turn % 2])
                seen.clear()
                assert settled(lambda: everywhere(answer["live"]))  # noqa: B023
                time.sleep(0.1)
        finally:
            done.set()
        asked = [client.result(60) for client in clients]
    assert min(asked) > 0
    assert set(seen) <= set(ANSWERS)
    assert settled(lambda: answers_counted(port) == sum(asked))
    assert settled(lambda: len(answers_logged(changing_run)) == sum(asked))
    assert {row["release"] for row in answers_logged(changing_run)} == set(ANSWERS)


def answers_counted(port: int) -> float:
    """What either process says that both have answered."""
    name = 'headwater_requests_total{route="/v1/recommend",status="200"} '
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)


def answers_logged(run: Path) -> list[dict[str, Any]]:
    """Rows of answers that both processes have written."""
    files = logged_files(run / "request_log")
    return [row for each in files for row in pq.read_table(each.responses, partitioning=None).to_pylist()]
