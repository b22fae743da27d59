"""How long one push takes until it is written online and offline: `make bench-push_latency ARGS="--run runs/demo"`.

By HTTP, inside the command, and by the command with its start: new users with one attribute, one after the other, into
every embedding version in use. A copy of the run takes them.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from feature_repo.contract import AttributeField, RepoManifest, attributes_view
from tests.benchmarks.figures.push_tables import BY_HTTP, PUSH
from tests.benchmarks.figures.results import RESULTS, ResultRow, check_finished, write_rows
from tests.feature_repo.stores.servers import free_port
from trainers.life.home import Home
from trainers.life.push import prepare, push_file
from trainers.life.push_rows import row_file
from trainers.progress import SILENT
from trainers.run_config import available_threads

FIRST_KEY = 10**12
READY_WITHIN_S = 600.0


def measure(run: Path, *, calls: int, starts: int, commit: str) -> list[ResultRow]:
    """A row for each way: the median, the 99th percentile and the first call, which loads what later ones use.

    Args:
        run: Run that keeps the pushed rows.
        calls: Pushes of each way but the last, after a first one.
        starts: Pushes by a command of their own, after a first one; 0 leaves that way out.
    """
    home = Home.of_run(run)
    prepare(home, (), SILENT)
    attribute = _attribute(home.manifest())
    ways: dict[str, Callable[[], list[float]]] = {
        BY_HTTP: lambda: _by_http(run, attribute, calls),
        "inside headwater push": lambda: _in_command(home, attribute, calls),
    }
    if starts:
        ways["headwater push, with its start"] = lambda: _by_command(run, attribute, starts)
    versions = home.manifest().embeddings
    common = {"dataset": home.manifest().dataset, "versions": len(versions), "dim": max(each.dim for each in versions)}
    rows = []
    for way, times in ways.items():
        load_before = os.getloadavg()[0]
        rows.append(_row({**common, "way": way, "load_average": round(load_before, 1)}, times(), commit))
    return rows


def _row(params: dict[str, str | int | float], taken_ms: list[float], commit: str) -> ResultRow:
    p50, p99 = np.percentile(taken_ms[1:], [50, 99])
    return ResultRow(
        name=PUSH,
        params={**params, "first_ms": round(taken_ms[0], 1), "p99_ms": round(float(p99), 1)},
        unit="ms",
        ours=round(float(p50), 1),
        spread=round(max(taken_ms[1:]) - min(taken_ms[1:]), 1),
        n=len(taken_ms) - 1,
        machine=f"{platform.machine()}, {available_threads()} threads, Python {platform.python_version()}",
        commit=commit,
    )


def _attribute(manifest: RepoManifest) -> dict[str, Any]:
    """A value of the first attribute of a user."""
    if not manifest.user_attributes:
        raise ValueError(f"{manifest.dataset} must have {attributes_view('user')} (got none); take another run")
    field: AttributeField = manifest.user_attributes[0]
    one: Any = {"int64": 1, "float": 1.0, "string": "new"}[field.type]
    return {field.name: [one] if field.kind == "multi_valued" else one}


def _timed(call: Callable[[int], None], number: int, first_key: int) -> list[float]:
    """Milliseconds of a first call and of so many more."""
    taken = []
    for position in range(number + 1):
        started = time.perf_counter()
        call(first_key + position)
        taken.append(1000 * (time.perf_counter() - started))
    return taken


def _by_http(run: Path, attribute: dict[str, Any], number: int) -> list[float]:
    token, port = secrets.token_urlsafe(32), free_port()
    environment = os.environ | {"HEADWATER_RUN": str(run), "HEADWATER_TOKEN": token, "HEADWATER_THREADS": "1"}
    command = [sys.executable, "-m", "uvicorn", "--factory", "serving.app:create_app", "--port", str(port)]
    with subprocess.Popen([*command, "--log-level", "error"], env=environment) as server:
        try:
            _wait(port)
            connection = http.client.HTTPConnection("127.0.0.1", port)

            def push(key: int) -> None:
                body = json.dumps({"entity": "user", "rows": [{"id": key, "attributes": attribute}]})
                connection.request("POST", "/v1/push", body, {"authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != http.client.OK:
                    raise RuntimeError(f"the server must take a push (got {answer.status}: {text!r})")

            return _timed(push, number, FIRST_KEY)
        finally:
            server.terminate()


def _wait(port: int) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"the server must be ready within {READY_WITHIN_S:g} s (port {port}); see its lines above")


def _in_command(home: Home, attribute: dict[str, Any], number: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:

        def push(key: int) -> None:
            path = Path(folder) / "rows.jsonl"
            path.write_text(json.dumps({"user_id": key} | attribute) + "\n")
            push_file(home, row_file(path, home.manifest(), "user"), (), SILENT)

        return _timed(push, number, FIRST_KEY + 10**6)


def _by_command(run: Path, attribute: dict[str, Any], number: int) -> list[float]:
    def push(key: int) -> None:
        line = json.dumps({"user_id": key} | attribute) + "\n"
        command = [sys.executable, "-m", "trainers.cli", "push", "--run", str(run), "--entity", "user", "--file", "-"]
        subprocess.run([*command, "-q"], input=line, text=True, check=True, capture_output=True)

    return _timed(push, number, FIRST_KEY + 2 * 10**6)


def main(
    run: Annotated[Path, typer.Option(help="Finished run; a copy of it takes the rows.")] = Path("runs/demo"),
    calls: Annotated[int, typer.Option(help="Pushes by HTTP, and inside the command.", min=2)] = 200,
    starts: Annotated[int, typer.Option(help="Pushes by a command each; 0 leaves them out.", min=0)] = 5,
    out: Annotated[Path, typer.Option(help="Folder of push_latency.json.")] = RESULTS,
) -> None:
    """Measure pushes and write tests/benchmarks/results/push_latency.json."""
    from trainers.evaluation.step import commit

    check_finished(run)
    with tempfile.TemporaryDirectory(prefix="bench_push_") as folder:
        copy = Path(shutil.copytree(run, Path(folder) / "run", symlinks=True))
        rows = measure(copy, calls=calls, starts=starts, commit=commit() or "unknown")
    for row in rows:
        typer.echo(f"{row.params['way']}: p50 {row.ours} ms, p99 {row.params['p99_ms']} ms, n {row.n}")
    typer.echo(f"wrote {write_rows(PUSH, rows, out)}")


if __name__ == "__main__":
    typer.run(main)
