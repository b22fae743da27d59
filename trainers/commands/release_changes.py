"""The commands of `headwater release` that change something."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.moments import moment_option
from trainers.commands.options import ChangeDryRunOption, DebugOption, ExistingRunOption, JsonOption, WhyOption
from trainers.commands.tables import size

if TYPE_CHECKING:
    from feature_repo.versions import Catalogue
    from trainers.life.prune import Prunable

ReleaseArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="Release.")]
ShadowArgument = Annotated[str | None, typer.Argument(metavar="[RELEASE]", help="Release; ends the shadow if absent.")]
ShareOption = Annotated[float, typer.Option("--share", metavar="F", help="Share of the requests, above 0, at most 1.")]
ToOption = Annotated[
    str | None, typer.Option("--to", metavar="RELEASE", help="An earlier live release; the one before if not given.")
]
RetireArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[TARGET]...", help="Releases, and versions such as ctr_v1.")
]
BeforeOption = Annotated[
    str | None,
    typer.Option("--superseded-before", metavar="DATE", help="Superseded releases with data until before this too."),
]
TargetsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[TARGET]...", help="Retired releases and versions; all if none is given.")
]


def add_commands(group: typer.Typer) -> None:
    """Add them to the group."""
    for command in (promote, rollback, shadow, retire, prune):
        group.command(command.__name__)(command)


def promote(
    run: ExistingRunOption,
    release: ReleaseArgument,
    why: WhyOption = None,
    dry_run: ChangeDryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make a release live: every server of the run follows within a second."""
    from trainers.life.operators import open_catalogue, operator
    from trainers.life.release_parts import check_servable

    with exit_codes(debug=debug, as_json=as_json):
        catalogue = open_catalogue(run)
        before = catalogue.pointers().live
        check_servable(run, catalogue, release)
        if not dry_run and before != release:
            reason = why or f"promoted in place of {before or 'none'}"
            catalogue.promote(release, who=operator(), why=reason, expected_live=before)
        _say_live(run, before, release, dry_run=dry_run, as_json=as_json)


def rollback(
    run: ExistingRunOption,
    to: ToOption = None,
    why: WhyOption = None,
    dry_run: ChangeDryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make the release live that was live before the live one."""
    from trainers.life.operators import open_catalogue, operator
    from trainers.life.release_parts import check_servable
    from trainers.life.requests import Request

    with exit_codes(debug=debug, as_json=as_json):
        catalogue = open_catalogue(run)
        request = Request(run, "release rollback", {"who": operator(), "to": to, "why": why})
        before, after, done = _rollback(catalogue, to, request.noted())
        with nullcontext() if dry_run else request.until_told():
            if not done:
                check_servable(run, catalogue, after)
            if not dry_run and not done:
                request.note(before=before, after=after)
                reason = why or f"rolled back from {before}"
                catalogue.rollback(who=operator(), why=reason, to=after, expected_live=before)
            _say_live(run, before, after, dry_run=dry_run and not done, as_json=as_json)


def _rollback(catalogue: Catalogue, to: str | None, noted: Mapping[str, str]) -> tuple[str | None, str, bool]:
    """Release that is live before and after, and whether the same command has done it and was killed before it told."""
    before = catalogue.pointers().live
    if noted and before == noted["after"]:
        return noted["before"], noted["after"], True
    return before, catalogue.rollback_target(to), False


def shadow(
    run: ExistingRunOption,
    release: ShadowArgument = None,
    share: ShareOption = 0.1,
    why: WhyOption = None,
    dry_run: ChangeDryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a release score a share of the live requests, answers unaffected; without a release, end that."""
    from trainers.life.operators import open_catalogue, operator
    from trainers.life.release_parts import check_servable

    with exit_codes(debug=debug, as_json=as_json):
        catalogue, chosen = open_catalogue(run), share if release else 0.0
        if release:
            if not 0.0 < share <= 1.0:
                raise ValueError(f"--share must be above 0 and at most 1 (got {share}); without a release it ends")
            check_servable(run, catalogue, release)
        if not dry_run:
            reason = why or ("tried on live requests" if release else "tried enough")
            catalogue.shadow(release, chosen, who=operator(), why=reason)
        verb = "would score" if dry_run else "scores"
        text = f"{release} {verb} {chosen:.0%} of the requests" if release else "no release scores requests as a shadow"
        _say(run, {"shadow": release, "shadow_share": chosen}, text, dry_run=dry_run, as_json=as_json)


def retire(
    run: ExistingRunOption,
    targets: RetireArgument = None,
    before: BeforeOption = None,
    why: WhyOption = None,
    dry_run: ChangeDryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Give releases and embedding versions up; refused while anything else still reads them."""
    from trainers.life.operators import open_catalogue, operator
    from trainers.life.retire import retirable, superseded_before
    from trainers.life.retire import retire as perform

    with exit_codes(debug=debug, as_json=as_json):
        if not targets and before is None:
            raise ValueError("a release, a version or --superseded-before must be given (got none of them)")
        catalogue, moment = open_catalogue(run), moment_option("--superseded-before", before)
        old = superseded_before(catalogue, moment) if moment is not None else []
        author = {"who": operator(), "why": why or "given up"}
        subjects = retirable(run, catalogue, [*(targets or ()), *old], **author)
        if not dry_run:
            perform(catalogue, subjects, **author)
        verb = "would be retired" if dry_run else "is retired; `headwater release prune` deletes its data"
        text = "\n".join(f"{subject} {verb}" for subject in subjects) or "no release is superseded and that old"
        _say(run, {"retired": subjects}, text, dry_run=dry_run, as_json=as_json)


def prune(
    run: ExistingRunOption,
    targets: TargetsArgument = None,
    why: WhyOption = None,
    dry_run: ChangeDryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Delete the data of what is retired, from every store, and nothing else."""
    from trainers.life.operators import open_catalogue, operator
    from trainers.life.prune import prunable
    from trainers.life.prune import prune as perform
    from trainers.run_lock import run_lock

    with exit_codes(debug=debug, as_json=as_json):
        catalogue, author = open_catalogue(run), {"who": operator(), "why": why or "retired"}
        if dry_run:
            found = prunable(run, catalogue, targets or (), **author)
        else:
            with run_lock(run):
                found = prunable(run, catalogue, targets or (), **author)
                perform(run, catalogue, found, **author)
        rows = [_fields(run, each) for each in found]
        _say(run, {"pruned": rows}, _deletions(run, found, dry_run=dry_run), dry_run=dry_run, as_json=as_json)


def _say_live(run: Path, before: str | None, after: str, *, dry_run: bool, as_json: bool) -> None:
    if before == after:
        text = f"{after} is live already"
    elif dry_run:
        text = f"{after} would be live (now {before or 'none'}); `headwater release diff {after}` shows what changes"
    else:
        text = f"{after} is live (before: {before or 'none'}); servers follow within a second"
    _say(run, {"live": after, "before": before}, text, dry_run=dry_run, as_json=as_json)


def _say(run: Path, found: Mapping[str, Any], text: str, *, dry_run: bool, as_json: bool) -> None:
    typer.echo(json.dumps({"run": str(run), "dry_run": dry_run, **found}, indent=2) if as_json else text)


def _fields(run: Path, found: Prunable) -> dict[str, Any]:
    paths = [str(path.relative_to(run)) for path in found.paths]
    return {"subject": found.subject, "paths": paths, "views": list(found.views), "bytes": found.bytes}


def _deletions(run: Path, found: list[Prunable], *, dry_run: bool) -> str:
    if not found:
        return "nothing is retired; `headwater release retire TARGET` gives a release or a version up"
    lines = []
    for each in found:
        lines.append(f"{each.subject}: {'would delete' if dry_run else 'deleted'} {size(each.bytes)}")
        lines += [f"  {path.relative_to(run)}" for path in each.paths]
        lines += [f"  view {view} and its online rows" for view in each.views]
    return "\n".join(lines)
