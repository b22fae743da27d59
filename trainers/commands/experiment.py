"""`headwater experiment`: studies of a run, such as what an upgrade does to its consumers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.invocation import resume_line
from trainers.commands.options import ChangeDryRunOption, DebugOption, ExistingRunOption, JsonOption, QuietOption

NAMES = ("upgrade", "aggregation", "staleness", "refresh-cost", "consumers", "ablation")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(NAMES)}.")]
SeedsOption = Annotated[
    int | None, typer.Option("--seeds", metavar="N", min=1, help="Models of each case; the run's own number if absent.")
]
RetrainsOption = Annotated[
    int, typer.Option("--retrains", metavar="N", min=1, help="From-scratch trainings that stand for an upgrade.")
]


def add_command(app: typer.Typer) -> None:
    """Add `experiment`."""

    @app.command("experiment")
    def experiment(
        name: NameArgument,
        run: ExistingRunOption,
        seeds: SeedsOption = None,
        retrains: RetrainsOption = 1,
        dry_run: ChangeDryRunOption = False,
        as_json: JsonOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,
    ) -> None:
        """Study a run: upgrades, aggregation over days, staleness, cost of a refresh, consumers, or parts left out."""
        resume = resume_line(f"experiment {name}", run) + (f" --seeds {seeds}" if seeds else "")
        with exit_codes(debug=debug, as_json=as_json, resume=resume):
            if dry_run:
                _say_plan(name, run, seeds, retrains, as_json=as_json)
                return
            _perform(name, run, seeds, retrains, as_json=as_json, quiet=quiet, debug=debug)


def _say_plan(name: str, run: Path, seeds: int | None, retrains: int, *, as_json: bool) -> None:
    from trainers.experiments.perform import planned

    found = planned(name, run, seeds=seeds, retrains=retrains)
    if as_json:
        typer.echo(json.dumps({"dry_run": True, **found}, indent=2))
        return
    kept = f"models are kept of {', '.join(found['kept'])}" if found["kept"] else "no models are kept yet"
    listed = ", ".join(map(str, found["seeds"]))
    typer.echo(f"{name} would be studied with seeds {listed}; {kept}; its table would be {found['file']}")


def _perform(
    name: str, run: Path, seeds: int | None, retrains: int, *, as_json: bool, quiet: bool, debug: bool
) -> None:
    from trainers.console import Console, configure_logging, duration
    from trainers.experiments.perform import perform

    configure_logging(debug=debug)
    console = Console(quiet=quiet)
    done = perform(name, run, console, seeds=seeds, retrains=retrains)
    console.say(f"{name} done in {duration(done.seconds)}, table in {done.file}")
    if as_json:
        typer.echo(json.dumps({"experiment": name, "file": str(done.file), "rows": done.rows}, indent=2))
    else:
        _show(done.rows)


def _show(rows: list[dict[str, Any]]) -> None:
    """One paragraph a row: what was scored, then its figures."""
    for row in rows:
        words = [value for value in row.values() if isinstance(value, str)]
        typer.echo(": ".join(words))
        for name, value in row.items():
            if not isinstance(value, str):
                typer.echo(f"  {name:<24} {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(_shown(each) for each in value)
    return f"{value:.4f}" if isinstance(value, float) else f"{value}"
