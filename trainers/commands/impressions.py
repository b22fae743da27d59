"""`headwater impressions`: logged answers and later clicks as impressions to train on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.options import ChangeDryRunOption, DebugOption, JsonOption, QuietOption

if TYPE_CHECKING:
    from trainers.request_log.impressions import Served

RunOption = Annotated[Path, typer.Option("--run", metavar="DIR", help="Directory of the run that was served.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make.")]
ClicksOption = Annotated[
    list[Path] | None,
    typer.Option("--clicks", metavar="FILE", help="Parquet or CSV with request_id and pin_id; may be given again."),
]
LogOption = Annotated[
    Path | None, typer.Option("--log", metavar="DIR", help="Request log; request_log/ of the run if not given.")
]


def add_command(app: typer.Typer) -> None:
    """Add `impressions`."""

    @app.command("impressions")
    def impressions(
        run: RunOption,
        out: OutOption,
        clicks: ClicksOption = None,
        log: LogOption = None,
        dry_run: ChangeDryRunOption = False,
        as_json: JsonOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,
    ) -> None:
        """Turn a request log and later clicks into impressions, with a declaration to ingest them by."""
        from feature_repo.request_log.layout import REQUEST_LOG
        from trainers.console import Console
        from trainers.data.event_log import EventLog
        from trainers.request_log.impressions import write_impressions

        with exit_codes(debug=debug, as_json=as_json):
            event_log, progress = EventLog(run / "event_log"), Console(quiet=quiet)
            found = write_impressions(
                log or run / REQUEST_LOG, event_log, clicks or [], out, dry_run=dry_run, progress=progress
            )
            if as_json:
                shown = {"out": str(out), "dry_run": dry_run, **dataclasses.asdict(found)}
                typer.echo(json.dumps(shown, indent=2))
            else:
                typer.echo(("would write: " if dry_run else "") + _sentences(found, out))


def _sentences(found: Served, out: Path) -> str:
    labels = ", ".join(f"{count} {label}" for label, count in found.labels.items()) or "no label known"
    lines = [f"{found.answers} answers, {found.impressions} impressions ({labels}) in {out}"]
    if found.unmatched:
        lines.append(f"{found.unmatched} of {found.clicks} clicks are on a Pin that no logged answer showed")
    if found.mean_pctr is not None and found.click_rate is not None:
        lines.append(f"mean pctr {found.mean_pctr:.4f}, observed rate {found.click_rate:.4f}")
    lines.append(f"move `window` in {out / 'dataset.yaml'} to these days, then: headwater check {out / 'dataset.yaml'}")
    return "\n".join(lines)
