"""`headwater push`: give single users or Pins a vector from the current towers, without waiting for the night."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feature_repo.contract import ENTITIES
from trainers.commands.exits import exit_codes
from trainers.commands.invocation import resume_line
from trainers.commands.moments import moment_option
from trainers.commands.options import DebugOption, ExistingRunOption, JsonOption, QuietOption
from trainers.commands.tables import aligned

if TYPE_CHECKING:
    from trainers.life.home import Home
    from trainers.progress import Progress

EntityOption = Annotated[str | None, typer.Option("--entity", metavar="user|pin", help="What the rows are of.")]
FileOption = Annotated[
    str | None,
    typer.Option("--file", metavar="FILE", help="Rows as .parquet, .csv or .jsonl; - reads JSON lines from stdin."),
]
VersionsOption = Annotated[
    list[str] | None,
    typer.Option("--version", metavar="KEY", help="Embedding version to push to; every one in use when not given."),
]
MomentOption = Annotated[
    str | None,
    typer.Option("--event-timestamp", metavar="MOMENT", help="Moment that the rows are of; now when not given."),
]
PrepareOption = Annotated[
    bool, typer.Option("--prepare", help="Only export the towers that a server needs to take pushes; push nothing.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check the rows, compute vectors where towers are there; write nothing.")
]
STDIN = "-"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What the options say."""

    entity: str | None
    file: str | None
    versions: tuple[str, ...]
    event_timestamp: str | None
    dry_run: bool


def add_command(app: typer.Typer) -> None:
    """Add `push`."""

    @app.command("push")
    def push(
        run: ExistingRunOption,
        entity: EntityOption = None,
        file: FileOption = None,
        version: VersionsOption = None,
        event_timestamp: MomentOption = None,
        prepare: PrepareOption = False,
        as_json: JsonOption = False,
        dry_run: DryRunOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,
    ) -> None:
        """Compute vectors of new or changed users or Pins with the current towers, and write them everywhere."""
        asked = _Asked(
            entity=entity,
            file=file,
            versions=tuple(version or ()),
            event_timestamp=event_timestamp,
            dry_run=dry_run,
        )
        with exit_codes(debug=debug, as_json=as_json, resume=_resume(run, asked)):
            from trainers.console import Console, configure_logging
            from trainers.life.home import Home

            configure_logging(debug=debug)
            home, console = Home.of_run(run), Console(quiet=quiet)
            found = _prepare(home, asked, console) if prepare else _push(home, asked, console)
            found |= {"dry_run": asked.dry_run}
            typer.echo(json.dumps({"run": str(run)} | found, indent=2) if as_json else _shown(found))


def _resume(run: Path, asked: _Asked) -> str:
    if asked.file in (None, STDIN):
        return ""
    return f"{resume_line('push', run)} --entity {asked.entity} --file {shlex.quote(str(asked.file))}"


def _prepare(home: Home, asked: _Asked, progress: Progress) -> dict[str, Any]:
    from trainers.life.push import lacking_towers, prepare

    if asked.dry_run:
        return {"towers": lacking_towers(home, asked.versions)}
    return {"towers": [str(folder) for folder in prepare(home, asked.versions, progress)]}


def _push(home: Home, asked: _Asked, progress: Progress) -> dict[str, Any]:
    from trainers.life.push import push_file
    from trainers.life.push_rows import copied_rows, row_file

    if asked.entity not in ENTITIES:
        raise ValueError(
            f"--entity must be one of {', '.join(ENTITIES)} (got {asked.entity!r}); say what the rows are of"
        )
    if asked.file is None:
        raise ValueError("--file must name the rows to push (got none); - reads JSON lines from standard input")
    moment = moment_option("--event-timestamp", asked.event_timestamp)
    with _on_disk(asked.file) as path:
        read = copied_rows if asked.file == STDIN else row_file
        rows = read(path, home.manifest(), asked.entity)
        return push_file(home, rows, asked.versions, progress, event_timestamp=moment, dry_run=asked.dry_run)


@contextmanager
def _on_disk(file: str) -> Iterator[Path]:
    """The rows as a file that can be read twice."""
    if file != STDIN:
        yield Path(file)
        return
    with tempfile.TemporaryDirectory(prefix="headwater-push-") as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
        yield path


def _shown_towers(found: dict[str, Any]) -> str:
    if not found["dry_run"]:
        return "\n".join(f"exported {folder}" for folder in found["towers"]) or "up to date: every version has towers"
    towers = f"the towers of {', '.join(found['towers'])} would be exported"
    if "rows" in found:
        return f"{found['rows']} {found['entity']}s would be pushed; {towers} first, and no vector was computed"
    return towers if found["towers"] else "up to date: every version has towers"


def _shown(found: dict[str, Any]) -> str:
    if "towers" in found:
        return _shown_towers(found)
    verb = "would be pushed" if found["dry_run"] else "pushed"
    lines = [
        f"{found['rows']} {found['entity']}s {verb}, {found['attributes']} of them with attributes, usable from "
        f"{found['event_timestamp']}, in {found['seconds']:.2f} s"
    ]
    rows = [("version", "view", "towers of", "continued", "kept newer", "unseen values")]
    for each in found["versions"]:
        unseen = ", ".join(f"{name} {number}" for name, number in each["unseen"].items()) or "none"
        kept = "unknown" if each["newer_kept"] is None else str(each["newer_kept"])
        rows.append((each["version"], each["view"], each["towers"][:10], str(each["continued"]), kept, unseen))
    return "\n".join([*lines, aligned(rows, indent="  ")])
