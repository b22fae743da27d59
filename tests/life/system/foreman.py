"""A process that has imported everything and done nothing, and forks one that does each operation.

Requests are lines of JSON on standard input, answers on standard output; `workshop.py` is the other end. A forked
process has no thread of others, and ends as a killed one does: nothing that waits in `finally` runs.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import typeguard

# Feast checks the type of every argument of its constructors: two thirds of the time of a small operation.
typeguard.typechecked = lambda target=None, **_: target if target is not None else lambda each: each

from tests.life.system import made  # noqa: E402
from tests.life.system.moments import Moment, Moments, tear  # noqa: E402

KILLED = 77
PATIENCE_S = 20.0
"""How long one operator stands still: the other one may wait for what the first one holds."""
NO_PAUSE = -1, -1


def serve() -> None:
    """Answer requests until standard input ends."""
    made.prepare()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(_perform(json.loads(line))) + "\n")
        answers.flush()


def _perform(request: dict[str, Any]) -> dict[str, Any]:
    """Fork a process for an operation, and another one for what happens while the first one stands still."""
    paused, resume = os.pipe(), os.pipe()
    child = _forked(request, paused[1], resume[0])
    os.close(paused[1])
    meanwhile = None
    if os.read(paused[0], 1):
        other = _forked(request["meanwhile"], *NO_PAUSE)
        status = _status(other, PATIENCE_S)
        os.write(resume[1], b"g")
        # It took its turn behind the one that stood still.
        meanwhile = _answer(request["meanwhile"], _status(other) if status is None else status)
    answer = _answer(request, _status(child))
    for descriptor in (paused[0], *resume):
        os.close(descriptor)
    return {**answer, "meanwhile": meanwhile}


def _status(child: int, seconds: float = math.inf) -> int | None:
    """Exit status of a process; none when it has not ended within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def _answer(request: dict[str, Any], status: int | None) -> dict[str, Any]:
    answer = Path(request["answer"])
    found = json.loads(answer.read_text()) if answer.is_file() else {}
    answer.unlink(missing_ok=True)
    return {**found, "status": status, "meanwhile": None}


def _forked(request: dict[str, Any], paused: int, resume: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        code = _Child(request, paused, resume).run()
    except BaseException:
        Path(request["answer"]).write_text(json.dumps({"failed": traceback.format_exc()}))
    os._exit(code)


class _Child:
    """The forked process."""

    def __init__(self, request: dict[str, Any], paused: int, resume: int) -> None:
        self._request, self._paused, self._resume = request, paused, resume
        self._moments: list[Moment] = []
        self._copied = 0

    def run(self) -> int:
        request = self._request
        os.environ.update(request["environment"])
        Moments(Path(request["run"]), self._at).watch()
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            result = None
            if "call" in request:
                result = getattr(made, request["call"])(**request["arguments"])
            else:
                code = made.command(request["command"])
        found = {"code": code, "out": out.getvalue(), "err": err.getvalue(), "result": result}
        Path(request["answer"]).write_text(json.dumps({**found, "moments": list(self._moments)}))
        return 0

    def _at(self, moment: Moment) -> None:
        number, request = moment[0], self._request
        if moment[2] == request["answer"]:
            return
        self._moments.append(moment)
        if number == request.get("kill"):
            if request.get("torn"):
                tear(moment)
            os._exit(KILLED)
        if number == request.get("pause"):
            os.write(self._paused, b"p")
            os.read(self._resume, 1)
        if "copies" in request and number % request["every"] == request["offset"]:
            copy = Path(request["copies"]) / f"{number:04d}"
            shutil.copytree(request["run"], copy, symlinks=True, ignore_dangling_symlinks=True)


if __name__ == "__main__":
    serve()
