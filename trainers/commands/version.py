"""`headwater version` and `headwater backfill`: new embedding versions, and more days of those that are there."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainers.commands import version_show
from trainers.commands.exits import EPILOG, exit_codes
from trainers.commands.invocation import resume_line
from trainers.commands.listing import ListedCommands
from trainers.commands.options import (
    ChangeDryRunOption,
    DebugOption,
    ExistingRunOption,
    JsonOption,
    QuietOption,
    SeedOption,
)

if TYPE_CHECKING:
    from trainers.life.home import Home
    from trainers.life.requests import Request
    from trainers.life.version_plan import NewVersion, PlannedVersion
    from trainers.progress import Progress

ModelOption = Annotated[str, typer.Option("--model", metavar="NAME", help="Upstream model: ctr, cvr or unified.")]
ScratchOption = Annotated[bool, typer.Option("--from-scratch", help="Train a space of its own.")]
CompatibleOption = Annotated[
    str | None,
    typer.Option("--compatible-with", metavar="VERSION", help="Train together with a map back to this version."),
]
VersionOption = Annotated[str, typer.Option("--version", metavar="VERSION", help="Embedding version, such as ctr_v1.")]
ThroughOption = Annotated[str, typer.Option("--through", metavar="VERSION", help="Newer version that feeds it.")]
FromOption = Annotated[str, typer.Option("--from", metavar="DATE", help="UTC date of the first cut-off.")]
ToOption = Annotated[str, typer.Option("--to", metavar="DATE", help="UTC date of the last cut-off.")]
_UP_TO_DATE = "up to date: no day is missing"


def add_command(app: typer.Typer) -> None:
    """Add `version` with its commands, and `backfill`."""
    group = typer.Typer(
        cls=ListedCommands,
        help="Make embedding versions, feed them, and show what made them.",
        epilog=EPILOG,
        no_args_is_help=True,
        # Of its own: the program's `version` is the default of the option --version.
        context_settings={"default_map": {"help": False}},
    )
    group.command("create")(create)
    group.command("feed")(feed)
    group.command("show")(version_show.show)
    app.add_typer(group, name="version")
    app.command("backfill")(backfill)


def create(
    run: ExistingRunOption,
    model: ModelOption,
    from_scratch: ScratchOption = False,
    compatible_with: CompatibleOption = None,
    seed: SeedOption = None,
    dry_run: ChangeDryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a new embedding version over the window, publish its days, and make it a candidate for releases."""
    kind = "--from-scratch" if from_scratch else f"--compatible-with {compatible_with}"
    resume = f"{resume_line('version create', run)} --model {model} {kind}" + (f" --seed {seed}" if seed else "")
    with exit_codes(debug=debug, as_json=as_json, resume=resume):
        if from_scratch == (compatible_with is not None):
            raise ValueError("one of --from-scratch and --compatible-with must be given (got both or none); give one")
        home, progress = _open(run, quiet=quiet, debug=debug)
        from trainers.life.requests import Request
        from trainers.life.version_plan import NewVersion

        wanted = NewVersion(model=model, compatible_with=compatible_with, seed=seed)
        request = Request(home.run, "version create", asdict(wanted))
        if dry_run:
            _say_plan(home, wanted, request, as_json=as_json)
            return
        with request.until_told():
            _create(home, wanted, request, progress, as_json=as_json)


def _create(home: Home, wanted: NewVersion, request: Request, progress: Progress, *, as_json: bool) -> None:
    from feature_repo.versions import record_fields
    from trainers.life.new_version import create_version

    record, figures = create_version(home, wanted, progress, request)
    text = f"{record.key} is {record.state}: space {record.space_id}, {figures['days']} days published"
    _say({"version": record_fields(record), **figures}, text, as_json=as_json)


def _say_plan(home: Home, wanted: NewVersion, request: Request, *, as_json: bool) -> None:
    from feature_repo.versions import record_fields
    from trainers.life.version_plan import planned_version

    plan = planned_version(home, wanted, request.noted())
    days = [f"{cutoff:%Y-%m-%d}" for cutoff in plan.cutoffs]
    found = {"dry_run": True, "version": record_fields(plan.record), "begun": plan.begun, "days": days}
    _say(found, _plan_text(plan), as_json=as_json)


def _plan_text(plan: PlannedVersion) -> str:
    record, first, last = plan.record, plan.cutoffs[0], plan.cutoffs[-1]
    if plan.finished:
        return f"{record.key} is {record.state} already: the same command made it and was stopped before it said so"
    how = f"compatible with {record.parents[0]}" if record.parents else "from scratch"
    begun = f", going on where it stopped in state {record.state}" if plan.begun else ""
    return (
        f"{record.key} would be trained {how} with seed {record.seed}, {record.dim}-d, on data from "
        f"{record.data_from:%Y-%m-%d} until {last:%Y-%m-%d}, and published for {len(plan.cutoffs)} days from "
        f"{first:%Y-%m-%d}{begun}"
    )


def feed(
    run: ExistingRunOption,
    version: VersionOption,
    through: ThroughOption,
    dry_run: ChangeDryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """End the training of a superseded version: from the next day on a newer one feeds it, mapped back."""
    with exit_codes(debug=debug, as_json=as_json):
        home, _ = _open(run, quiet=True, debug=debug)
        from feature_repo.versions import record_fields
        from trainers.life.served_through import check_servable_through, serve_through

        made = (check_servable_through if dry_run else serve_through)(home, version, through)
        verb = "would be" if dry_run else "is"
        text = f"{version} {verb} served through {through}"
        _say({"dry_run": dry_run, "version": record_fields(made)}, text, as_json=as_json)


def backfill(
    run: ExistingRunOption,
    version: VersionOption,
    first: FromOption,
    last: ToOption,
    dry_run: ChangeDryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make earlier days of an embedding version, each by the model as of that day."""
    resume = f"{resume_line('backfill', run)} --version {version} --from {first} --to {last}"
    with exit_codes(debug=debug, as_json=as_json, resume=resume):
        home, progress = _open(run, quiet=quiet, debug=debug)
        from trainers.life.backfill import backfill as make
        from trainers.life.backfill import planned_days
        from trainers.run_config import read_date

        period = read_date(first, "--from"), read_date(last, "--to")
        if dry_run:
            days, begun = planned_days(home, home.catalogue.version(version), *period)
            _say_days(version, [f"{day:%Y-%m-%d}" for day in days], begun=begun, as_json=as_json)
            return
        figures = make(home, version, *period, progress)
        made = figures["days"]
        text = f"{made} day{'s' * (made > 1)} of {version} made" if made else _UP_TO_DATE
        _say({"version": version, **figures}, text, as_json=as_json)


def _say_days(version: str, days: list[str], *, begun: bool, as_json: bool) -> None:
    going_on = ", going on where it stopped" if begun else ""
    text = f"{version} would get {', '.join(days)}{going_on}" if days else _UP_TO_DATE
    _say({"dry_run": True, "version": version, "days": days, "begun": begun}, text, as_json=as_json)


def _open(run: Path, *, quiet: bool, debug: bool) -> tuple[Home, Progress]:
    """Home of the versions, and where progress is shown."""
    from trainers.console import Console, configure_logging
    from trainers.life.home import Home

    configure_logging(debug=debug)
    return Home.of_run(run), Console(quiet=quiet)


def _say(found: dict[str, Any], text: str, *, as_json: bool) -> None:
    typer.echo(json.dumps(found, indent=2) if as_json else text)
