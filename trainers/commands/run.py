"""`headwater run` and the commands of single steps: they differ only in where they stop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.invocation import program, resume_line
from trainers.commands.options import (
    DatasetOption,
    DebugOption,
    DryRunOption,
    JsonOption,
    PathOption,
    QuietOption,
    RecipeOption,
    Request,
    RunOption,
    ScaleOption,
    SeedOption,
    SeedsOption,
    ThreadsOption,
    UntilOption,
)

if TYPE_CHECKING:
    from trainers.console import Console
    from trainers.execution import Finished
    from trainers.run_config import RunConfig
    from trainers.steps import Decision, Step

STEP_COMMANDS = {
    "ingest": "Read raw data into the event log, check it and set bad rows aside.",
    "features": "Compute daily snapshots of activity features.",
    "apply": "Register the run's feature views and services with Feast.",
    "train": "Train the upstream models, day by day.",
    "publish": "Average the embeddings over days, check them and write them to the offline store.",
    "materialize": "Check that no feature knows the future, and write the newest features to the online store.",
    "evaluate": "Train downstream models, measure the lift and export a release.",
    "report": "Write report.json and report.html.",
}


def add_command(app: typer.Typer, name: str, summary: str, *, only: str | None) -> None:
    """Add a command that runs every step, or the one named `only`."""

    @app.command(name, help=summary)
    def command(
        run: RunOption = None,
        dataset: DatasetOption = None,
        path: PathOption = None,
        seed: SeedOption = None,
        seeds: SeedsOption = None,
        scale: ScaleOption = None,
        recipe: RecipeOption = None,
        threads: ThreadsOption = None,
        until: UntilOption = None,
        as_json: JsonOption = False,
        dry_run: DryRunOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,
    ) -> None:
        request = Request(
            run=run,
            dataset=dataset,
            path=path,
            seed=seed,
            num_seeds=seeds,
            scale=scale,
            recipe=recipe,
            threads=threads,
            until=until,
            as_json=as_json,
            dry_run=dry_run,
            quiet=quiet,
            debug=debug,
        )
        with exit_codes(debug=debug, as_json=as_json):
            _perform(request, only)


def load_steps(config: RunConfig) -> list[Step]:
    """Steps of a run; imported late, because they bring the whole pipeline along."""
    from trainers import pipeline

    return pipeline.steps(config)


def _perform(request: Request, only: str | None) -> None:
    from trainers.console import Console, configure_logging
    from trainers.recipes import get_recipe
    from trainers.steps import RunContext

    configure_logging(debug=request.debug)
    console = Console(quiet=request.quiet)
    config = _resolve(request, console)
    # Refused now: the first steps could do without the recipe, and would work in vain.
    get_recipe(config.recipe)
    with exit_codes(debug=request.debug, as_json=request.as_json, resume=resume_line(only or "run", config.out)):
        steps, context = load_steps(config), RunContext(config=config)
        if request.dry_run:
            _show_plan(steps, context, only, as_json=request.as_json)
            return
        from trainers.execution import execute
        from trainers.torchrun import execute_in_team, started_by_torchrun

        perform = execute_in_team if started_by_torchrun() else execute
        finished = perform(steps, context, console, only=only)
        if finished:
            _show_results(finished, config, only, as_json=request.as_json)


def _resolve(request: Request, console: Console) -> RunConfig:
    from trainers import run_config

    config, before = run_config.resolve(
        run=request.run,
        dataset=request.dataset,
        path=request.path,
        seed=request.seed,
        num_seeds=request.num_seeds,
        scale=request.scale,
        recipe=request.recipe,
        threads=request.threads,
        until=request.until,
    )
    changed = run_config.changes(before, config) if before is not None else {}
    if changed:
        shown = ", ".join(f"{key} {old} → {new}" for key, (old, new) in changed.items())
        console.say(f"options of {config.out} change: {shown}; steps that depend on them run again")
    return config


def _show_plan(steps: Sequence[Step], context: Any, only: str | None, *, as_json: bool) -> None:
    from trainers.steps import plan

    decisions = plan(steps, context)
    if only is not None:
        decisions = [decision for decision in decisions if decision.step.name == only]
    if as_json:
        rows = [{"name": each.step.name, "runs": each.must_run, "reason": each.reason} for each in decisions]
        typer.echo(json.dumps({"run": str(context.directory), "dry_run": True, "steps": rows}, indent=2))
        return
    for decision in decisions:
        typer.echo(_plan_line(decision))


def _plan_line(decision: Decision) -> str:
    verdict = f"would run ({decision.reason})" if decision.must_run else "up to date"
    return f"{decision.step.name:<12} {verdict}"


def _show_results(finished: Sequence[Finished], config: RunConfig, only: str | None, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary(finished, config), indent=2))
    elif only in (None, "report"):
        _show_report(config.out)
    else:
        for key, value in finished[-1].marker.figures.items():
            typer.echo(f"{key:<24} {value}")


def _show_report(run: Path) -> None:
    from rich.console import Console as RichConsole

    from trainers.report.schema import REPORT_FILE, Report
    from trainers.report.terminal import show

    if (run / REPORT_FILE).is_file():
        show(Report.load(run), RichConsole(), run, program=program())


def summary(finished: Sequence[Finished], config: RunConfig) -> dict[str, Any]:
    """What `--json` prints: options of the run, and each step with its cost and figures."""
    rows = [
        {
            "name": each.marker.step,
            "ran": each.ran,
            "seconds": each.marker.seconds,
            "peak_mb": each.marker.peak_mb,
            "finished": each.marker.finished,
            "figures": each.marker.figures,
        }
        for each in finished
    ]
    return {"run": str(config.out), "options": config.saved_fields(), "steps": rows}
