"""The repo that is pushed into, on SQLite and on Redis; tests take entities of their own."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from feast import FeatureStore

from feature_repo.layout import open_store
from feature_repo.push.pusher import Pusher
from tests.feature_repo.push.pushed_repo import build, pusher_of


@pytest.fixture(scope="session")
def untouched_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on SQLite that nobody pushes into."""
    return build(tmp_path_factory.mktemp("pushed") / "run", "embedded", "pushed")


@pytest.fixture(scope="session", params=["sqlite", "redis"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run on each store that every test may push into."""
    if request.param == "sqlite":
        copied = tmp_path_factory.mktemp("pushed") / "run"
        yield Path(shutil.copytree(request.getfixturevalue("untouched_run"), copied))
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_CONNECTION", request.getfixturevalue("redis_address"))
        yield build(tmp_path_factory.mktemp("pushed") / "run", "redis", f"p{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def pusher(run: Path) -> Pusher:
    """What pushes into it."""
    return pusher_of(run)


@pytest.fixture(scope="session")
def store(run: Path) -> FeatureStore:
    """Feast's own client of it."""
    return open_store(run / "feature_repo")


@pytest.fixture
def changing_run(untouched_run: Path, tmp_path: Path) -> Path:
    """A copy of the run on SQLite that a test may change."""
    return Path(shutil.copytree(untouched_run, tmp_path / "run"))
