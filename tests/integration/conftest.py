"""One finished run of generated data, made once for all tests that look at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.runs import SYNTHETIC, started
from trainers.data import prepare


@pytest.fixture(scope="session", autouse=True)
def _link_stays() -> Iterator[None]:
    """A run points the top-level feature repo at itself; runs of tests must not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "select", lambda _repo_dir: False)
        yield


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a complete run; tests only read it."""
    run = tmp_path_factory.mktemp("runs") / "synthetic"
    process = started("run", *SYNTHETIC, "--run", run)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    (run / "output.txt").write_text(output)
    return run
