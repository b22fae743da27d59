"""`headwater skew`: whether what was served is what training would have learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainers.commands.exits import FAILED, exit_codes
from trainers.commands.options import DebugOption, ExistingRunOption, JsonOption, QuietOption
from trainers.commands.tables import aligned, terminal_width

if TYPE_CHECKING:
    from trainers.request_log.differences import Difference
    from trainers.request_log.skew import ReleaseSkew

LogOption = Annotated[
    Path | None, typer.Option("--log", metavar="DIR", help="Request log; request_log/ of the run if not given.")
]
ReleaseOption = Annotated[
    str | None, typer.Option("--release", metavar="RELEASE", help="Answers of this release; of every one if not given.")
]
AnswersOption = Annotated[
    int, typer.Option("--answers", metavar="N", min=1, help="Most answers of a release that are recomputed.")
]
MostOption = Annotated[
    float, typer.Option("--most", metavar="F", help="Share of differing rows, per feature, from which it is skewed.")
]


def add_command(app: typer.Typer) -> None:
    """Add `skew`."""

    @app.command("skew")
    def skew(
        run: ExistingRunOption,
        log: LogOption = None,
        release: ReleaseOption = None,
        answers: AnswersOption = 2000,
        most: MostOption = 0.0,
        as_json: JsonOption = False,
        quiet: QuietOption = False,
        debug: DebugOption = False,
    ) -> None:
        """Recompute logged answers as training would, by feature and score; ends with 1 where they differ."""
        from feature_repo.request_log.layout import REQUEST_LOG
        from trainers.console import Console
        from trainers.life.operators import open_catalogue
        from trainers.request_log.skew import measured_skew

        with exit_codes(debug=debug, as_json=as_json):
            if not 0.0 <= most <= 1.0:
                raise ValueError(f"--most must be a share from 0 to 1 (got {most})")
            folder = log or run / REQUEST_LOG
            progress = Console(quiet=quiet)
            found = measured_skew(
                run, open_catalogue(run), folder, most_answers=answers, release=release, progress=progress
            )
            skewed = any(each.beyond(most) for each in found)
            if as_json:
                rows = [each.to_dict() for each in found]
                typer.echo(json.dumps({"run": str(run), "most": most, "skewed": skewed, "releases": rows}, indent=2))
            else:
                typer.echo("\n\n".join(_table(each, most) for each in found))
            if skewed:
                raise typer.Exit(FAILED)


def _table(found: ReleaseSkew, most: float) -> str:
    head = f"{found.release}: {found.answers} answers, {found.pins} Pins"
    beyond = found.beyond(most)
    if not beyond:
        every = len(found.features), len(found.inputs), len(found.scores)
        return f"{head}; no skew in {every[0]} features, {every[1]} inputs and {every[2]} scores"
    kinds = {id(each): kind for kind in ("features", "inputs", "scores", "repeated") for each in getattr(found, kind)}
    rows: list[tuple[str, ...]] = [("differs", "", "rows", "share", "only served", "only trained", "largest", "mean")]
    rows += [_row(each, kinds[id(each)]) for each in beyond]
    return f"{head}\n{aligned(rows, width=terminal_width())}"


def _row(each: Difference, kind: str) -> tuple[str, ...]:
    kind = {"features": "feature", "inputs": "input", "scores": "score", "repeated": "score, same features"}[kind]
    counts = (f"{each.different}/{each.rows}", f"{each.share:.2%}", str(each.only_served), str(each.only_trained))
    return (each.name, kind, *counts, f"{each.max_absolute:.3g}", f"{each.mean_absolute:.3g}")
