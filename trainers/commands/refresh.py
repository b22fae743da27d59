"""`headwater refresh`: bring every version up to a date, day by day."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.invocation import program
from trainers.commands.options import DebugOption, ExistingRunOption, JsonOption, QuietOption

if TYPE_CHECKING:
    from trainers.life.day import DayOutcome
    from trainers.life.refresh import PlannedDay

AsOfOption = Annotated[
    str, typer.Option("--as-of", metavar="DATE", help="UTC date of the last cut-off: days before it are complete.")
]
PlanOption = Annotated[bool, typer.Option("--dry-run", help="Say which days would be made; write nothing.")]
NewVersionOption = Annotated[
    bool, typer.Option("--as-new-version", help="Let a day that the gates refuse go on as a new version.")
]


def add_command(app: typer.Typer) -> None:
    """Add `refresh`."""

    @app.command("refresh")
    def refresh(
        run: ExistingRunOption,
        as_of: AsOfOption,
        as_new_version: NewVersionOption = False,
        as_json: JsonOption = False,
        dry_run: PlanOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,
    ) -> None:
        """Append new days of raw data, train on them, check and publish their embeddings, and release them."""
        resume = f"{program()} refresh --run {run} --as-of {as_of}"
        with exit_codes(debug=debug, as_json=as_json, resume=resume):
            found = _perform(
                run, as_of, as_new_version=as_new_version, dry_run=dry_run, quiet=quiet, debug=debug, as_json=as_json
            )
            if as_json:
                typer.echo(json.dumps(found, indent=2))


def _perform(
    run: Path, as_of: str, *, as_new_version: bool, dry_run: bool, quiet: bool, debug: bool, as_json: bool
) -> dict[str, Any]:
    from trainers.console import Console, configure_logging
    from trainers.life.home import Home
    from trainers.life.push import follow_refresh
    from trainers.life.refresh import planned, refresh
    from trainers.run_config import read_date

    configure_logging(debug=debug)
    until, home = read_date(as_of, "--as-of"), Home.of_run(run)
    if dry_run:
        days = planned(home, until)
        if not as_json:
            _show_plan(days)
        return {"run": str(run), "dry_run": True, "days": [_plan_row(day) for day in days]}
    console = Console(quiet=quiet)
    shown = None if as_json else _show_day
    outcomes = refresh(home, until, console, as_new_version=as_new_version, finished=shown)
    follow_refresh(home, console)
    if not outcomes and not as_json:
        typer.echo(f"up to date: every version has the day {until}")
    return {"run": str(run), "days": [outcome.to_dict() for outcome in outcomes]}


def _show_plan(days: list[PlannedDay]) -> None:
    for day in days:
        begun = ", going on where it stopped" if day.begun else ""
        typer.echo(f"{day.cutoff:%Y-%m-%d} would be made for {', '.join(day.versions)}{begun}")
    if not days:
        typer.echo("up to date")


def _plan_row(day: PlannedDay) -> dict[str, Any]:
    return {"day": f"{day.cutoff:%Y-%m-%d}", "versions": list(day.versions), "begun": day.begun}


def _show_day(outcome: DayOutcome) -> None:
    from trainers.console import duration

    cost = f"{duration(outcome.seconds)}, {outcome.peak_mb:,.0f} MB"
    typer.echo(f"{outcome.cutoff:%Y-%m-%d}  {', '.join(outcome.versions)}  {cost}")
    for each in outcome.substeps:
        typer.echo(
            f"  {each.name:<12} {duration(each.seconds):>9} {each.peak_mb:>7,.0f} MB  {_figures(each.figures)}".rstrip()
        )


def _figures(figures: Mapping[str, Any]) -> str:
    """What a sub-step reports, without what is nothing; of the gates' figures those that people look at first."""
    shown = []
    for name, value in figures.items():
        if name.endswith("_gates"):
            shown.append(f"{name.removesuffix('_gates')} {_gates(value)}")
        elif isinstance(value, dict):
            shown += [f"{name} {', '.join(f'{each} → {made}' for each, made in value.items())}"] if value else []
        elif value not in (0, False, None):
            shown.append(f"{name} {', '.join(value) if isinstance(value, list) else value}")
    return ", ".join(shown)


def _gates(figures: Mapping[str, float]) -> str:
    kinds = {"coverage": "coverage", "cosine_median": "cosine to the day before"}
    found = {text: [value for name, value in figures.items() if name.startswith(kind)] for kind, text in kinds.items()}
    return " and ".join(f"{text} {min(values):.3g}" for text, values in found.items() if values)
