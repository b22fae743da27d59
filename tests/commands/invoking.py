"""How tests call the command line, on a pipeline of tiny steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from trainers.cli import app
from trainers.progress import Progress
from trainers.steps import RunContext

ROOT = Path(__file__).parents[2]
Body = Callable[[RunContext, Progress], Mapping[str, Any]]
runner = CliRunner()


def invoke(*arguments: str, code: int = 0) -> Any:
    """Run a command in this process and hold it to its exit code."""
    result = runner.invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


def body(name: str) -> Body:
    """A step that leaves a file."""

    def run(context: RunContext, progress: Progress) -> Mapping[str, Any]:
        del progress
        context.path(name).write_text(name)
        return {"rows": 3}

    return run
