"""`headwater release split`: let another release answer a share of the users."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from trainers.commands.exits import exit_codes
from trainers.commands.options import ChangeDryRunOption, DebugOption, ExistingRunOption, JsonOption, WhyOption

if TYPE_CHECKING:
    from feature_repo.versions import Split

ReleaseArgument = Annotated[
    str | None, typer.Argument(metavar="[RELEASE]", help="Release of the treatment; ends the split if absent.")
]
ShareOption = Annotated[float, typer.Option("--share", metavar="F", help="Share of the users in the treatment.")]
HoldoutOption = Annotated[
    float, typer.Option("--holdout", metavar="F", help="Share of the users that no comparison counts.")
]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Name in answers and logs; the release's if not given.")
]
SaltOption = Annotated[
    str | None, typer.Option("--salt", metavar="TEXT", help="Draws the users; the name if not given.")
]


def split(
    run: ExistingRunOption,
    release: ReleaseArgument = None,
    share: ShareOption = 0.5,
    holdout: HoldoutOption = 0.0,
    name: NameOption = None,
    salt: SaltOption = None,
    why: WhyOption = None,
    dry_run: ChangeDryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Let a release answer a share of the users, the same ones at every request; without a release, end that."""
    from feature_repo.versions import Split, record_fields
    from trainers.life.operators import open_catalogue, operator
    from trainers.life.release_parts import check_servable

    with exit_codes(debug=debug, as_json=as_json):
        catalogue, wanted = open_catalogue(run), None
        if release is not None:
            called = name or release
            wanted = Split(name=called, release=release, share=share, holdout=holdout, salt=salt or called)
            check_servable(run, catalogue, release)
        if not dry_run:
            catalogue.split(wanted, who=operator(), why=why or ("tried on users" if wanted else "tried enough"))
        found = {"run": str(run), "dry_run": dry_run, "split": record_fields(wanted) if wanted else None}
        typer.echo(json.dumps(found, indent=2) if as_json else _sentence(wanted, dry_run=dry_run))


def _sentence(wanted: Split | None, *, dry_run: bool) -> str:
    if wanted is None:
        return "every user would be answered by the live release" if dry_run else "the live release answers every user"
    verb = "would answer" if dry_run else "answers"
    kept = f"; {wanted.holdout:.1%} of them are held out" if wanted.holdout else ""
    return f"{wanted.release} {verb} {wanted.share:.1%} of the users in split {wanted.name}{kept}"
