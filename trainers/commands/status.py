"""`headwater status`: where a run stands, its embedding versions and who reads them, and how fresh its views are."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.moments import moment_option
from trainers.commands.options import DebugOption, ExistingRunOption, JsonOption

if TYPE_CHECKING:
    from feature_repo.contract import RepoManifest
    from trainers.run_config import RunConfig

AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", metavar="MOMENT", help="UTC moment at which ages are taken; now when not given."),
]


def add_command(app: typer.Typer) -> None:
    """Add `status`."""

    @app.command("status")
    def status(
        run: ExistingRunOption, as_of: AsOfOption = None, as_json: JsonOption = False, debug: DebugOption = False
    ) -> None:
        """Show a run's steps, embedding versions with their freshness and consumers, and what needs attention."""
        with exit_codes(debug=debug, as_json=as_json):
            found = collect(run, moment_option("--as-of", as_of))
            if as_json:
                typer.echo(json.dumps(found, indent=2))
            else:
                _show(found)


def collect(run: Path, as_of: datetime | None = None) -> dict[str, Any]:
    """State of a run as `--json` prints it; what does not exist yet is absent.

    Args:
        as_of: Moment at which ages are taken; found out when not given.

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
    if (run / "feature_repo" / "feature_store.yaml").is_file() and (run / "event_log" / "spec.json").is_file():
        found |= _catalogued(run, as_of)
    return found


def _catalogued(run: Path, as_of: datetime | None) -> dict[str, Any]:
    from trainers.life.operators import open_catalogue
    from trainers.life.version_status import version_status

    return version_status(run, open_catalogue(run), as_of)


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
    if found.get("versions"):
        if not all(step["up_to_date"] for step in found["steps"]):
            typer.echo("  `headwater run` would do them again; new days of raw data join with `headwater refresh`")
        _show_versions(found)
    else:
        for version in found.get("embedding_versions", []):
            typer.echo(f"  version {version['version']}: {version['dim']}-d, max age {version['ttl_hours']} h")
    for view in found.get("feature_views", []):
        typer.echo(f"  view {view['view']}: {_view_text(view)}")


def _show_versions(found: dict[str, Any]) -> None:
    from trainers.commands.tables import aligned, terminal_width

    why = {"replay": ", the end of a log that ended long ago", "wall": "", "given": ""}[found["clock"]]
    typer.echo(f"  versions as of {found['as_of'][:16].replace('T', ' ')} UTC{why}; live: {found['live'] or 'none'}")
    heading = ("version", "state", "space", "newest day", "age", "max age", "freshness", "coverage", "drift", "read by")
    typer.echo(aligned([heading, *map(_version_row, found["versions"])], indent="    ", width=terminal_width()))
    for warning in found["warnings"]:
        typer.echo(f"  warning: {warning}")


def _version_row(version: dict[str, Any]) -> tuple[str, ...]:
    day, age = version["newest_day"], version["age_hours"]
    if version["state"] == "pruned":
        space = version["space_id"] or "none"
        return version["version"], "pruned", space, day[:10] if day else "none", "", "", "deleted", "", "", "nothing"
    return (
        version["version"],
        version["state"] + (f" through {version['served_through']}" if version["served_through"] else ""),
        version["space_id"] or "none yet",
        day[:10] if day else "none",
        "" if age is None else f"{age:.0f} h",
        f"{version['ttl_hours']} h",
        version["freshness"].replace("_", " "),
        _figures(version["coverage"]),
        _figures(version["drift"]),
        _readers(version["consumers"]) or "nothing",
    )


def _readers(consumers: list[dict[str, str]]) -> str:
    """Who reads a version; superseded releases, of which every refreshed day leaves one, by their number."""
    left = [each for each in consumers if (each["kind"], each["detail"]) == ("release", "superseded")]
    shown = [each for each in consumers if each not in left]
    names = [each["name"] + (f" ({each['detail']})" if each["kind"] == "release" else "") for each in shown]
    return ", ".join([*names, f"{len(left)} superseded release{'s' * (len(left) > 1)}"] if left else names)


def _figures(gates: dict[str, float]) -> str:
    """Figures of both entities: the largest of each kind, which is the worst for drift; the smallest of coverage."""
    if not gates:
        return ""
    if all(name.startswith("coverage") for name in gates):
        return f"{min(gates.values()):.1%}"
    kinds = {name.partition("_since_reference")[0] for name in gates}
    worst = {kind: max(value for name, value in gates.items() if name.startswith(kind)) for kind in kinds}
    return ", ".join(f"{kind.replace('_', ' ')} {worst[kind]:.3g}" for kind in sorted(worst))


def _view_text(view: dict[str, Any]) -> str:
    if "newest" not in view:
        return "no snapshot yet"
    behind = f", {view['days_behind']} days behind the event log" if view.get("days_behind", 0) > 0 else ""
    num = view["num_snapshots"]
    return f"{num} snapshot{'s' * (num > 1)}, newest {view['newest']}{behind}, max age {view['ttl_hours']} h"
