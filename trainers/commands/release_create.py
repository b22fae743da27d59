"""`headwater release create`: a candidate from someone's parts, or trained anew on other embedding versions."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.invocation import program
from trainers.commands.options import (
    ChangeDryRunOption,
    DebugOption,
    ExistingRunOption,
    JsonOption,
    QuietOption,
    WhyOption,
)
from trainers.commands.tables import aligned, terminal_width

if TYPE_CHECKING:
    from feature_repo.release.manifest import ReleaseManifest
    from feature_repo.versions import Catalogue
    from trainers.evaluation.retrained import Plan
    from trainers.life.home import Home

logger = logging.getLogger(__name__)

FolderArgument = Annotated[Path | None, typer.Argument(metavar="[FOLDER]", help="Folder with retrained parts.")]
BaseOption = Annotated[
    str | None,
    typer.Option("--base", metavar="RELEASE", help="Release with the other parts; the live one if not given."),
]
VersionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--version",
        metavar="VERSION",
        help="Train on this embedding version; may be repeated; of other models the live release's.",
    ),
]
ReleaseSeedsOption = Annotated[
    int | None,
    typer.Option("--seeds", metavar="N", help="With --version: seeds that figures are the mean of; 1 if not given."),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What was asked for, and how it is told."""

    run: Path
    why: str
    dry_run: bool
    as_json: bool


def create(
    run: ExistingRunOption,
    folder: FolderArgument = None,
    versions: VersionsOption = None,
    base: BaseOption = None,
    seeds: ReleaseSeedsOption = None,
    why: WhyOption = None,
    dry_run: ChangeDryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a release from retrained parts, or train one on embedding versions; it must be promoted to answer."""
    named = list(versions or ())
    with exit_codes(debug=debug, as_json=as_json, resume=_resume(run, named, seeds, why)):
        _check_asked(folder, named, base, seeds)
        if folder is not None:
            reason = why or f"created from {folder}"
            _from_folder(Asked(run=run, why=reason, dry_run=dry_run, as_json=as_json), folder, base)
        else:
            reason = why or f"trained on {', '.join(named)}"
            asked = Asked(run=run, why=reason, dry_run=dry_run, as_json=as_json)
            _from_versions(asked, named, seeds or 1, quiet=quiet, debug=debug)


def _check_asked(folder: Path | None, named: Sequence[str], base: str | None, seeds: int | None) -> None:
    if (folder is None) == (not named):
        raise ValueError("one of FOLDER and --version must be given (got both or none); give one")
    if named and base is not None:
        raise ValueError(f"--base must come with a FOLDER (got {base!r} with --version, which trains every part)")
    if folder is not None and seeds is not None:
        raise ValueError(f"--seeds must come with --version (got {seeds} with a FOLDER, of which nothing is trained)")
    if seeds is not None and seeds < 1:
        raise ValueError(f"--seeds must be at least 1 (got {seeds}); leave it out for one")


def _resume(run: Path, named: Sequence[str], seeds: int | None, why: str | None) -> str:
    """Shell line that goes on with an interrupted training."""
    options = [f"--version {name}" for name in named]
    options += [f"--seeds {seeds}"] if seeds is not None else []
    options += [f"--why {shlex.quote(why)}"] if why is not None else []
    return " ".join([program(), "release create", f"--run {run}", *options]) if named else ""


def _from_folder(asked: Asked, folder: Path, base: str | None) -> None:
    from trainers.life.operators import open_catalogue, operator
    from trainers.life.release_parts import create_from_folder

    who, catalogue = operator(), open_catalogue(asked.run)
    made = create_from_folder(asked.run, catalogue, folder, base=base, who=who, why=asked.why, dry_run=asked.dry_run)
    done = f"{made.release} would be created" if asked.dry_run else f"{made.release} is a candidate"
    found = {"release": made.release, "parent": made.parent, "versions": made.spaces()}
    _say(asked, found, f"{done}, on {_listed(made.spaces())}")


def _from_versions(asked: Asked, named: Sequence[str], num_seeds: int, *, quiet: bool, debug: bool) -> None:
    from trainers.console import Console, configure_logging
    from trainers.evaluation.retrained import create_from_versions, planned
    from trainers.life.home import Home
    from trainers.life.operators import operator
    from trainers.life.requests import Request

    configure_logging(debug=debug)
    home = Home.of_run(asked.run)
    if asked.dry_run:
        plan = planned(home, named, num_seeds)
        _say(asked, _plan_fields(home, plan), _plan_text(home, plan))
        return
    request = Request(asked.run, "release create", {"versions": sorted(named), "seeds": num_seeds})
    with request.until_told():
        author, console = {"who": operator(), "why": asked.why}, Console(quiet=quiet)
        made = create_from_versions(home, named, console, num_seeds=num_seeds, request=request, **author)
        _say_made(asked, home, made)


def _say_made(asked: Asked, home: Home, made: ReleaseManifest) -> None:
    live = live_figures(asked.run, home.catalogue, made.release)
    found = {
        "release": made.release,
        "parent": made.parent,
        "versions": made.spaces(),
        "data_cutoff": made.data_cutoff.isoformat(),
        "figures": made.figures,
        "live": live,
    }
    _say(asked, found, _made_text(asked.run, made, live))


def live_figures(run: Path, catalogue: Catalogue, other_than: str) -> dict[str, Any] | None:
    """The live release and its figures, for another one to be compared with.

    None where there is no other, or where its manifest cannot be read, which is no reason not to show this one.
    """
    from feature_repo.release.manifest import ReleaseError, load_manifest
    from trainers.life.releases import release_folder

    live = catalogue.pointers().live
    if live in (None, other_than):
        return None
    try:
        manifest = load_manifest(release_folder(run, catalogue.release(live)))
    except ReleaseError as error:
        logger.warning("event=live_release_unreadable release=%s reason=%s", live, error)
        return None
    return {"release": live, "figures": dict(manifest.figures)}


def compared_figures(figures: Mapping[str, float], live: Mapping[str, Any] | None) -> dict[str, str]:
    """Figures by name for people, each next to the live release's: `0.7421, live 0.7398 (+0.31 %)`."""
    theirs: Mapping[str, float] = live["figures"] if live else {}
    return {name: f"{value:.4f}{_against(value, theirs.get(name))}" for name, value in figures.items()}


def _against(value: float, live: float | None) -> str:
    if live is None:
        return ""
    change = f" ({100.0 * (value / live - 1.0):+.2f} %)" if live else ""
    return f", live {live:.4f}{change}"


def _plan_fields(home: Home, plan: Plan) -> dict[str, Any]:
    window = home.log.spec.window
    return {
        "release": None,
        "versions": plan.chosen.spaces,
        "services": dict(plan.chosen.services),
        "seeds": list(plan.seeds),
        "train_from": window.train_from.isoformat(),
        "test_from": window.test_from.isoformat(),
        "until": window.until.isoformat(),
        "data_cutoff": plan.chosen.index_cutoff.isoformat(),
        "models": {name: "kept" if name not in plan.missing else "to train" for name in plan.models},
    }


def _plan_text(home: Home, plan: Plan) -> str:
    window, chosen = home.log.spec.window, plan.chosen
    kept = [name for name in plan.models if name not in plan.missing]
    rows = [
        ("would be trained on", _listed(chosen.spaces)),
        ("read through", ", ".join(chosen.services.values())),
        ("learned from", f"{window.train_from:%Y-%m-%d} until {window.test_from:%Y-%m-%d}"),
        ("judged on", f"{window.test_from:%Y-%m-%d} until {window.until:%Y-%m-%d}"),
        ("Pins indexed as of", f"{chosen.index_cutoff:%Y-%m-%d}"),
        ("models to train", ", ".join(plan.missing) or "none"),
        ("trained already", ", ".join(kept) or "none"),
    ]
    return aligned(rows, width=terminal_width())


def _made_text(run: Path, made: ReleaseManifest, live: Mapping[str, Any] | None) -> str:
    rows = list(compared_figures(made.figures, live).items())
    head = f"{made.release} is a candidate, on {_listed(made.spaces())}"
    against = f"; figures next to those of {live['release']}, which is live" if live else ""
    how = f"`{program()} release promote {made.release} --run {run}` makes it live, `release shadow` tries it first"
    return "\n".join([head + against, aligned(rows, indent="  ", width=terminal_width()), how])


def _listed(spaces: Mapping[str, str]) -> str:
    return ", ".join(f"{key} ({space})" for key, space in sorted(spaces.items()))


def _say(asked: Asked, found: Mapping[str, Any], text: str) -> None:
    fields = {"run": str(asked.run), "dry_run": asked.dry_run, **found}
    typer.echo(json.dumps(fields, indent=2) if asked.as_json else text)
