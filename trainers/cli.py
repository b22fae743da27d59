"""`headwater`: every command of the project.

Only typer is imported here; each command brings along what it needs when it runs, so that help answers at once.
"""

from __future__ import annotations

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

app = typer.Typer(
    name="headwater",
    help="Learn user and Pin embeddings once, and keep them fresh and versioned for every model, through Feast.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    # Without a value of its own for --help typer imports pydantic to check that none was given: 0.15 s.
    context_settings={"default_map": {"help": False}},
)
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
