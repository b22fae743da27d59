"""`headwater check`: hold files against their declaration, before anything is trained on them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainers.commands.exits import CALLERS_MISTAKE, exit_codes
from trainers.commands.options import DebugOption, JsonOption, PathOption, QuietOption, ScaleOption

if TYPE_CHECKING:
    from trainers.data.inspection.schema import DataCheck

DatasetArgument = Annotated[
    str, typer.Argument(metavar="FILE.yaml|NAME", help="Declaration of your own data, or a built-in dataset.")
]
KeepOption = Annotated[
    Path | None, typer.Option("--keep", metavar="DIR", help="Keep the event log, with the rows set aside, in a folder.")
]
HtmlOption = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write the figures as a page.")]


def add_command(app: typer.Typer) -> None:
    """Add `check`."""

    @app.command("check")
    def check(
        dataset: DatasetArgument,
        path: PathOption = None,
        scale: ScaleOption = None,
        html: HtmlOption = None,
        keep: KeepOption = None,
        as_json: JsonOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,
    ) -> None:
        """Validate data against its declaration: bad rows, rates, delays, leaks, and whether tasks can be learned.

        Trains nothing and leaves nothing behind but what --html and --keep name. Ends with 2 when no run is possible.
        """
        with exit_codes(debug=debug, as_json=as_json):
            from rich.console import Console as RichConsole

            from trainers import run_config
            from trainers.console import Console
            from trainers.data.inspection.inspect import inspect
            from trainers.data.prepare import dataset as load_dataset
            from trainers.report import check_page, check_terminal

            with _folder(keep) as folder:
                config, _ = run_config.resolve(run=folder / "run", dataset=dataset, path=path, scale=scale)
                found = inspect(*load_dataset(config), folder, Console(quiet=quiet))
            if keep is None:
                found = _without(found, folder)
            if html is not None:
                check_page.write(found, html)
            if as_json:
                typer.echo(found.model_dump_json(indent=2))
            else:
                check_terminal.show(found, RichConsole())
                if html is not None:
                    typer.echo(f"\n{html} shows the same with plots.")
            if found.has_errors:
                raise typer.Exit(CALLERS_MISTAKE)


def _without(found: DataCheck, folder: Path) -> DataCheck:
    """The check with files named as --keep would leave them: the folder itself is gone."""
    findings = (
        each.model_copy(update={"text": each.text.replace(str(folder), "DIR") + " (--keep DIR keeps the files)"})
        if str(folder) in each.text
        else each
        for each in found.findings
    )
    return found.model_copy(update={"findings": tuple(findings)})


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where the event log is made: a folder that stays, or one that goes."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="headwater_check_") as temp:
            yield Path(temp)
        return
    if keep.exists() and any(keep.iterdir()):
        raise ValueError(f"--keep must be a new or empty folder (got {str(keep)!r}, which has files); take another")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep
