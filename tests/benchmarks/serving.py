"""The server under load: `make bench-serving`.

Releases change while two processes answer, and every answer is compared with what each release answers alone.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tests.benchmarks.figures.results import RESULTS, ResultRow, write_rows
from tests.benchmarks.figures.serving_tables import PROMOTE
from tests.benchmarks.serving_load.made_run import Size
from tests.benchmarks.serving_load.promote import Found, Load, measure
from trainers.run_config import available_threads

SERVING = "serving"
ROOT = Path(__file__).parents[2]
CODE = ("serving", "feature_repo", "trainers/commands/serve.py", "tests/benchmarks/serving_load")
"""What the figures depend on."""


def result_row(load: Load, found: Found, *, machine: str, commit: str) -> ResultRow:
    """The figures of one measurement: seconds until the last request that the old release answered was sent."""
    first, last = found.first_s(), found.last_s()
    p50, p99 = np.percentile(found.outcomes.latency_ms, [50, 99])
    return ResultRow(
        name=PROMOTE,
        params={
            "corpus": load.size.pins,
            "dim": load.size.dim,
            "candidates": load.candidates,
            "rate": load.rate,
            "workers": load.workers,
            "changes": load.changes,
            "failed": found.failed,
            "mixed": found.mixed,
            "first_s": round(statistics.median(first), 3),
            "slowest_s": round(max(last), 3),
            "p50_ms": round(float(p50), 1),
            "p99_ms": round(float(p99), 1),
            "resident_growth_mb": round(found.resident_growth_mb(), 1),
            "handle_growth": found.handle_growth(),
        },
        unit="s",
        ours=round(statistics.median(last), 3),
        spread=round(max(last) - min(last), 3),
        peak_mb=round(found.peak_mb, 1),
        n=len(found.outcomes.due),
        machine=machine,
        commit=commit,
    )


def code_commit() -> str:
    """Last commit of the measured code, marked when it was changed since."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    asked = (["log", "-1", "--abbrev=12", "--format=%h"], ["status", "--porcelain"])
    last, changed = (
        subprocess.run([git, *words, "--", *CODE], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
        for words in asked
    )
    return f"{last or 'unknown'}{'-dirty' if changed else ''}"


def main(
    rate: Annotated[float, typer.Option(help="Requests a second.")] = 100.0,
    changes: Annotated[int, typer.Option(help="Promotions and rollbacks.", min=4)] = 20,
    candidates: Annotated[int, typer.Option(help="Pins that are ranked for a request.")] = 20,
    workers: Annotated[int, typer.Option(help="Processes of the server.", min=1)] = 2,
    pins: Annotated[int, typer.Option(help="Pins in the index.")] = 50_000,
    out: Annotated[Path, typer.Option(help="Folder of serving.json.")] = RESULTS,
) -> None:
    """Measure the server and write tests/benchmarks/results/serving.json."""
    load = Load(size=Size(pins=pins), rate=rate, changes=changes, candidates=candidates, workers=workers)
    machine = f"{platform.machine()}, {available_threads()} threads, Python {platform.python_version()}"
    with tempfile.TemporaryDirectory(prefix="bench_serving_") as folder:
        found = measure(Path(folder), load)
    row = result_row(load, found, machine=machine, commit=code_commit())
    out.mkdir(parents=True, exist_ok=True)
    typer.echo(f"wrote {write_rows(SERVING, [row], out)}")
    if found.failed or found.mixed:
        raise SystemExit(f"every request must be answered by one release ({found.failed} failed, {found.mixed} mixed)")


if __name__ == "__main__":
    typer.run(main)
