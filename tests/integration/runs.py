"""Small real runs, how they are stopped, and how two of them are compared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from feature_repo.contract import CREATED_TIMESTAMP
from trainers.cli import app
from trainers.evaluation import step
from trainers.markers import Marker
from trainers.progress import Stage

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "docs" / "examples" / "own_data" / "shop.yaml"
SYNTHETIC = ("--dataset", "synthetic", "--recipe", "tiny", "--seeds", "1", "--scale", "0.05", "--threads", "1")
"""A hundred users, two weeks, three thousand impressions; one thread, so that sums have one order."""


# In its own process the command must not point the top-level feature repo at a test's run either.
_COMMAND = """
import trainers.data.prepare
trainers.data.prepare.select = lambda repo_dir: False
from trainers.cli import main
main()
"""


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    """A command in its own process, as from a shell."""
    command = [sys.executable, "-c", _COMMAND, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def headwater(*arguments: str | Path, code: int = 0) -> Result:
    """Outcome of a command in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def refusal(*arguments: str | Path) -> str:
    """The one sentence with which a command refuses a caller's mistake."""
    errors = [line for line in headwater(*arguments, code=2).stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, errors
    return errors[0]


@contextmanager
def without_export() -> Iterator[None]:
    """Runs that write a release without models: exporting costs more than all else in a small run."""

    def nothing(parts: object, releases: Path, **options: object) -> tuple[None, dict[str, Any]]:
        del parts, options
        folder = releases / "r-without-models"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_text("{}")
        return None, {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "write_release", nothing)
        patch.setattr(step, "_put_live", lambda *_: False)
        yield


class StoppingObserver:
    """Raises `KeyboardInterrupt`, as Ctrl-C does, in a stage of a step.

    Args:
        stage: Beginning of the stage's name.
        advances: Calls of `advance` that the stage survives; none stops it when it opens.
    """

    def __init__(self, stage: str, advances: int | None) -> None:
        self._stage, self._advances = stage, advances

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage."""
        del total
        chosen = name.startswith(self._stage)
        if chosen and self._advances is None:
            raise KeyboardInterrupt
        yield _StoppingStage(self._advances if chosen else None)

    def step_started(self, name: str, reason: str, position: int, num_steps: int) -> None:
        """Nothing to show."""

    def step_finished(self, marker: Marker, *, ran: bool, position: int, num_steps: int) -> None:
        """Nothing to show."""


class _StoppingStage:
    def __init__(self, left: int | None) -> None:
        self._left = left

    def advance(self, num_done: int = 1) -> None:
        del num_done
        if self._left is None:
            return
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


def results(run: Path, *folders: str) -> dict[str, Any]:
    """Every parquet table and JSON file under folders of a run, without the moment at which rows were written."""
    found: dict[str, Any] = {}
    for folder in folders:
        for file in sorted((run / folder).rglob("*")):
            if file.suffix == ".parquet":
                found[str(file.relative_to(run))] = _without_creation(pq.ParquetFile(file).read())
            elif file.suffix == ".json":
                found[str(file.relative_to(run))] = json.loads(file.read_text())
    return found


def _without_creation(table: pa.Table) -> pa.Table:
    return table.drop_columns([name for name in table.column_names if name == CREATED_TIMESTAMP])


def assert_equal_results(one: dict[str, Any], other: dict[str, Any]) -> None:
    """The same files with the same contents, to the last bit."""
    assert one, "there must be something to compare"
    assert sorted(one) == sorted(other)
    different = [name for name in one if not _equal(one[name], other[name])]
    assert different == []


def _equal(one: Any, other: Any) -> bool:
    return one.equals(other) if isinstance(one, pa.Table) else bool(one == other)
