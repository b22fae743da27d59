"""Our stores against Feast's own and against the raw clients: `make bench-stores`.

Every way to do the same work has a process of its own, and they take turns. A row is written as soon as its case is
done; run again, the benchmark goes on after the last repetition. A way of others that goes over a limit, or fails at
this size, is not tried again, and the row says why.
"""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tests.benchmarks.figures.results import RESULTS, ResultRow, write_rows
from tests.benchmarks.store_paths.journal import Journal
from tests.benchmarks.store_paths.plan import NAMES, Case, cases
from tests.benchmarks.store_paths.process import Limits
from tests.benchmarks.store_paths.runner import Run, run_case
from tests.benchmarks.store_paths.summary import identities, result_rows
from trainers.run_config import available_threads

STORES = "stores"
MIN_REPEATS = 5
ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".cache" / "bench_stores"
"""Repetitions of cases that are not done."""


class Figures:
    """The rows of `stores.json`, written again whenever one is added."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / f"{STORES}.json"
        stored = json.loads(path.read_text()) if path.exists() else []
        self.rows = [ResultRow.model_validate(row) for row in stored]

    def has(self, case: Case, repeats: int, commit: str) -> bool:
        """Whether all rows of a case are there, of this commit."""
        current = [row for row in self.rows if row.commit == commit]
        return all(any(_is_row(row, *each) for row in current) for each in identities(case, repeats))

    def put(self, case: Case, repeats: int, found: Sequence[ResultRow]) -> None:
        """Put rows of a case in the place of older ones."""
        wanted = identities(case, repeats)
        self.rows = [row for row in self.rows if not any(_is_row(row, *each) for each in wanted)]
        self.rows = sorted([*self.rows, *found], key=lambda row: NAMES.index(row.name))
        self._folder.mkdir(parents=True, exist_ok=True)
        write_rows(STORES, self.rows, self._folder)


def _is_row(row: ResultRow, name: str, params: dict[str, str | int | float]) -> bool:
    return row.name == name and params.items() <= row.params.items()


def code_commit(case: Case) -> str:
    """Last commit that changed what a case measures, marked when it was changed since; other commits do not count."""
    last = _git("log", "-1", "--abbrev=12", "--format=%h", "--", *case.code)
    if not last:
        return "unknown"
    return last + ("-dirty" if _git("status", "--porcelain", "--", *case.code) else "")


def _git(*words: str) -> str:
    git = shutil.which("git")
    if git is None:
        return ""
    done = subprocess.run([git, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def chosen(only: str, scale: float) -> list[Case]:
    """Cases with rows of the names, and of the store where one is given as `name:store`.

    Raises:
        typer.BadParameter: A name is none of a row.
    """
    if not only:
        return cases(scale)
    pairs = [each.strip().partition(":")[::2] for each in only.split(",")]
    unknown = [name for name, _ in pairs if name not in NAMES]
    if unknown:
        raise typer.BadParameter(
            f"--only must be names out of {', '.join(NAMES)}, as in materialize:redis (got {only})"
        )
    return [
        case
        for case in cases(scale)
        if any(case.answers(frozenset([name])) and store in ("", case.params["store"]) for name, store in pairs)
    ]


def main(
    only: Annotated[str, typer.Option(help="Names of rows, such as materialize,read_matrix:redis; all if none.")] = "",
    scale: Annotated[
        float, typer.Option(help="Multiplies rows, entities and calls; 1 is the size of the goals.")
    ] = 1.0,
    repeat: Annotated[int, typer.Option(help="Repetitions.", min=1)] = MIN_REPEATS,
    minutes: Annotated[float, typer.Option(help="Begin no repetition after so many minutes.")] = 1e6,
    stock_limit_gb: Annotated[float, typer.Option(help="Resident memory at which a way is stopped.")] = 12.0,
    stock_limit_s: Annotated[float, typer.Option(help="Seconds after which a repetition is stopped.")] = 580.0,
    again: Annotated[bool, typer.Option("--again", help="Measure also what is measured already.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of stores.json.")] = RESULTS,
) -> None:
    """Measure the stores and write tests/benchmarks/results/stores.json."""
    if scale != 1.0 and out == RESULTS:
        raise typer.BadParameter("--scale other than 1 must go to a folder of its own; add --out FOLDER")
    # Otherwise servers and files would outlive a benchmark that is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended; run again to go on"))
    deadline = time.monotonic() + 60 * minutes
    limits = Limits(memory_gb=stock_limit_gb, seconds=stock_limit_s)
    figures = Figures(out)
    machine = f"{platform.machine()}, {available_threads()} threads, Python {platform.python_version()}"
    for case in chosen(only, scale):
        commit = code_commit(case)
        if not again and figures.has(case, repeat, commit):
            typer.echo(f"{case.title}: measured already")
            continue
        journal = Journal(KEPT if out == RESULTS else out / "kept", case, commit)
        if again:
            journal.forget()
        _measure(case, journal, repeat, limits, deadline)
        found = result_rows(case, journal.measured, repeats=repeat, machine=machine, commit=commit)
        figures.put(case, repeat, found)
        journal.forget()
        typer.echo(f"{case.title}: wrote {len(found)} rows")


def _measure(case: Case, journal: Journal, repeats: int, limits: Limits, deadline: float) -> None:
    with tempfile.TemporaryDirectory(prefix="bench_stores_") as folder:
        run = Run(
            folder=Path(folder) / "case",
            repeats=repeats,
            limits=limits,
            say=typer.echo,
            has_time=lambda: time.monotonic() < deadline,
        )
        if not run_case(case, journal, run):
            raise SystemExit(f"{case.title}: out of time; run again to go on")


if __name__ == "__main__":
    typer.run(main)
