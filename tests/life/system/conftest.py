"""The workshop, and the run that every sequence begins with."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.life.system.shop import write_shop
from tests.life.system.workshop import Workshop


@pytest.fixture(scope="session")
def counts() -> Iterator[Counter[str]]:
    """What was done and checked, for the log of a long run."""
    counted: Counter[str] = Counter()
    yield counted
    if log := os.environ.get("HEADWATER_TEST_LOG"):
        with Path(log).open("a") as file:
            file.write(json.dumps(dict(sorted(counted.items()))) + "\n")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """Where commands are done."""
    workshop = Workshop(tmp_path_factory.mktemp("workshop"))
    yield workshop
    workshop.close()


@pytest.fixture(scope="session")
def first_run(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a live release of `ctr_v1`; tests only read it."""
    folder = tmp_path_factory.mktemp("system")
    shop = write_shop(folder / "shop")
    workshop.call(folder / "run", "make_run", shop=shop)
    return folder / "run"


@pytest.fixture(scope="session")
def two_versions(workshop: Workshop, first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with `ctr_v2`, which keeps a map to `ctr_v1`, and a candidate release of it; tests only read it."""
    folder = tmp_path_factory.mktemp("two_versions")
    run = Path(shutil.copytree(first_run, folder / "run"))
    assert workshop.command(run, "version", "create", "--model", "ctr", "--compatible-with", "ctr_v1", "-q").code == 0
    workshop.call(run, "write_parts", folder=folder / "parts", key="ctr_v2")
    assert workshop.command(run, "release", "create", str(folder / "parts"), "--why", "v2").code == 0
    return run


@pytest.fixture
def run(two_versions: Path, tmp_path: Path) -> Path:
    """A copy for one test alone."""
    return Path(shutil.copytree(two_versions, tmp_path / "run"))
