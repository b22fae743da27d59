"""A run with two embedding versions and two releases, of which the first is live, to be changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from feature_repo.versions import Catalogue
from tests.life.releases.files import add_files
from tests.serving.tiny_run import build


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run; not to be changed."""
    run = build(tmp_path_factory.mktemp("life"))
    add_files(run)
    return run


@pytest.fixture
def run(whole_run: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


@pytest.fixture
def catalogue(run: Path) -> Catalogue:
    """The copy's catalogue."""
    return Catalogue.of_repo(run / "feature_repo")
