"""`headwater init`: look at a folder of files and write the declaration that seems to fit."""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.options import DebugOption, JsonOption, QuietOption

if TYPE_CHECKING:
    from trainers.data.discovery.proposal import Proposal

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with parquet, CSV or TSV files.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="YAML to write; <folder>/<name>.yaml when not given.")
]
NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name; the folder's when not given.")]
ImpressionsOption = Annotated[
    str | None, typer.Option("--impressions", metavar="TEXT", help="Part of the file name of the impressions.")
]
UserOption = Annotated[str | None, typer.Option("--user", metavar="COLUMN", help="Their column with the user.")]
PinOption = Annotated[str | None, typer.Option("--pin", metavar="COLUMN", help="Their column with the Pin.")]
SurfaceOption = Annotated[
    str | None, typer.Option("--surface", metavar="COLUMN", help="Their column that tells surfaces apart.")
]
ConversionsOption = Annotated[
    list[str] | None,
    typer.Option("--conversions", metavar="TEXT", help="Part of a file name of conversions; may be given again."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the YAML if it is there.")]
PrintOption = Annotated[bool, typer.Option("--dry-run", help="Print the YAML; write nothing.")]


def add_command(app: typer.Typer) -> None:
    """Add `init`."""

    @app.command("init")
    def init(
        folder: FolderArgument,
        out: OutOption = None,
        name: NameOption = None,
        impressions: ImpressionsOption = None,
        user: UserOption = None,
        pin: PinOption = None,
        surface: SurfaceOption = None,
        conversions: ConversionsOption = None,
        force: ForceOption = False,
        dry_run: PrintOption = False,
        as_json: JsonOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,
    ) -> None:
        """Propose the declaration of your own data, with the evidence for each guess."""
        with exit_codes(debug=debug, as_json=as_json):
            from trainers.console import Console
            from trainers.data.discovery.found_tables import Hints
            from trainers.data.discovery.proposal import propose

            called = _name(folder, name)
            target = out if out is not None else folder / f"{called}.yaml"
            _check(folder, target, force=force or dry_run)
            with tempfile.TemporaryDirectory(prefix="headwater_init_") as temp:
                hints = Hints(
                    impressions=impressions, user=user, pin=pin, surface=surface, conversions=tuple(conversions or ())
                )
                found = propose(folder, called, hints, Path(temp), Console(quiet=quiet))
            text = _text(found, folder, target)
            if dry_run and not as_json:
                typer.echo(text, nl=False)
                return
            if not dry_run:
                _write(target, text)
            _show(found, target, text, as_json=as_json, dry_run=dry_run)


def _name(folder: Path, name: str | None) -> str:
    if name is not None:
        return name
    made = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")
    return made if made and made[0].isalpha() else f"data_{made}".strip("_")


def _check(folder: Path, target: Path, *, force: bool) -> None:
    if not folder.is_dir():
        raise ValueError(f"FOLDER must be a folder with your files (got {str(folder)!r}); check the spelling")
    if target.exists() and not force:
        raise ValueError(f"{target} must not exist yet (got a file); give --force to replace it, or another --out")


def _text(found: Proposal, folder: Path, target: Path) -> str:
    """The YAML, once it has been read back: a proposal that its own reader refuses helps nobody."""
    from trainers.data.discovery.yaml_text import render

    relative = Path(os.path.relpath(folder.resolve(), target.resolve().parent))
    return render(found, relative)


def _write(target: Path, text: str) -> None:
    from feature_repo.contract import write_atomically
    from trainers.data import own_data

    write_atomically(target, text)
    own_data.load(target)


def _show(found: Proposal, target: Path, text: str, *, as_json: bool, dry_run: bool) -> None:
    roles = found.roles
    labels, kinds = ([each.name for each in group] for group in (found.labels, found.all_kinds))
    if as_json:
        keys = {"user": roles.user.column, "pin": roles.pin.column, "time": roles.time.column}
        shown = {"yaml": str(target), "dry_run": dry_run, "impressions": roles.impressions.pattern, **keys}
        typer.echo(json.dumps({**shown, "labels": labels, "conversions": kinds, "text": text}, indent=2))
        return
    typer.echo(f"{target}: impressions {roles.impressions.pattern} ({roles.impressions.num_rows:,} rows)")
    typer.echo(f"  user {roles.user.column}, Pin {roles.pin.column}, time {roles.time.column}")
    typer.echo(f"  labels {', '.join(labels)}")
    if kinds:
        typer.echo(f"  conversions {', '.join(kinds)}")
    typer.echo(f"Read it, correct it, then: headwater check {shlex.quote(str(target))}")
