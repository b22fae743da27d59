"""Runs and single steps: what is done, what is said, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.commands.invoking import invoke
from trainers import run_config
from trainers.commands.run import STEP_COMMANDS
from trainers.run_lock import run_lock


def test_run_does_every_step_and_nothing_the_second_time() -> None:
    first = json.loads(invoke("run", "--dataset", "synthetic", "--run", "runs/a", "--json").stdout)
    assert [step["name"] for step in first["steps"] if step["ran"]] == list(STEP_COMMANDS)
    again = json.loads(invoke("run", "--run", "runs/a", "--json").stdout)
    assert [step["name"] for step in again["steps"] if step["ran"]] == []
    assert again["options"]["dataset"] == "synthetic"


def test_run_without_a_directory_is_named_after_the_dataset(tmp_path: Path) -> None:
    invoke("run", "--dataset", "synthetic", "--quiet")
    assert (tmp_path / "runs/synthetic/run.json").is_file()


def test_run_says_which_options_changed() -> None:
    invoke("run", "--run", "runs/a", "--seed", "1")
    result = invoke("run", "--run", "runs/a", "--seed", "2")
    assert "options of runs/a change: seed 1 → 2" in result.stderr
    assert "ingest (inputs changed: seed 1 → 2)" in result.stderr


def test_run_keeps_progress_off_standard_output() -> None:
    result = invoke("run", "--run", "runs/a", "--json")
    assert "ingest done" in result.stderr
    assert json.loads(result.stdout)["run"] == "runs/a"


def test_run_quiet_says_nothing() -> None:
    assert invoke("run", "--run", "runs/a", "--quiet").output == ""


def test_dry_run_says_what_would_run_and_writes_nothing(tmp_path: Path) -> None:
    text = invoke("run", "--run", "runs/a", "--dry-run").stdout
    assert "ingest       would run (has not finished yet)" in text
    assert "features     would run (step ingest runs first)" in text
    assert list(tmp_path.iterdir()) == []


def test_dry_run_json_lists_decisions() -> None:
    invoke("ingest", "--run", "runs/a")
    found = json.loads(invoke("run", "--run", "runs/a", "--dry-run", "--json").stdout)
    assert found["steps"][:2] == [
        {"name": "ingest", "runs": False, "reason": ""},
        {"name": "features", "runs": True, "reason": "has not finished yet"},
    ]


def test_step_command_runs_that_step_and_shows_its_figures() -> None:
    result = invoke("ingest", "--run", "runs/a")
    assert "rows" in result.stdout
    assert "features" not in result.output


def test_step_command_names_the_step_that_must_run_first_and_leaves_nothing(tmp_path: Path) -> None:
    result = invoke("train", "--run", "runs/a", code=2)
    assert "step train needs a complete step ingest" in result.stderr
    assert "`headwater ingest --run runs/a`" in result.stderr
    assert not (tmp_path / "runs" / "a").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "num_seeds must be at least 1 (got 0)"),
        (["--seed", "-1"], "seed must be at least 0 (got -1)"),
        (["--scale", "0"], "scale must be above 0 and finite (got 0.0)"),
        (["--scale", "nan"], "scale must be above 0 and finite (got nan)"),
        (["--threads", "0"], "threads must be at least 1 (got 0)"),
        (["--recipe", "huge"], "recipe must be one of default, compared, domains, unified, tiny (got 'huge')"),
        (["--path", "nowhere"], "--path must name something that exists (got 'nowhere')"),
        (["--dataset", "my.yaml"], "--dataset must name something that exists (got 'my.yaml')"),
        (["--dataset", ""], "dataset must be a name or a YAML file (got '')"),
    ],
)
def test_run_refuses_a_bad_option(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = invoke("run", "--run", "runs/a", *arguments, code=2)
    assert f"error: {message}" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_run_refuses_a_run_file_it_did_not_write(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": 1, "dataset": "synthetic", "sede": 3}')
    assert "unknown key 'sede'" in invoke("run", "--run", str(tmp_path), code=2).stderr


def test_run_refuses_a_run_in_use(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a"):
        assert f"process {os.getpid()} holds it" in invoke("run", "--run", "a", code=1).stderr


def test_new_dataset_does_not_keep_the_path_of_the_old_one(tmp_path: Path) -> None:
    invoke("run", "--run", "a", "--dataset", "kuairand", "--path", str(tmp_path))
    invoke("run", "--run", "a", "--dataset", "synthetic")
    config = run_config.load(tmp_path / "a")
    assert config is not None
    assert (config.dataset, config.path) == ("synthetic", None)
