"""The server under load: `make bench-serving`.

Each route is asked at a constant rate, on a made corpus and on trained runs (`ARGS="--run runs/kuairand"`), beside
`feast serve` and faiss; and releases change while two processes answer, with every answer compared with what each
release answers alone. Each figure is kept as soon as it is measured: run again after a kill, the benchmark goes on.
"""

from __future__ import annotations

import json
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from tests.benchmarks.figures.results import RESULTS, ResultRow, write_rows
from tests.benchmarks.figures.serving_tables import PROMOTE
from tests.benchmarks.serving_load.corpora import REDIS, made_corpus, trained_corpus
from tests.benchmarks.serving_load.journal import Journal
from tests.benchmarks.serving_load.made_run import Size
from tests.benchmarks.serving_load.promote import Found, Load, measure
from tests.benchmarks.serving_load.rates import PERCENTILES
from tests.benchmarks.serving_load.routes import Bench, RouteLoad, measure_routes, subject_of
from trainers.run_config import available_threads

SERVING = "serving"
ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".cache" / "bench_serving"
"""Figures of a benchmark that is not done."""
CODE = ("serving", "feature_repo", "trainers/commands/serve.py", "tests/benchmarks/serving_load")
"""What the figures depend on."""


def result_row(load: Load, found: Found, *, machine: str, commit: str) -> ResultRow:
    """The figures of one measurement: seconds until the last request that the old release answered was sent."""
    first, last = found.first_s(), found.last_s()
    latency = found.outcomes.latency_ms
    percentiles = {f"p{each:g}_ms": round(float(np.percentile(latency, each)), 1) for each in PERCENTILES}
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
            **percentiles,
            "max_ms": round(float(latency.max()), 1),
            "cpu_ms": round(found.cpu_ms, 2),
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
    candidates: Annotated[int, typer.Option(help="Pins that are ranked for a request while releases change.")] = 20,
    workers: Annotated[int, typer.Option(help="Processes of the server.", min=1)] = 2,
    pins: Annotated[int, typer.Option(help="Pins in the index while releases change.")] = 50_000,
    only: Annotated[str, typer.Option(help="`promote`, `routes` or both.")] = "both",
    made_pins: Annotated[int, typer.Option(help="Pins of the made corpus; 0 leaves it out.")] = 1_000_000,
    made_users: Annotated[int, typer.Option(help="Users of the made corpus.")] = 1_000_000,
    requests: Annotated[int, typer.Option(help="Requests of /v1/recommend at the rate, for each corpus.")] = 100_000,
    other_requests: Annotated[int, typer.Option(help="Requests of each other route.")] = 12_500,
    seconds: Annotated[float, typer.Option(help="Length of each step to the highest rate.")] = 5.0,
    run: Annotated[list[Path] | None, typer.Option(help="Trained run to serve too; may be repeated.")] = None,
    store: Annotated[str, typer.Option(help="Online store of those runs: `redis`, or `own`, what each has.")] = REDIS,
    again: Annotated[bool, typer.Option("--again", help="Measure also what is measured already.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of serving.json.")] = RESULTS,
) -> None:
    """Measure the server and write tests/benchmarks/results/serving.json; rows that were not measured stay."""
    # Otherwise servers would outlive a benchmark that is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended; run again to go on"))
    machine = f"{platform.machine()}, {available_threads()} threads, Python {platform.python_version()}"
    commit = code_commit()
    journal = Journal(KEPT if out == RESULTS else out / "kept", commit)
    if again:
        journal.forget()
    problem = ""
    with tempfile.TemporaryDirectory(prefix="bench_serving_") as folder:
        if only != "routes":
            load = Load(size=Size(pins=pins), rate=rate, changes=changes, candidates=candidates, workers=workers)
            found = measure(Path(folder), load)
            _write([result_row(load, found, machine=machine, commit=commit)], out)
            if found.failed or found.mixed:
                problem = f"{found.failed} failed, {found.mixed} mixed"
        if only != "promote":
            routes = RouteLoad(
                rate=rate, requests=requests, other_requests=other_requests, step_seconds=seconds, workers=workers
            )
            bench = Bench(folder=Path(folder), journal=journal, say=_say, machine=machine, commit=commit)
            size = Size(pins=made_pins, users=made_users, clusters=max(1, made_pins // 200), versions=1, hidden=512)
            _measure_runs(bench, run or [], store, routes, out)
            _measure_made(bench, size, routes, out)
    journal.forget()
    if problem:
        raise SystemExit(f"every request must be answered by one release ({problem})")


def _measure_runs(bench: Bench, runs: Sequence[Path], store: str, load: RouteLoad, out: Path) -> None:
    for each in runs:
        _say(f"run {each}, store {store}")
        with trained_corpus(each, bench.folder, store) as corpus:
            _write(measure_routes(corpus, load, bench), out)


def _measure_made(bench: Bench, size: Size, load: RouteLoad, out: Path) -> None:
    if size.pins:
        made = bench.journal.once([*subject_of("made", str(size), load), "rows"], lambda: _made_rows(bench, size, load))
        _write([ResultRow.model_validate(row) for row in made], out)


def _made_rows(bench: Bench, size: Size, load: RouteLoad) -> list[dict[str, Any]]:
    _say(f"making {size.pins:,} Pins and {size.users:,} users")
    with made_corpus(bench.folder, size) as corpus:
        return [row.model_dump(mode="json", exclude_none=True) for row in measure_routes(corpus, load, bench)]


def _write(rows: Sequence[ResultRow], out: Path) -> None:
    """Put rows into the file in the place of older ones."""
    out.mkdir(parents=True, exist_ok=True)
    _say(f"wrote {write_rows(SERVING, merged_rows(rows, out), out)}")


def _say(text: str) -> None:
    typer.echo(f"{datetime.now(UTC):%H:%M:%S} {text}")


def merged_rows(rows: Sequence[ResultRow], folder: Path) -> list[ResultRow]:
    """New rows, after those of the file that they do not replace."""
    new = {_subject(row) for row in rows}
    file = folder / f"{SERVING}.json"
    held = [ResultRow.model_validate(row) for row in json.loads(file.read_text())] if file.is_file() else []
    return [*(row for row in held if _subject(row) not in new), *rows]


def _subject(row: ResultRow) -> tuple[str, str, str]:
    return row.name, str(row.params.get("dataset", "")), str(row.params.get("store", ""))


if __name__ == "__main__":
    typer.run(main)
