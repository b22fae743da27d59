"""What the documents say about the tree: links, paths, targets, commands, figures, defaults."""

from __future__ import annotations

import re
import shlex
import subprocess
from functools import cache

import pytest
import typer.main

from tests import reference
from tests.benchmarks.document import documents
from tests.benchmarks.figures.results import load
from tests.imports import ROOT
from trainers.cli import app
from trainers.upstream.recipes import UpstreamRecipe, default

DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCS]
ADRS = sorted(ROOT.glob("docs/adr/*.md"))
GENERATED = ("docs/benchmarks.md",)


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def console_lines(text: str) -> list[str]:
    """Commands of ```console blocks."""
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def prose(text: str) -> str:
    """Text without fenced blocks."""
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def test_documents_show_exactly_the_committed_figures() -> None:
    made = documents(load(), text_of("README.md"))
    old = [str(path.relative_to(ROOT)) for path, text in made.items() if path.read_text() != text]
    assert old == [], "run python -m tests.benchmarks.document"


def test_reference_pages_are_made_from_the_code() -> None:
    old = [path.name for path, text in reference.pages().items() if not path.exists() or path.read_text() != text]
    assert old == [], "run python -m tests.reference"


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose(text_of(name)))
    relative = [target for target in targets if "://" not in target]
    assert [target for target in relative if not ((ROOT / name).parent / target).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_paths_in_the_text_exist(name: str) -> None:
    spans = re.findall(r"`((?:feature_repo|trainers|serving|tests|docs)/[\w./]+)`", prose(text_of(name)))
    # `data` of the top-level repo is a link to the last run, which a fresh clone has not made.
    named = [span for span in spans if not span.startswith("feature_repo/data")]
    assert [span for span in named if not (ROOT / span).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_make_targets_in_the_text_exist(name: str) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", text_of("Makefile"), flags=re.MULTILINE)) | {"bench-feast_client"}
    lines = [line for line in console_lines(text_of(name)) if line.startswith("make ")]
    named = set(re.findall(r"`make ([a-z][\w-]*)", text_of(name))) | {line.split()[1] for line in lines}
    assert {each for each in named if not each.startswith("bench-")} <= targets


@pytest.mark.parametrize("name", NAMES)
def test_console_commands_are_commands_of_ours_with_options_that_exist(name: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in console_lines(text_of(name)):
        words = shlex.split(line, comments=True)
        known = ("make", "curl", "git", "headwater", ".venv/bin/headwater", ".venv/bin/feast", ".venv/bin/python")
        assert words[0] in known, line
        if words[0].endswith("headwater"):
            command = commands[words[1]]
            # A group, such as `release`, has commands of its own.
            command = command.commands[words[2]] if hasattr(command, "commands") else command
            options = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options, line
        if words[:2] == [".venv/bin/python", "-m"]:
            assert (ROOT / f"{words[2].replace('.', '/')}.py").exists(), line


@pytest.mark.parametrize("name", NAMES)
def test_shell_lines_can_be_parsed(name: str) -> None:
    script = "\n".join(console_lines(text_of(name)))
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_readme_shows_picture_commands_results_files_and_limits_in_this_order() -> None:
    text = text_of("README.md")
    marks = ["┌──", "<!-- demo-output -->", "<!-- test-output -->", "<!-- results -->", "reading order", "does not do"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_architecture_names_every_folder_of_the_trainers() -> None:
    text = text_of("docs/architecture.md")
    folders = {path.parent.name for path in (ROOT / "trainers").glob("*/__init__.py")}
    assert sorted(folder for folder in folders if f"{folder}/" not in text) == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text())
        targets = {(page.parent / link).resolve() for link in links if "://" not in link}
        waiting += [target for target in targets if target not in reached and target not in waiting]
    pages = {path for path in DOCS if path.parent.name != "adr"}
    assert sorted(str(path.relative_to(ROOT)) for path in pages - reached) == []


def test_upstream_page_shows_the_default_recipe() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", text_of("docs/upstream.md"), flags=re.MULTILINE)
    recipe = default()
    named = {field: str(getattr(recipe, field)) for field, _ in rows}
    assert dict(rows) == named
    unnamed = set(UpstreamRecipe.__slots__) - set(named)
    assert unnamed == {"tower_layers", "interaction_layers"}


def test_decisions_have_numbers_of_their_own_and_are_short() -> None:
    numbers = [path.name[:4] for path in ADRS]
    assert len(numbers) == len(set(numbers)) > 0
    for path in ADRS:
        text = path.read_text()
        assert re.match(rf"# (?:{path.name[:4]}|{int(path.name[:4])}\.) ", text), path.name
        assert all(part in text for part in ("Context", "Decision", "Consequences")), path.name
        assert len(text.split()) < 500, path.name


def test_texts_stay_on_any_machine() -> None:
    tied = re.compile(r"(?<![\w.])/(?:work|root|home|tmp)/")
    assert [name for name in NAMES if tied.search(text_of(name))] == []
