"""The step engine: what runs again, what an interrupted or failed step leaves, and one process at a time."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from trainers import run_config
from trainers.execution import StepFailedError, StepInterruptedError, UpstreamStepError, execute
from trainers.markers import files_under, marker_file, plain, read_marker
from trainers.peak_memory import PeakMemory
from trainers.progress import Progress, SilentProgress
from trainers.run_config import RunConfig
from trainers.run_lock import LOCK_FILE, RunLockedError, run_lock
from trainers.steps import RunContext, Step, plan

NAMES = ("first", "second", "third")


class Recorder(SilentProgress):
    """Observer that remembers."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []

    def step_started(self, name: str, reason: str, position: int, num_steps: int) -> None:
        assert 1 <= position <= num_steps
        self.started.append((name, reason))

    def step_finished(self, marker: Any, *, ran: bool, position: int, num_steps: int) -> None:
        assert 1 <= position <= num_steps
        assert marker.fingerprint or not ran


def writing(name: str) -> Callable[[RunContext, Progress], Mapping[str, Any]]:
    """Step body that leaves `<name>/data.txt`."""

    def run(context: RunContext, progress: Progress) -> Mapping[str, Any]:
        folder = context.path(name)
        folder.mkdir(exist_ok=True)
        with progress.stage(name, total=2) as stage:
            for part in ("data.txt", "more.txt"):
                (folder / part).write_text(f"{context.config.seed}")
                stage.advance()
        return {"seed": context.config.seed}

    return run


def seed_input(context: RunContext) -> Mapping[str, str]:
    return {"seed": str(context.config.seed)}


def make_steps(**bodies: Callable[[RunContext, Progress], Mapping[str, Any]]) -> list[Step]:
    """Three steps of which the second alone reads the seed."""
    return [
        Step("first", bodies.get("first", writing("first")), outputs=["first"]),
        Step("second", bodies.get("second", writing("second")), seed_input, ["second"]),
        Step("third", bodies.get("third", writing("third")), outputs=["third/data.txt"]),
    ]


def context_in(directory: Path, **options: Any) -> RunContext:
    return RunContext(config=RunConfig(dataset="synthetic", out=directory, threads=1, **options))


def names_run(steps: list[Step], context: RunContext, only: str | None = None) -> list[str]:
    recorder = Recorder()
    execute(steps, context, recorder, only=only)
    return [name for name, _ in recorder.started]


def test_execute_runs_every_step_once(tmp_path: Path) -> None:
    context = context_in(tmp_path / "run")
    assert names_run(make_steps(), context) == list(NAMES)
    assert names_run(make_steps(), context) == []


def test_execute_returns_markers_with_figures_and_cost(tmp_path: Path) -> None:
    finished = execute(make_steps(), context_in(tmp_path, seed=7), Recorder())
    assert [each.marker.figures for each in finished] == [{"seed": 7}] * 3
    assert all(each.ran and each.marker.peak_mb > 1 and each.marker.seconds >= 0 for each in finished)
    assert read_marker(tmp_path, "second") == finished[1].marker


def test_execute_runs_from_the_step_whose_input_changed(tmp_path: Path) -> None:
    execute(make_steps(), context_in(tmp_path, seed=1), Recorder())
    recorder = Recorder()
    execute(make_steps(), context_in(tmp_path, seed=2), recorder)
    assert recorder.started[0] == ("second", "inputs changed: seed 1 → 2")
    assert [name for name, _ in recorder.started] == ["second", "third"]
    assert run_config.load(tmp_path) == context_in(tmp_path, seed=2).config


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ("first/more.txt", ["first", "second", "third"]),
        ("second/data.txt", ["second", "third"]),
        ("third/data.txt", ["third"]),
        ("third/more.txt", []),
        ("steps/second.json", ["second", "third"]),
    ],
)
def test_execute_runs_again_what_lost_a_file(tmp_path: Path, lost: str, expected: list[str]) -> None:
    context = context_in(tmp_path)
    execute(make_steps(), context, Recorder())
    (tmp_path / lost).unlink()
    assert names_run(make_steps(), context) == expected


def test_execute_ignores_a_marker_that_cannot_be_read(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    execute(make_steps(), context, Recorder())
    marker_file(tmp_path, "third").write_text('{"step": "third"')
    assert names_run(make_steps(), context) == ["third"]


def failing(error: BaseException) -> Callable[[RunContext, Progress], Mapping[str, Any]]:
    def run(context: RunContext, progress: Progress) -> Mapping[str, Any]:
        del progress
        context.path("second").mkdir(exist_ok=True)
        context.path("second/data.txt").write_text("half")
        raise error

    return run


def test_execute_keeps_earlier_steps_when_one_fails(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    with pytest.raises(StepFailedError, match="step second failed: loss is not finite") as caught:
        execute(make_steps(second=failing(ArithmeticError("loss is not finite"))), context, Recorder())
    assert isinstance(caught.value.__cause__, ArithmeticError)
    assert names_run(make_steps(), context) == ["second", "third"]


def test_execute_redoes_an_interrupted_step(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    with pytest.raises(StepInterruptedError) as caught:
        execute(make_steps(second=failing(KeyboardInterrupt())), context, Recorder())
    assert caught.value.step == "second"
    assert names_run(make_steps(), context) == ["second", "third"]
    assert (tmp_path / "second/data.txt").read_text() == "1"


def test_execute_takes_a_native_error_after_ctrl_c_for_an_interruption(tmp_path: Path) -> None:
    def run(context: RunContext, progress: Progress) -> Mapping[str, Any]:
        del context, progress
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("Query interrupted") from None
        return {}

    with pytest.raises(StepInterruptedError):
        execute(make_steps(second=run), context_in(tmp_path), Recorder())


def test_execute_leaves_later_markers_invalid_when_an_earlier_step_was_redone_and_then_interrupted(
    tmp_path: Path,
) -> None:
    context = context_in(tmp_path)
    execute(make_steps(), context, Recorder())
    (tmp_path / "first/data.txt").unlink()
    with pytest.raises(StepInterruptedError):
        execute(make_steps(second=failing(KeyboardInterrupt())), context, Recorder())
    assert names_run(make_steps(), context) == ["second", "third"]


def test_execute_fails_when_an_output_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StepFailedError, match="must leave first"):
        execute(make_steps(first=lambda _context, _progress: {}), context_in(tmp_path), Recorder())
    assert read_marker(tmp_path, "first") is None


def aside_steps(body: Callable[[RunContext, Progress], Mapping[str, Any]]) -> list[Step]:
    return [Step("first", body, seed_input, ["first"], writes_aside=True), *make_steps()[1:]]


def swapping(context: RunContext, progress: Progress) -> Mapping[str, Any]:
    """Step body that refuses seed 13, and writes aside."""
    del progress
    if context.config.seed == 13:
        raise ValueError("seed must not be 13 (got 13)")
    staged = context.path(".first.staged")
    staged.mkdir()
    (staged / "data.txt").write_text(str(context.config.seed))
    context.swap_in(staged, "first")
    return {}


def test_execute_leaves_earlier_results_and_options_whole_when_new_input_is_refused(tmp_path: Path) -> None:
    context = context_in(tmp_path, seed=1)
    execute(aside_steps(swapping), context, Recorder())
    with pytest.raises(StepFailedError):
        execute(aside_steps(swapping), context_in(tmp_path, seed=13), Recorder())
    assert run_config.load(tmp_path) == context.config
    assert names_run(aside_steps(swapping), context) == []


def test_swap_in_replaces_the_whole_folder(tmp_path: Path) -> None:
    execute(aside_steps(swapping), context_in(tmp_path, seed=1), Recorder())
    (tmp_path / "first/old.txt").write_text("old")
    execute(aside_steps(swapping), context_in(tmp_path, seed=2), Recorder())
    assert files_under(tmp_path, ["first"]) == ["first/data.txt"]
    assert [path.name for path in tmp_path.glob(".first*")] == []


def test_execute_only_runs_that_step(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    assert names_run(make_steps(), context, only="first") == ["first"]
    assert names_run(make_steps(), context, only="second") == ["second"]


def test_execute_only_refuses_when_an_earlier_step_must_run(tmp_path: Path) -> None:
    with pytest.raises(UpstreamStepError, match=r"step second needs a complete step first .*headwater first --run"):
        execute(make_steps(), context_in(tmp_path), Recorder(), only="second")
    assert not (tmp_path / "first").exists()


def test_execute_refuses_an_unknown_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of first, second, third \(got 'fourth'\)"):
        execute(make_steps(), context_in(tmp_path), Recorder(), only="fourth")


def test_plan_says_why_and_writes_nothing(tmp_path: Path) -> None:
    context = context_in(tmp_path / "run")
    decisions = plan(make_steps(), context)
    assert [decision.reason for decision in decisions] == [
        "has not finished yet",
        "step first runs first",
        "step first runs first",
    ]
    assert not (tmp_path / "run").exists()


def test_plan_asks_for_inputs_only_of_steps_whose_earlier_ones_are_complete(tmp_path: Path) -> None:
    def needs_first(context: RunContext) -> Mapping[str, str]:
        return {"first": context.path("first/data.txt").read_text()}

    steps = [make_steps()[0], dataclasses.replace(make_steps()[1], inputs=needs_first)]
    assert [decision.must_run for decision in plan(steps, context_in(tmp_path))] == [True, True]
    assert names_run(steps, context_in(tmp_path)) == ["first", "second"]


def test_run_lock_names_the_process_that_holds_the_run(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from trainers.run_lock import run_lock\n"
        "with run_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLockedError, match=rf"process {holder.pid} holds it"), run_lock(tmp_path):
            pass
        holder.kill()
    with run_lock(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == str(os.getpid())


def test_execute_holds_the_lock_while_a_step_runs(tmp_path: Path) -> None:
    def run(context: RunContext, progress: Progress) -> Mapping[str, Any]:
        with context.path(LOCK_FILE).open() as handle, pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return writing("first")(context, progress)

    assert names_run(make_steps(first=run), context_in(tmp_path), only="first") == ["first"]


def test_killed_run_goes_on_with_the_step_that_was_under_way(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from tests.test_steps import *\n"
        "def die(context, progress):\n"
        "    writing('second')(context, progress); os.kill(os.getpid(), signal.SIGKILL)\n"
        "execute(make_steps(second=die), context_in(Path(sys.argv[1])), Recorder())"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=Path(__file__).parents[1], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert names_run(make_steps(), context_in(tmp_path)) == ["second", "third"]


def test_peak_memory_sees_memory_that_is_gone_at_the_end() -> None:
    with PeakMemory(interval_seconds=0.01) as memory:
        block = bytearray(os.urandom(1024)) * (200 * 1024)
        size_mb = len(block) / 1024**2
        del block
    assert memory.peak_mb > size_mb


def test_plain_makes_json_of_numpy_and_what_is_not_finite() -> None:
    numpy = pytest.importorskip("numpy")
    figures = {"auc": numpy.float32(0.5), "rows": numpy.int64(3), "loss": float("nan"), "days": (1, Path("x"))}
    assert plain(figures) == {"auc": 0.5, "rows": 3, "loss": "nan", "days": [1, "x"]}


def test_files_under_skips_hidden_files_and_journals(tmp_path: Path) -> None:
    for name in ("a.parquet", ".a.parquet.partial", "registry.db-journal", "sub/.hidden/b.parquet", "sub/c.json"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("x")
    assert files_under(tmp_path, ["out"]) == ["out/a.parquet", "out/sub/c.json"]
