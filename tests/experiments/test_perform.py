"""`headwater experiment`: what is refused, what is written, and what the report picks up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.data.small_repo import SmallRepo
from tests.experiments.small_run import context, mark_published
from trainers.cli import app
from trainers.commands.experiment import NAMES
from trainers.experiments import perform as performing
from trainers.experiments.perform import EXPERIMENTS, perform
from trainers.experiments.results import read_tables, write_table
from trainers.experiments.setting import Setting
from trainers.progress import SILENT
from trainers.report.schema import Report
from trainers.run_lock import RunLockedError, run_lock

ROW = {"case": "kept", "roc_auc": 0.75, "change_ci95": (-1.0, 2.0), "n_test": 10}


@pytest.fixture
def run(small_repo: SmallRepo, tmp_path: Path) -> Path:
    """A run."""
    return context(small_repo, tmp_path / "run").directory


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[Setting]:
    """An experiment that needs no time; the settings that it was run with."""
    seen: list[Setting] = []

    def experiment(setting: Setting) -> list[dict[str, Any]]:
        seen.append(setting)
        return [ROW]

    found: dict[str, Callable[[Setting], list[dict[str, Any]]]] = dict.fromkeys(EXPERIMENTS, experiment)
    monkeypatch.setattr(performing, "EXPERIMENTS", found)
    return seen


def headwater(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["experiment", *map(str, arguments)])


def test_command_knows_every_experiment() -> None:
    assert tuple(EXPERIMENTS) == NAMES


def test_an_experiment_leaves_a_table_that_says_how_it_was_made(run: Path, made_up: list[Setting]) -> None:
    done = perform("refresh-cost", run, SILENT, seeds=2, retrains=3)
    assert done.file == run / "experiments" / "refresh_cost.json"
    table = json.loads(done.file.read_text())
    assert (table["seeds"], table["retrains"], table["made_from"]) == ([1, 2], 3, "first")
    assert read_tables(run) == {"refresh_cost": (ROW,)}
    assert made_up[0].num_retrains == 3


def test_command_shows_rows_and_prints_them_as_json(run: Path, made_up: list[Setting]) -> None:
    shown = headwater("upgrade", "--run", run, "--quiet")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines()[0] == "kept"
    assert "change_ci95              -1.0000, 2.0000" in shown.stdout
    printed = json.loads(headwater("upgrade", "--run", run, "--json", "--quiet", "--seeds", "2").stdout)
    assert printed["rows"][0]["roc_auc"] == 0.75
    assert made_up[1].job.seeds == (1, 2)


def test_tables_of_other_embeddings_are_left_out_of_a_report(run: Path) -> None:
    write_table(run, "upgrade", [ROW], {})
    assert "upgrade" in read_tables(run)
    mark_published(run, "second")
    assert read_tables(run) == {}


def test_intermediate_results_of_other_embeddings_are_dropped(small_repo: SmallRepo, tmp_path: Path) -> None:
    setting = Setting(context(small_repo, tmp_path / "run"), SILENT, seeds=1, retrains=1)
    kept = setting.work("upgrade") / "walks"
    kept.mkdir()
    assert setting.work("upgrade").is_dir()
    assert kept.is_dir()
    mark_published(tmp_path / "run", "second")
    setting.work("upgrade")
    assert not kept.exists()


def test_tables_fit_into_a_report() -> None:
    field = Report.model_fields["experiments"]
    assert field.default == {}
    report = {"upgrade": (ROW,)}
    assert Report.__pydantic_validator__.validate_assignment(Report.model_construct(), "experiments", report)


def test_an_unknown_experiment_is_refused(run: Path) -> None:
    result = headwater("upgrades", "--run", run)
    assert result.exit_code == 2
    known = "upgrade, aggregation, staleness, refresh-cost, consumers, ablation"
    assert f"experiment must be one of {known} (got 'upgrades')" in result.stderr


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    result = headwater("upgrade", "--run", tmp_path)
    assert result.exit_code == 2
    assert "--run must be the directory of a run" in result.stderr


def test_a_run_without_published_embeddings_is_refused(run: Path) -> None:
    (run / "steps" / "publish.json").unlink()
    with pytest.raises(ValueError, match=r"whose step publish is not done\); run `headwater run --run"):
        perform("upgrade", run, SILENT, seeds=None, retrains=1)


def test_a_run_that_another_process_works_in_is_left_alone(run: Path, made_up: list[Setting]) -> None:
    with run_lock(run), pytest.raises(RunLockedError):
        perform("upgrade", run, SILENT, seeds=1, retrains=1)
    assert made_up == []
