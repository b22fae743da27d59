"""`headwater`: every command of the project.

Only typer is imported here; each command brings along what it needs when it runs, so that help answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from trainers.commands import (
    check,
    experiment,
    impressions,
    init,
    push,
    refresh,
    release,
    run,
    serve,
    skew,
    status,
    version,
)
from trainers.commands.exits import EPILOG
from trainers.commands.listing import ListedCommands

_FLAGS = ("help", "version", "install_completion", "show_completion")

app = typer.Typer(
    name="headwater",
    cls=ListedCommands,
    help="Learn user and Pin embeddings once, and keep them fresh and versioned for every model, through Feast.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # Without a value of its own for each option typer imports pydantic to check that none was given: 0.15 s.
    context_settings={
        "default_map": dict.fromkeys(("help", "version", "install_completion", "show_completion"), False)
    },
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as version_of  # 20 ms that help does not need

        typer.echo(f"headwater {version_of('headwater')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""
    del version


init.add_command(app)
check.add_command(app)
run.add_command(app, "run", "Do every step that is not up to date, up to the report.", only=None)
for _name, _summary in run.STEP_COMMANDS.items():
    run.add_command(app, _name, _summary, only=_name)
release.add_command(app)
refresh.add_command(app)
push.add_command(app)
experiment.add_command(app)
version.add_command(app)
serve.add_command(app)
status.add_command(app)
skew.add_command(app)
impressions.add_command(app)


def main() -> None:
    """Console script."""
    app()


if __name__ == "__main__":
    main()
