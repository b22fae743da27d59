"""The command line: options, exit codes, dry runs, JSON and what starting it imports."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic
import pytest
from typer.testing import CliRunner

import trainers
from feature_repo.contract import EmbeddingVersion, RepoManifest
from feature_repo.layout import profile_path
from feature_repo.versions import Catalogue, ReleaseRecord, VersionRecord, VersionState
from serving.settings import Settings
from trainers import run_config
from trainers.cli import app
from trainers.commands import exits, serve
from trainers.commands.run import STEP_COMMANDS
from trainers.console import PlainProgress, duration
from trainers.progress import Progress
from trainers.run_config import RunConfig
from trainers.run_lock import run_lock
from trainers.steps import RunContext, Step

ROOT = Path(__file__).parents[1]
COMMANDS = (*STEP_COMMANDS, "run", "release", "serve", "status")
Body = Callable[[RunContext, Progress], Mapping[str, Any]]
runner = CliRunner()


def body(name: str) -> Body:
    def run(context: RunContext, progress: Progress) -> Mapping[str, Any]:
        del progress
        context.path(name).write_text(name)
        return {"rows": 3}

    return run


def seed_input(context: RunContext) -> Mapping[str, str]:
    return {"seed": str(context.config.seed)}


@pytest.fixture(autouse=True)
def bodies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Body]:
    """A pipeline of tiny steps, whose bodies a test may replace."""
    found = {name: body(name) for name in STEP_COMMANDS}
    pipeline = ModuleType("trainers.pipeline")

    def steps(config: RunConfig) -> list[Step]:
        assert config.dataset
        return [Step(name, found[name], seed_input, [name]) for name in STEP_COMMANDS]

    pipeline.steps = steps  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trainers.pipeline", pipeline)
    monkeypatch.setattr(trainers, "pipeline", pipeline, raising=False)
    monkeypatch.chdir(tmp_path)
    return found


def invoke(*arguments: str, code: int = 0) -> Any:
    result = runner.invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


HELP_SCRIPT = """
import sys
from trainers.cli import app
app(sys.argv[1:], standalone_mode=False)
print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["serve", "--help"], ["release", "promote", "--help"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = ("feast", "torch", "duckdb", "pandas", "pyarrow", "numpy", "pydantic", "rich", "uvicorn", "serving")
    command = [sys.executable, "-c", HELP_SCRIPT.format(heavy=heavy), *arguments]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage" in found.stdout
    assert found.stderr.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_every_option(command: str) -> None:
    lines = invoke(command, "--help").stdout.splitlines()
    options = [line.split() for line in lines if line.startswith("  -")]
    assert options
    assert all(len(words) > 1 for words in options)


def test_help_lists_commands_and_exit_codes() -> None:
    text = invoke("--help").stdout
    assert all(command in text for command in COMMANDS)
    assert "Exit codes" in text


def test_help_says_whole_sentences() -> None:
    text = " ".join(invoke("release", "--help").stdout.split())
    assert "every server of the run follows within a second." in text
    assert "..." not in text.partition("Commands:")[2]


def test_version_is_that_of_the_package() -> None:
    assert invoke("--version").stdout == f"headwater {version('headwater')}\n"


@pytest.mark.parametrize(
    ("words", "expected"), [("headwater ref", ["refresh"]), ("headwater release ro", ["rollback"])]
)
def test_shell_completes_commands(words: str, expected: list[str]) -> None:
    asked = {"_HEADWATER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    answer = runner.invoke(app, [], env=asked, prog_name="headwater")
    assert answer.output.split() == expected


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


def test_step_command_names_the_step_that_must_run_first() -> None:
    result = invoke("train", "--run", "runs/a", code=2)
    assert "step train needs a complete step ingest" in result.stderr
    assert "`headwater ingest --run runs/a`" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "num_seeds must be at least 1 (got 0)"),
        (["--seed", "-1"], "seed must be at least 0 (got -1)"),
        (["--scale", "0"], "scale must be above 0 and finite (got 0.0)"),
        (["--scale", "nan"], "scale must be above 0 and finite (got nan)"),
        (["--threads", "0"], "threads must be at least 1 (got 0)"),
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


def test_run_refuses_a_run_in_use(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a"):
        assert f"process {os.getpid()} holds it" in invoke("run", "--run", "a", code=1).stderr


def test_new_dataset_does_not_keep_the_path_of_the_old_one(tmp_path: Path) -> None:
    invoke("run", "--run", "a", "--dataset", "kuairand", "--path", str(tmp_path))
    invoke("run", "--run", "a", "--dataset", "synthetic")
    config = run_config.load(tmp_path / "a")
    assert config is not None
    assert (config.dataset, config.path) == ("synthetic", None)


def test_status_shows_steps_versions_and_freshness(tmp_path: Path) -> None:
    invoke("ingest", "--run", "a")
    write_repo(tmp_path / "a")
    found = json.loads(invoke("status", "--run", "a", "--json").stdout)
    assert [step["up_to_date"] for step in found["steps"]] == [True] + [False] * 7
    assert found["embedding_versions"] == [{"version": "ctr_v1", "dim": 8, "ttl_hours": 48}]
    assert found["feature_views"][-1] == {
        "view": "pin_embedding_ctr_v1",
        "ttl_hours": 48,
        "num_snapshots": 2,
        "newest": "2026-01-02",
        "days_behind": 3,
    }
    text = invoke("status", "--run", "a").stdout
    assert "newest 2026-01-02, 3 days behind the event log" in text
    assert "features     to run: has not finished yet" in text


def write_repo(run: Path) -> None:
    """Two embedding snapshots, the newer one three days before the end of the event log."""
    manifest = RepoManifest(
        dataset="synthetic",
        labels=("click",),
        conversions=(),
        windows_days=(1,),
        sequence_length=4,
        user_attributes=(),
        pin_attributes=(),
        embeddings=(EmbeddingVersion(model="ctr", version=1, dim=8, ttl_hours=48),),
    )
    data_dir = run / "feature_repo" / "data"
    offline = data_dir / "offline" / "pin_embedding_ctr_v1"
    offline.mkdir(parents=True)
    (data_dir / "manifest.json").write_text(manifest.to_json())
    for day in ("2026-01-01", "2026-01-02"):
        (offline / f"date={day}.parquet").touch()
    (run / "event_log" / "impressions" / "date=2026-01-05").mkdir(parents=True)


def test_status_refuses_a_folder_without_a_run() -> None:
    assert "--run must be the directory of a run (got 'a')" in invoke("status", "--run", "a", code=2).stderr


def test_serve_refuses_a_run_without_a_live_release(tmp_path: Path) -> None:
    assert "--run must be the directory of a run (got 'a')" in invoke("serve", "--run", "a", code=2).stderr
    begin_run(tmp_path / "a")
    told = invoke("serve", "--run", "a", code=2).stderr
    assert "--run must have a live release to serve (got 'a', which has none); run `headwater run --run a`" in told


def begin_run(run: Path) -> Catalogue:
    """A run with a feature repo; gives its catalogue."""
    run.mkdir()
    (run / "run.json").write_text(RunConfig(dataset="synthetic", out=run).to_json())
    (run / "feature_repo" / "data").mkdir(parents=True)
    (run / "feature_repo" / "feature_store.yaml").write_text(profile_path("embedded").read_text())
    return Catalogue.of_repo(run / "feature_repo")


def test_serve_starts_the_factory_on_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(uvicorn, "run", lambda *arguments, **options: calls.append((*arguments, options)))
    monkeypatch.setenv(serve.RUN_VARIABLE, "elsewhere")
    catalogue, author = begin_run(tmp_path / "a"), {"who": "evaluate", "why": "a test"}
    version = VersionRecord(key="ctr_v1", model="ctr", version=1, dim=8, space_id="0" * 12)
    catalogue.create_version(version, **author)
    for before, after in pairwise((VersionState.TRAINING, VersionState.BACKFILLING, VersionState.CANDIDATE)):
        catalogue.move_version("ctr_v1", after, expected=before, **author)
    release = ReleaseRecord(id="r-1", folder="releases/r-1", manifest_sha256="0" * 64, versions={"ctr_v1": "0" * 12})
    catalogue.create_release(release, **author)
    catalogue.promote("r-1", **author)
    invoke("serve", "--run", "a", "--port", "9090", "--workers", "2")
    ((factory, options),) = calls
    assert (factory, options["factory"]) == ("serving.app:create_app", True)
    asked = {name: options[name] for name in ("host", "port", "workers", "log_level")}
    assert asked == {"host": "127.0.0.1", "port": 9090, "workers": 2, "log_level": "info"}
    assert os.environ[serve.RUN_VARIABLE] == str(tmp_path / "a")


def test_serve_refuses_a_port_out_of_range() -> None:
    refused = invoke("serve", "--run", "a", "--port", "70000", code=2)
    assert refused.stderr == "error: port must be in 1..65535 (got 70000); give --port another\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_plain_progress_writes_time_left_after_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lines: list[str] = []
    with PlainProgress(lines.append).stage("day 2026-01-02", total=400) as stage:
        stage.advance(100)
        now = 105.0
        stage.advance(100)
        stage.advance(100)
    assert lines == ["  day 2026-01-02: 200 of 400, 5.0 s left"]
