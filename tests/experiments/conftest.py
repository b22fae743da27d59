"""One run to experiment on, opened once: reading its downstream rows costs more than most experiments on it."""

from __future__ import annotations

import pytest

from tests.data.small_repo import SmallRepo
from tests.experiments.small_run import setting
from trainers.experiments.setting import Setting


@pytest.fixture(scope="session")
def opened(small_repo: SmallRepo, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """The small repo as a run of one seed; every experiment writes into a folder of its own."""
    return setting(small_repo, tmp_path_factory.mktemp("experiments") / "run")
