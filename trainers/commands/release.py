"""`headwater release`: what is served, what could be, and how that changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainers.commands import release_changes, release_create, release_split
from trainers.commands.exits import EPILOG, exit_codes
from trainers.commands.listing import ListedCommands
from trainers.commands.options import DebugOption, ExistingRunOption, JsonOption
from trainers.commands.release_create import compared_figures, live_figures
from trainers.commands.tables import aligned, terminal_width

if TYPE_CHECKING:
    from feature_repo.release.manifest import ReleaseManifest
    from feature_repo.versions import Pointers, ReleaseRecord
    from trainers.life.release_diff import Change

ReleaseArgument = Annotated[str | None, typer.Argument(metavar="[RELEASE]", help="Release; the live one if not given.")]
FirstArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="Release; compared with the live one if alone.")]
SecondArgument = Annotated[str | None, typer.Argument(metavar="[OTHER]", help="Release to compare the first with.")]
AllOption = Annotated[bool, typer.Option("--all", help="Retired and pruned ones too.")]


def add_command(app: typer.Typer) -> None:
    """Add `release` and its commands."""
    group = typer.Typer(
        cls=ListedCommands,
        help="Make, compare, promote, roll back and retire releases.",
        epilog=EPILOG,
        no_args_is_help=True,
        # As for the whole program, so that help imports nothing.
        context_settings={"default_map": {"help": False}},
    )
    group.command("list")(list_releases)
    group.command("show")(show)
    group.command("diff")(diff)
    group.command("create")(release_create.create)
    release_changes.add_commands(group)
    group.command("split")(release_split.split)
    app.add_typer(group, name="release")


def list_releases(
    run: ExistingRunOption, every: AllOption = False, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """List releases, newest first, and which one is live."""
    from feature_repo.versions import ReleaseState, record_fields
    from trainers.life.operators import open_catalogue

    with exit_codes(debug=debug, as_json=as_json):
        catalogue = open_catalogue(run)
        gone = (ReleaseState.RETIRED, ReleaseState.PRUNED)
        found = [each for each in reversed(catalogue.releases()) if every or each.state not in gone]
        pointers = catalogue.pointers()
        if as_json:
            rows = [record_fields(each) for each in found]
            typer.echo(json.dumps({"run": str(run), **pointer_fields(pointers), "releases": rows}, indent=2))
        else:
            typer.echo(_listing(run, found, pointers))


def show(
    run: ExistingRunOption, release: ReleaseArgument = None, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Show a release: versions, models, index, figures next to those of the live one, and what happened to it."""
    from feature_repo.versions import record_fields, release_subject
    from trainers.life.operators import open_catalogue
    from trainers.life.releases import verified_release

    with exit_codes(debug=debug, as_json=as_json):
        catalogue = open_catalogue(run)
        record = catalogue.release(release or live_release(catalogue.pointers(), run))
        manifest = verified_release(run, record)
        live = live_figures(run, catalogue, record.id)
        past = [record_fields(each) for each in catalogue.transitions(release_subject(record.id))]
        if as_json:
            shown = {"record": record_fields(record), "manifest": manifest.model_dump(mode="json", by_alias=True)}
            typer.echo(json.dumps({"run": str(run), **shown, "live": live, "transitions": past}, indent=2))
        else:
            typer.echo(_description(record, manifest, compared_figures(manifest.figures, live), past))


def diff(
    run: ExistingRunOption,
    release: FirstArgument,
    other: SecondArgument = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what one release has otherwise than another; alone, what promoting it would change."""
    import dataclasses

    from trainers.life.operators import open_catalogue
    from trainers.life.release_diff import changes
    from trainers.life.releases import verified_release

    with exit_codes(debug=debug, as_json=as_json):
        catalogue = open_catalogue(run)
        names = (release, other) if other is not None else (live_release(catalogue.pointers(), run), release)
        before, after = (verified_release(run, catalogue.release(name)) for name in names)
        found = changes(before, after)
        if as_json:
            rows = [dataclasses.asdict(each) for each in found]
            head = {"run": str(run), "before": names[0], "after": names[1]}
            typer.echo(json.dumps({**head, "changes": rows}, indent=2))
        else:
            typer.echo(change_table(names[0], names[1], found))


def live_release(pointers: Pointers, run: Path) -> str:
    """The live release.

    Raises:
        ValueError: There is none.
    """
    if pointers.live is None:
        raise ValueError(f"a release must be live or named (got none live in {run}); `headwater release list` has them")
    return pointers.live


def pointer_fields(pointers: Pointers) -> dict[str, Any]:
    """Pointers as `--json` prints them."""
    from feature_repo.versions import record_fields

    return {
        "live": pointers.live,
        "shadow": pointers.shadow,
        "shadow_share": pointers.shadow_share,
        "split": record_fields(pointers.split) if pointers.split else None,
        "revision": pointers.revision,
    }


def change_table(before: str, after: str, found: list[Change]) -> str:
    """Differences for people."""
    if not found:
        return f"{before} and {after} hold the same"
    rows = [("", before, after), *((each.part, each.before or "none", each.after or "none") for each in found)]
    return aligned(rows, width=terminal_width())


def _listing(run: Path, found: list[ReleaseRecord], pointers: Pointers) -> str:
    if not found:
        return f"{run} has no release yet; `headwater run --run {run}` makes the first"
    rows = [("release", "state", "data until", "created", "made by", "versions")]
    for each in found:
        state = _state(each, pointers)
        cutoff = f"{each.data_cutoff:%Y-%m-%d}" if each.data_cutoff else ""
        versions, created = " ".join(sorted(each.versions)), f"{each.created:%Y-%m-%d %H:%M}"
        rows.append((each.id, state, cutoff, created, each.made_by, versions))
    return aligned(rows, width=terminal_width())


def _state(release: ReleaseRecord, pointers: Pointers) -> str:
    shadow = f", shadow {pointers.shadow_share:.0%}" if release.id == pointers.shadow else ""
    split = pointers.split
    tried = f", split {split.name} {split.share:.0%}" if split is not None and release.id == split.release else ""
    return f"{release.state}{shadow}{tried}"


def _description(
    record: ReleaseRecord, manifest: ReleaseManifest, figures: Mapping[str, str], past: list[dict[str, Any]]
) -> str:
    rankers = {"pctr": manifest.rankers.pctr, "pcvr": manifest.rankers.pcvr}
    retrieval = manifest.retrieval
    models = [f"{name} {each.model}" for name, each in rankers.items() if each is not None]
    rows = [
        ("release", f"{record.id}, {record.state}"),
        ("versions", ", ".join(f"{key} in space {space}" for key, space in sorted(manifest.spaces().items()))),
        ("services", f"{manifest.services.retrieval}, {manifest.services.ranking}"),
        ("models", ", ".join([*models, f"query {retrieval.model}", f"candidates {retrieval.candidate_model}"])),
        ("index", f"{retrieval.num_pins} Pins, {retrieval.dim} wide, popularity of {retrieval.prior.days} days"),
        ("data until", f"{manifest.data_cutoff:%Y-%m-%d %H:%M} UTC"),
        ("made by", f"{record.made_by}, commit {manifest.commit}, seed {manifest.seed}"),
        ("parent", record.parent or "none"),
        *(list(figures.items()) or [("figures", "none")]),
        *((each["at"][:16].replace("T", " "), f"{each['after']} by {each['who']}: {each['why']}") for each in past),
    ]
    return aligned(rows, width=terminal_width())
