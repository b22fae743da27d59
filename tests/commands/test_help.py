"""What commands say of themselves, and what saying it imports."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from tests.commands.invoking import ROOT, invoke, runner
from trainers.cli import app
from trainers.commands.run import STEP_COMMANDS

COMMANDS = (*STEP_COMMANDS, "run", "release", "serve", "status")
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
