"""`headwater status`: where a run stands, its embedding versions, and how fresh its feature views are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.options import DebugOption, ExistingRunOption, JsonOption

if TYPE_CHECKING:
    from feature_repo.contract import RepoManifest
    from trainers.run_config import RunConfig


def add_command(app: typer.Typer) -> None:
    """Add `status`."""

    @app.command("status")
    def status(run: ExistingRunOption, as_json: JsonOption = False, debug: DebugOption = False) -> None:
        """Show a run's steps, embedding versions and freshness."""
        with exit_codes(debug=debug, as_json=as_json):
            found = collect(run)
            if as_json:
                typer.echo(json.dumps(found, indent=2))
            else:
                _show(found)


def collect(run: Path) -> dict[str, Any]:
    """State of a run as `--json` prints it; what does not exist yet is absent.

    Raises:
        ValueError: no run has been started in the directory.
    """
    from trainers import run_config

    config = run_config.load(run)
    if config is None:
        raise ValueError(f"--run must be the directory of a run (got {str(run)!r}); start one with `headwater run`")
    found: dict[str, Any] = {"run": str(run), "options": config.saved_fields(), "steps": _steps(config)}
    data_dir = run / "feature_repo" / "data"
    if (data_dir / "manifest.json").is_file():
        found |= _versions_and_views(data_dir, _data_end(run))
    return found


def _steps(config: RunConfig) -> list[dict[str, Any]]:
    from trainers.commands.run import load_steps
    from trainers.steps import RunContext, plan

    rows: list[dict[str, Any]] = []
    for decision in plan(load_steps(config), RunContext(config=config)):
        row: dict[str, Any] = {"name": decision.step.name, "up_to_date": not decision.must_run}
        if decision.marker is None:
            row["reason"] = decision.reason
        else:
            marker = decision.marker
            row |= {"finished": marker.finished, "seconds": marker.seconds, "peak_mb": marker.peak_mb}
        rows.append(row)
    return rows


def _data_end(run: Path) -> str | None:
    """Last UTC date with impressions."""
    days = sorted(path.name.removeprefix("date=") for path in (run / "event_log" / "impressions").glob("date=*"))
    return days[-1] if days else None


def _versions_and_views(data_dir: Path, data_end: str | None) -> dict[str, Any]:
    from feature_repo.contract import ENTITIES, RepoManifest, activity_view, embedding_view

    manifest = RepoManifest.load(data_dir)
    views = {activity_view(entity): manifest.activity_ttl_hours for entity in ENTITIES}
    for version in manifest.embeddings:
        for entity in ENTITIES:
            views[embedding_view(entity, version.model, version.version)] = version.ttl_hours
    freshness = [_freshness(data_dir / "offline" / view, ttl_hours, data_end) for view, ttl_hours in views.items()]
    found: dict[str, Any] = {"embedding_versions": _versions(manifest), "feature_views": freshness}
    if data_end is not None:
        found["data_until"] = data_end
    return found


def _versions(manifest: RepoManifest) -> list[dict[str, Any]]:
    return [{"version": each.key, "dim": each.dim, "ttl_hours": each.ttl_hours} for each in manifest.embeddings]


def _freshness(folder: Path, ttl_hours: int, data_end: str | None) -> dict[str, Any]:
    """Newest snapshot of a view, and how many days the event log is ahead of it."""
    from datetime import date

    days = sorted(path.stem.removeprefix("date=") for path in folder.glob("date=*.parquet"))
    row: dict[str, Any] = {"view": folder.name, "ttl_hours": ttl_hours, "num_snapshots": len(days)}
    if days:
        row["newest"] = days[-1]
        if data_end is not None:
            row["days_behind"] = (date.fromisoformat(data_end) - date.fromisoformat(days[-1])).days
    return row


def _show(found: dict[str, Any]) -> None:
    from trainers.console import duration

    options = found["options"]
    typer.echo(f"{found['run']}: {options['dataset']}, seed {options['seed']}, {options['num_seeds']} downstream seeds")
    for step in found["steps"]:
        cost = (
            f"{duration(step['seconds'])}, {step['peak_mb']:,.0f} MB, {step['finished']}" if step["up_to_date"] else ""
        )
        typer.echo(f"  {step['name']:<12} {'done, ' + cost if cost else 'to run: ' + step['reason']}")
    for version in found.get("embedding_versions", []):
        typer.echo(f"  version {version['version']}: {version['dim']}-d, max age {version['ttl_hours']} h")
    for view in found.get("feature_views", []):
        typer.echo(f"  view {view['view']}: {_view_text(view)}")


def _view_text(view: dict[str, Any]) -> str:
    if "newest" not in view:
        return "no snapshot yet"
    behind = f", {view['days_behind']} days behind the event log" if view.get("days_behind", 0) > 0 else ""
    return f"{view['num_snapshots']} snapshots, newest {view['newest']}{behind}, max age {view['ttl_hours']} h"
