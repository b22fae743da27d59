"""Interrupting a run at any point and running again ends as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.runs import (
    SYNTHETIC,
    StoppingObserver,
    assert_equal_results,
    headwater,
    results,
    started,
    without_export,
)
from trainers import pipeline, run_config
from trainers.execution import StepInterruptedError, execute
from trainers.steps import RunContext

pytestmark = pytest.mark.slow

TIMEOUT_S = 120.0

POINTS = [
    ("ingest", "stage raw data", 3),
    ("ingest", "check and write the event log", 10),
    ("features", "daily activity snapshots", 4),
    ("apply", "feast apply", None),
    ("train", "point-in-time join, upstream", None),
    ("train", "train ctr", 9),
    ("train", "train cvr", 5),
    ("publish", "publish ctr_v1", 5),
    ("publish", "publish cvr_v1", 11),
    ("materialize", "check for leaks", 9),
    ("materialize", "materialize", 2),
    ("evaluate", "rankers with and without embeddings", 4),
    ("evaluate", "export the release", None),
    ("report", "report", None),
]
"""Step, beginning of a stage's name, and how often the stage may advance before Ctrl-C."""


def test_run_interrupted_in_every_step_ends_like_an_uninterrupted_one(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "stopped"
    config, _ = run_config.resolve(run=run, dataset="synthetic", recipe="tiny", num_seeds=1, scale=0.05, threads=1)
    steps, context = pipeline.steps(config), RunContext(config=config)
    for step, stage, advances in POINTS:
        with without_export(), pytest.raises(StepInterruptedError) as stopped:
            execute(steps, context, StoppingObserver(stage, advances))
        assert stopped.value.step == step, stage
    with without_export():
        headwater("run", "--run", run)
    folders = ("event_log", "feature_repo/data/offline", "upstream", "evaluation")
    assert_equal_results(results(finished_run, *folders), results(run, *folders))


def test_run_killed_and_interrupted_while_training_publishes_the_same(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "killed"
    killed = started("run", *SYNTHETIC, "--run", str(run))
    wait_for(run / "upstream" / "ctr_v1" / "checkpoint.safetensors", killed)
    killed.kill()
    killed.communicate()
    interrupted = started("run", "--run", str(run))
    wait_for(run / "upstream" / "cvr_v1" / "checkpoint.safetensors", interrupted)
    interrupted.send_signal(signal.SIGINT)
    _, errors = interrupted.communicate(timeout=TIMEOUT_S)
    assert interrupted.returncode == 130, errors
    assert errors.splitlines()[-1] == f"interrupted in step train; `headwater run --run {run}` goes on from there"
    headwater("train", "--run", run)
    headwater("publish", "--run", run)
    folders = ("event_log", "feature_repo/data/offline", "upstream")
    assert_equal_results(results(finished_run, *folders), results(run, *folders))


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    """Return as soon as a process has written a file."""
    deadline = time.monotonic() + TIMEOUT_S
    while not file.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{file} must appear within {TIMEOUT_S} seconds"
        time.sleep(0.02)
