"""How commands end: exit codes, sentences, tracebacks only when asked for."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import pytest

from serving.settings import Settings
from tests.commands.invoking import ROOT, Body, invoke
from trainers.commands import exits
from trainers.progress import Progress
from trainers.steps import RunContext


def raising(error: BaseException) -> Body:
    def run(context: RunContext, progress: Progress) -> Mapping[str, Any]:
        del context, progress
        raise error

    return run


def test_error_of_the_server_ends_with_code_2_and_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="token") as refused:
        Settings(run=tmp_path, token="short").write_token()  # type: ignore[arg-type]
    assert exits.code(refused.value) == 2
    assert exits.sentence(refused.value).startswith("error: the token must have at least 16 characters (got 5); make")


def test_bad_input_ends_with_code_2_and_its_own_words(bodies: dict[str, Body]) -> None:
    def refuse(context: RunContext, progress: Progress) -> Mapping[str, Any]:
        del progress
        dataclasses.replace(context.config, num_seeds=0)
        return {}

    bodies["ingest"] = refuse
    result = invoke("run", "--run", "runs/a", "--json", code=2)
    sentence = "step ingest: num_seeds must be at least 1 (got 0); give --seeds 1 or more"
    assert f"error: {sentence}\n" in result.stderr
    assert json.loads(result.stdout) == {"error": sentence, "exit_code": 2}


def test_bad_yaml_names_the_key_and_the_value(bodies: dict[str, Body]) -> None:
    class Declaration(pydantic.BaseModel, extra="forbid"):
        name: str

    def refuse(context: RunContext, progress: Progress) -> Mapping[str, Any]:
        del context, progress
        Declaration.model_validate({"name": "mine", "lables": ["click"]})
        return {}

    bodies["ingest"] = refuse
    message = "Declaration: lables: Extra inputs are not permitted (got ['click'])"
    assert message in invoke("run", "--run", "runs/a", code=2).stderr


@pytest.mark.parametrize("error", [RuntimeError("store is down"), ValueError("not of our making"), MemoryError()])
def test_failure_ends_with_code_1_and_no_traceback(bodies: dict[str, Body], error: Exception) -> None:
    bodies["train"] = raising(error)
    result = invoke("run", "--run", "runs/a", code=1)
    assert f"error: step train: {type(error).__name__}" in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_extra_is_named(bodies: dict[str, Body]) -> None:
    bodies["train"] = raising(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert "torch must be installed" in invoke("run", "--run", "runs/a", code=1).stderr


def test_failure_shows_a_traceback_with_debug(bodies: dict[str, Body], monkeypatch: pytest.MonkeyPatch) -> None:
    bodies["train"] = raising(RuntimeError("store is down"))
    assert "Traceback" in invoke("run", "--run", "runs/a", "--debug", code=1).stderr
    monkeypatch.setenv("HEADWATER_DEBUG", "1")
    assert "Traceback" in invoke("run", "--run", "runs/a", code=1).stderr


def test_ctrl_c_ends_with_code_130_and_says_how_to_go_on(bodies: dict[str, Body]) -> None:
    good = bodies["train"]
    bodies["train"] = raising(KeyboardInterrupt())
    result = invoke("run", "--run", "runs/a", code=130)
    assert "interrupted in step train; `headwater run --run runs/a` goes on from there" in result.stderr
    bodies["train"] = good
    found = json.loads(invoke("run", "--run", "runs/a", "--json").stdout)
    assert [step["name"] for step in found["steps"] if not step["ran"]] == ["ingest", "features", "apply"]


INTERRUPTED_SCRIPT = """
import sys, time
from types import ModuleType
import trainers
from trainers.steps import Step
def sleep(context, progress):
    print("asleep", flush=True)
    time.sleep(60)
sys.modules["trainers.pipeline"] = trainers.pipeline = ModuleType("trainers.pipeline")
trainers.pipeline.steps = lambda config: [Step("ingest", sleep)]
from trainers.cli import main
sys.argv = ["headwater", "run", "--run", "runs/a"]
main()
"""


def test_sigint_ends_the_process_with_code_130(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_SCRIPT], cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted in step ingest" in errors
