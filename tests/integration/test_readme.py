"""The README as a newcomer follows it: its commands parse and work, and its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.runs import ROOT, SHOP, headwater, started, without_export

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BIN = ".venv/bin/"

NOT_RUN_HERE = {
    "git clone": "this is the clone",
    "make demo": "minutes; the same command on small data is the finished run of these tests",
    "make test": "would run this test again",
    "make check": "would run this test again",
    "make bench": "measures for minutes",
    "make serve": "does not end; what it starts answers the pages' requests below",
    ".venv/bin/headwater serve": "does not end; what it starts answers the pages' requests below",
    "curl": "asks a server, which is started below",
    ".venv/bin/headwater run --dataset kuairand": "needs data that is not in the repository",
    ".venv/bin/headwater run --dataset complete_journey": "minutes, as make demo",
}
"""Beginning of a command, and why it is not run."""


def commands(page: Path = README) -> list[str]:
    """Lines after `$ ` in the console blocks of a page, continuation lines joined."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    joined = [re.sub(r"\\\n>?\s*", "", block) for block in blocks]
    return [line.removeprefix("$ ").strip() for block in joined for line in block.splitlines() if line.startswith("$ ")]


def is_run(command: str) -> bool:
    return not any(command.startswith(beginning) for beginning in NOT_RUN_HERE)


def test_readme_shows_commands() -> None:
    assert {"make demo", "make test"} <= set(commands())
    assert any(is_run(command) for command in commands())


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith(f"{BIN}headwater ")])
def test_readme_command_has_options_that_exist(command: str) -> None:
    # Options are parsed before any of them acts, so help comes only where every other one is known.
    assert "Usage" in headwater(*shlex.split(command.rstrip(" &"))[1:], "--help").stdout


@pytest.mark.parametrize("command", [line for line in commands() if line.startswith("make ")])
def test_readme_target_exists(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{re.escape(target)}:|^bench-%:", (ROOT / "Makefile").read_text(), re.MULTILINE), target


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a new checkout."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkout(finished_run: Path, fresh: Path) -> Path:
    """A checkout in which `make demo` has been run."""
    (fresh / "runs").mkdir()
    (fresh / "runs" / "demo").symlink_to(finished_run)
    return fresh


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for line in commands() if is_run(line)])
def test_readme_command_works(checkout: Path, command: str) -> None:
    words = shlex.split(command)
    if words[0] == f"{BIN}headwater":
        quick = ["--seeds", "1", "--threads", "1"] if words[1] == "run" else []
        with without_export():
            assert headwater(*words[1:], *quick).stdout
        return
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


@pytest.mark.slow
def test_tutorial_works_from_top_to_bottom(fresh: Path) -> None:
    """Every command in its order; what needs a running server is run below."""
    for command in filter(is_run, commands(TUTORIAL)):
        words = shlex.split(command)
        if words[0] == f"{BIN}headwater":
            quick = ["--threads", "1"] if words[1] == "run" else []
            with without_export():
                assert headwater(*words[1:], *quick).stdout, command
        else:
            done = subprocess.run(words, cwd=fresh, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    for name in ("shop.yaml", "shop_check.html", "tutorial/report.html", "tutorial/report.json"):
        assert (fresh / "runs" / name).stat().st_size > 0, name


def serving_commands() -> list[str]:
    """What starts a server in the pages; of `make serve` the line that it prints before it runs it."""
    found = []
    for command in [*commands(), *commands(TUTORIAL)]:
        if command.startswith("make serve"):
            words = [*shlex.split(command), "--dry-run", "--no-print-directory"]
            plain = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKEOVERRIDES")}
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=plain)
            found.append(done.stdout.strip().splitlines()[-1])
        elif command.startswith(f"{BIN}headwater serve"):
            found.append(command)
    return found


@contextmanager
def serving(command: str, run: Path, port: int) -> Iterator[None]:
    """A server started by a command of the pages, on another port and the run that is at hand; ready when entered."""
    words = shlex.split(re.sub(r"--run \S+", f"--run {run}", re.sub(r"--port \d+", f"--port {port}", command)))
    process = started(*words[1:])
    try:
        for _ in range(600):
            assert process.poll() is None, process.communicate()[1]
            if subprocess.run(["curl", "-sf", f"localhost:{port}/readyz"], capture_output=True).returncode == 0:
                break
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.communicate()


def test_pages_start_servers_alike() -> None:
    """So that one of them can stand for the others."""
    lines = serving_commands()
    assert len(lines) >= 2
    assert {re.sub(r"runs/\w+", "RUN", line).strip() for line in lines} == {
        ".venv/bin/headwater serve --run RUN --port 8080"
    }


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the pages ask the server with curl, which is not installed")
def test_requests_of_the_pages_are_answered(finished_run: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = [command for command in [*commands(), *commands(TUTORIAL)] if command.startswith("curl ")]
    asked += re.findall(r"^curl .*", README.read_text(), re.MULTILINE)
    assert len(asked) >= 4
    # Surfaces are those of the demo and of the shop; a server refuses one that its run does not know.
    surface = next(iter(json.loads((finished_run / "event_log" / "report.json").read_text())["surfaces"]))
    with serving(serving_commands()[0], finished_run, port):
        for command in asked:
            here = re.sub(r'"surface": "\w+"', f'"surface": "{surface}"', command)
            words = shlex.split(here.replace("localhost:8080", f"localhost:{port}"))
            done = subprocess.run([words[0], "--fail", *words[1:]], capture_output=True, text=True)
            assert done.returncode == 0, command
            assert {"release", "ranked", "status"} & set(json.loads(done.stdout)), done.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    prose = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)", prose)
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    assert [target for target in local if not (document.parent / target).exists()] == []


def test_files_of_the_example_are_what_their_script_makes(tmp_path: Path) -> None:
    script = shutil.copy(SHOP.parent / "make_files.py", tmp_path)
    subprocess.run([sys.executable, script], check=True)
    made = {file.name: file.read_text() for file in tmp_path.glob("*.csv")}
    assert made == {file.name: file.read_text() for file in SHOP.parent.glob("*.csv")}
