"""The `feast` command as a stranger runs it: inside the repo, and from elsewhere with `-c`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from feature_repo.layout import PACKAGE, create_repo
from tests.feature_repo.repos import MANIFEST, write_all

pytestmark = pytest.mark.slow

FEAST = Path(sys.executable).with_name("feast")
START_TIMEOUT_S = 120.0


def feast(*arguments: str, cwd: Path) -> str:
    done = subprocess.run([FEAST, *arguments], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def together(*calls: Callable[[], str]) -> list[str]:
    """Outputs of commands that run side by side, as each spends seconds on importing Feast."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def test_commands_work_from_inside_and_from_elsewhere(tmp_path: Path) -> None:
    repo, clone, elsewhere = tmp_path / "run" / "repo", tmp_path / "clone" / "feature_repo", tmp_path / "elsewhere"
    elsewhere.mkdir()
    create_repo(repo, MANIFEST)
    write_all(repo)
    shutil.copytree(PACKAGE, clone, ignore=shutil.ignore_patterns("data", "__pycache__"))

    applied, fresh = together(
        lambda: feast("apply", cwd=repo), lambda: feast("-c", "../clone/feature_repo", "apply", cwd=elsewhere)
    )
    assert "Deploying infrastructure for pin_embedding_ctr_v1" in applied
    assert "Applying changes for project headwater" in fresh
    assert "Deploying infrastructure" not in fresh
    assert (clone / "data" / "registry.db").is_file()

    interval = ("2024-02-28T00:00:00", "2024-03-01T12:00:00")
    listed, _ = together(
        lambda: feast("feature-views", "list", cwd=repo),
        lambda: feast("-c", "../run/repo", "materialize", *interval, cwd=elsewhere),
    )
    assert "user_embedding_ctr_v1" in listed
    assert "2024-03-03" in feast("materialize-incremental", "2024-03-03T00:00:00", cwd=repo)
    with serving("serve", "-p", (port := free_port()), cwd=repo), serving("ui", "-p", (ui := free_port()), cwd=repo):
        assert_features_are_served(port)
        projects = json.loads(wait_for(f"http://127.0.0.1:{ui}/projects-list.json"))
    assert [project["id"] for project in projects["projects"]] == ["headwater"]
    assert list(elsewhere.iterdir()) == []


def assert_features_are_served(port: str) -> None:
    request = {
        "feature_service": "ranking__user_ctr_v1",
        "entities": {"user_id": [1], "pin_id": [10]},
        "full_feature_names": True,
    }
    answer = json.loads(wait_for(f"http://127.0.0.1:{port}/get-online-features", request))
    names = answer["metadata"]["feature_names"]
    values = {name: result["values"] for name, result in zip(names, answer["results"], strict=True)}
    assert values["user_activity__impressions_1d"] == [101]
    assert values["user_embedding_ctr_v1__embedding"] == [[1.0, 1.0, 0.0, 1.0]]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@contextmanager
def serving(*arguments: str, cwd: Path) -> Iterator[None]:
    """A server that is gone afterwards, with the workers it started."""
    server = subprocess.Popen(
        [FEAST, *arguments], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def wait_for(url: str, body: dict[str, Any] | None = None) -> bytes:
    """Answer of a server that may still be starting."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer: bytes = response.read()
                return answer
        except ConnectionError:
            pass
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url} must answer within {START_TIMEOUT_S} seconds")
        time.sleep(0.2)
