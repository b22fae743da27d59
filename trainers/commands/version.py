"""`headwater version` and `headwater backfill`: new embedding versions, and more days of those that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trainers.commands.exits import EPILOG, exit_codes
from trainers.commands.invocation import program
from trainers.commands.listing import ListedCommands
from trainers.commands.options import DebugOption, ExistingRunOption, JsonOption, QuietOption, SeedOption

ModelOption = Annotated[str, typer.Option("--model", metavar="NAME", help="Upstream model: ctr or cvr.")]
ScratchOption = Annotated[bool, typer.Option("--from-scratch", help="Train a space of its own.")]
CompatibleOption = Annotated[
    str | None,
    typer.Option("--compatible-with", metavar="VERSION", help="Train together with a map back to this version."),
]
VersionOption = Annotated[str, typer.Option("--version", metavar="VERSION", help="Embedding version, such as ctr_v1.")]
ThroughOption = Annotated[str, typer.Option("--through", metavar="VERSION", help="Newer version that feeds it.")]
FromOption = Annotated[str, typer.Option("--from", metavar="DATE", help="UTC date of the first cut-off.")]
ToOption = Annotated[str, typer.Option("--to", metavar="DATE", help="UTC date of the last cut-off.")]


def add_command(app: typer.Typer) -> None:
    """Add `version` with its commands, and `backfill`."""
    group = typer.Typer(
        cls=ListedCommands, help="Make embedding versions and feed them.", epilog=EPILOG, no_args_is_help=True
    )
    group.command("create")(create)
    group.command("feed")(feed)
    app.add_typer(group, name="version")
    app.command("backfill")(backfill)


def create(
    run: ExistingRunOption,
    model: ModelOption,
    from_scratch: ScratchOption = False,
    compatible_with: CompatibleOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a new embedding version over the window, publish its days, and make it a candidate for releases."""
    kind = "--from-scratch" if from_scratch else f"--compatible-with {compatible_with}"
    resume = f"{program()} version create --run {run} --model {model} {kind}"
    with exit_codes(debug=debug, as_json=as_json, resume=resume):
        if from_scratch == (compatible_with is not None):
            raise ValueError("one of --from-scratch and --compatible-with must be given (got both or none); give one")
        home, progress = _open(run, quiet=quiet, debug=debug)
        from feature_repo.versions import record_fields
        from trainers.life.new_version import NewVersion, create_version

        wanted = NewVersion(model=model, compatible_with=compatible_with, seed=seed)
        record, figures = create_version(home, wanted, progress)
        text = f"{record.key} is {record.state}: space {record.space_id}, {figures['days']} days published"
        _say({"version": record_fields(record), **figures}, text, as_json=as_json)


def feed(
    run: ExistingRunOption,
    version: VersionOption,
    through: ThroughOption,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """End the training of a superseded version: from the next day on a newer one feeds it, mapped back."""
    with exit_codes(debug=debug, as_json=as_json):
        home, _ = _open(run, quiet=True, debug=debug)
        from feature_repo.versions import record_fields
        from trainers.life.served_through import serve_through

        record = serve_through(home, version, through)
        _say({"version": record_fields(record)}, f"{version} is served through {through}", as_json=as_json)


def backfill(
    run: ExistingRunOption,
    version: VersionOption,
    first: FromOption,
    last: ToOption,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make earlier days of an embedding version, each by the model as of that day."""
    resume = f"{program()} backfill --run {run} --version {version} --from {first} --to {last}"
    with exit_codes(debug=debug, as_json=as_json, resume=resume):
        home, progress = _open(run, quiet=quiet, debug=debug)
        from trainers.life.backfill import backfill as make
        from trainers.run_config import read_date

        figures = make(home, version, read_date(first, "--from"), read_date(last, "--to"), progress)
        made = figures["days"]
        text = f"{made} day{'s' * (made > 1)} of {version} made" if made else "up to date: no day is missing"
        _say({"version": version, **figures}, text, as_json=as_json)


def _open(run: Path, *, quiet: bool, debug: bool) -> tuple[Any, Any]:
    """Home of the versions, and where progress is shown."""
    from trainers.console import Console, configure_logging
    from trainers.life.home import Home

    configure_logging(debug=debug)
    return Home.of_run(run), Console(quiet=quiet)


def _say(found: dict[str, Any], text: str, *, as_json: bool) -> None:
    typer.echo(json.dumps(found, indent=2) if as_json else text)
