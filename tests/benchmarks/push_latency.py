"""How long one push takes: by HTTP, inside the command, and by the command with its start, on a run of one's own.

    python -m tests.benchmarks.push_latency --run runs/demo --calls 200

New users with one attribute are pushed into every embedding version in use. The run keeps them: take a copy.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from feature_repo.contract import AttributeField, RepoManifest, attributes_view
from trainers.life.home import Home
from trainers.life.push import prepare, push_file
from trainers.life.push_rows import row_file
from trainers.progress import SILENT

FIRST_KEY = 10**12
PORT = 18_431


def main() -> None:
    """Print p50, p99 and the first call of each way, in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--starts", type=int, default=5)
    given = parser.parse_args()
    home = Home.of_run(given.run)
    prepare(home, (), SILENT)
    attribute = _attribute(home.manifest())
    figures: dict[str, Any] = {"load_average": os.getloadavg()[0]}
    figures |= {"http": _by_http(given.run, attribute, given.calls)}
    figures |= {"in_command": _in_command(home, attribute, given.calls)}
    figures |= {"command": _by_command(given.run, attribute, given.starts)}
    print(json.dumps(figures, indent=1))


def _attribute(manifest: RepoManifest) -> dict[str, Any]:
    """A value of the first attribute of a user."""
    if not manifest.user_attributes:
        raise ValueError(f"{manifest.dataset} must have {attributes_view('user')} (got none); take another run")
    field: AttributeField = manifest.user_attributes[0]
    one: Any = {"int64": 1, "float": 1.0, "string": "new"}[field.type]
    return {field.name: [one] if field.kind == "multi_valued" else one}


def _timed(call: Callable[[int], None], number: int, first_key: int) -> dict[str, float]:
    """Milliseconds of so many calls, the first one apart."""
    taken = []
    for position in range(number + 1):
        started = time.perf_counter()
        call(first_key + position)
        taken.append(1000 * (time.perf_counter() - started))
    p50, p99 = np.percentile(taken[1:], [50, 99])
    return {"calls": number, "p50_ms": round(p50, 1), "p99_ms": round(p99, 1), "first_ms": round(taken[0], 1)}


def _by_http(run: Path, attribute: dict[str, Any], number: int) -> dict[str, float]:
    token = secrets.token_urlsafe(32)
    environment = os.environ | {"HEADWATER_RUN": str(run), "HEADWATER_TOKEN": token, "HEADWATER_THREADS": "1"}
    command = [sys.executable, "-m", "uvicorn", "--factory", "serving.app:create_app", "--port", str(PORT)]
    with subprocess.Popen([*command, "--log-level", "error"], env=environment) as server:
        try:
            _wait()
            connection = http.client.HTTPConnection("127.0.0.1", PORT)

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


def _wait() -> None:
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(f"the server must be ready on port {PORT} within two minutes")


def _in_command(home: Home, attribute: dict[str, Any], number: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:

        def push(key: int) -> None:
            path = Path(folder) / "rows.jsonl"
            path.write_text(json.dumps({"user_id": key} | attribute) + "\n")
            push_file(home, row_file(path, home.manifest(), "user"), (), SILENT)

        return _timed(push, number, FIRST_KEY + 10**6)


def _by_command(run: Path, attribute: dict[str, Any], number: int) -> dict[str, float]:
    def push(key: int) -> None:
        line = json.dumps({"user_id": key} | attribute) + "\n"
        command = [sys.executable, "-m", "trainers.cli", "push", "--run", str(run), "--entity", "user", "--file", "-"]
        subprocess.run([*command, "-q"], input=line, text=True, check=True, capture_output=True)

    return _timed(push, number, FIRST_KEY + 2 * 10**6)


if __name__ == "__main__":
    main()
