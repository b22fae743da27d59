"""What holds for every command, whichever they are: a new one is held to it as well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.commands.invoking import runner
from trainers.cli import app

SERVER = "serve"
"""Answers over HTTP until it is stopped: it has no summary, and writes nothing that a dry run could spare."""
READERS = {"check", "skew", "status", "version show", "release list", "release show", "release diff", SERVER}
"""Write nothing but what options such as `--html FILE` name."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words that call it."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, (*path, name))
    else:
        yield " ".join(path), command


COMMANDS = dict(leaves(typer.main.get_command(app)))
everywhere = pytest.mark.parametrize("name", sorted(COMMANDS))


def options(name: str) -> set[str]:
    return {option for parameter in COMMANDS[name].params for option in parameter.opts}


def test_readers_are_commands() -> None:
    assert set(COMMANDS) >= READERS


@everywhere
def test_command_can_answer_machines(name: str) -> None:
    assert "--json" in options(name) or name == SERVER


@everywhere
def test_command_that_writes_has_a_dry_run(name: str) -> None:
    assert ("--dry-run" in options(name)) != (name in READERS)


@everywhere
def test_command_shows_a_traceback_when_asked(name: str) -> None:
    assert "--debug" in options(name)


@everywhere
def test_command_says_what_it_and_each_option_is_for(name: str) -> None:
    command = COMMANDS[name]
    assert (command.help or "").strip().endswith(".")
    nameless = [each.name for each in command.params if each.param_type_name == "option" and not each.help]
    assert nameless == []


@everywhere
@pytest.mark.parametrize("terminal", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"TERM": "xterm-256color"}])
def test_help_fits_a_narrow_terminal_without_colour(
    name: str, terminal: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in {"COLUMNS": "60", **terminal}.items():
        monkeypatch.setenv(variable, value)
    typer.main.get_command(app).main([*name.split(), "--help"], prog_name="headwater", standalone_mode=False)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert [line for line in shown.splitlines() if len(line) > 60] == []


VALUES = {"kind": "upgrade", "as_of": "2024-01-05"}
"""Values of what takes no path."""


def arguments(name: str, nowhere: Path) -> list[str]:
    """The least that a command takes, about a run that is not there."""
    given = []
    for each in COMMANDS[name].params:
        value = VALUES.get(each.name, str(nowhere))
        if each.param_type_name == "argument":
            given += [value] if each.required else []
        elif each.required or "--run" in each.opts:
            given += [each.opts[0], value]
    return given


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {SERVER}))
def test_json_is_one_object_and_the_exit_code_in_it_when_something_is_wrong(name: str, tmp_path: Path) -> None:
    result = runner.invoke(app, [*name.split(), "--json", *arguments(name, tmp_path / "nowhere")])
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    assert found.get("exit_code", 0) == result.exit_code
    assert "Traceback" not in result.stderr
    if result.exit_code:
        assert result.stderr == f"error: {found['error']}\n"
