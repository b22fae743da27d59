"""Options that commands share, each declared once, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

RunOption = Annotated[
    Path | None,
    typer.Option("--run", "--out", metavar="DIR", help="Directory of the run; runs/<dataset> when not given."),
]
DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", metavar="NAME|FILE.yaml", help="Built-in dataset, or the declaration of your own."),
]
PathOption = Annotated[
    Path | None,
    typer.Option("--path", metavar="PATH", help="Folder or file of the raw data, where it is not installed with pip."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="First seed; 1 when not given.")]
SeedsOption = Annotated[
    int | None, typer.Option("--seeds", metavar="N", help="Number of seeds for downstream models; 3 when not given.")
]
ScaleOption = Annotated[
    float | None, typer.Option("--scale", metavar="F", help="Share of the users to keep, at most 1.")
]
RecipeOption = Annotated[
    str | None, typer.Option("--recipe", metavar="NAME", help="Recipe that sizes models and training.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", metavar="N", help="Threads to use; every core when not given.")
]
UntilOption = Annotated[
    str | None,
    typer.Option("--until", metavar="DATE", help="First day not seen: end the window here; later days are refreshes."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print a machine-readable summary; progress stays on standard error.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say which steps would run, and why; write nothing.")]
ChangeDryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, say what would change, write nothing.")
]
WhyOption = Annotated[str | None, typer.Option("--why", metavar="TEXT", help="Reason, kept with the change.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
DebugOption = Annotated[
    bool, typer.Option("--debug", envvar="HEADWATER_DEBUG", help="Show debug messages, and the traceback of an error.")
]
ExistingRunOption = Annotated[Path, typer.Option("--run", "--out", metavar="DIR", help="Directory of the run.")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was asked of a command that runs steps; none where an option was not given."""

    run: Path | None
    """Directory of the run."""
    dataset: str | None
    """Name, or path of a YAML file."""
    path: Path | None
    """Raw data."""
    seed: int | None
    """First seed."""
    num_seeds: int | None
    """Number of downstream seeds."""
    scale: float | None
    """Size relative to the recipe's own."""
    recipe: str | None
    """Name of a recipe."""
    threads: int | None
    """Number of threads."""
    until: str | None
    """First day not seen."""
    as_json: bool
    """Print a machine-readable summary."""
    dry_run: bool
    """Only say what would run."""
    quiet: bool
    """Show no progress."""
    debug: bool
    """Show debug messages and tracebacks."""
