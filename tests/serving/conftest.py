"""A tiny run, its release to be changed, and a server of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.serving.tiny_run import NOW, build

# A busy machine may take its time; tests of deadlines set their own.
os.environ.setdefault("HEADWATER_DEADLINE_MS", "60000")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a release and an online store; not to be changed."""
    return build(tmp_path_factory.mktemp("run"))


@pytest.fixture
def changing_run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be changed."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def release_dir(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the release, to be changed."""
    return Path(shutil.copytree(tiny_run / "releases" / "tiny-1", tmp_path / "tiny-1"))


@pytest.fixture
def edit_manifest(release_dir: Path) -> Callable[..., Path]:
    """Replace top-level keys of the copied release's manifest; gives the release's folder."""

    def edit(**changes: Any) -> Path:
        path = release_dir / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return release_dir

    return edit


@pytest.fixture(scope="session")
def settings(tiny_run: Path) -> Settings:
    """Settings of a server whose clock stands at `NOW`."""
    return Settings(run=tiny_run, as_of=NOW, threads=1)


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    """A ready server."""
    with TestClient(create_app(settings)) as ready:
        yield ready
