"""Where operations on a run are done: in processes of their own, killed at a chosen moment where that is asked for."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.runs import ROOT
from tests.life.system.moments import Moment

KILLED = 77


@dataclass(frozen=True, kw_only=True)
class Done:
    """How an operation ended."""

    killed: bool
    code: int | None
    """Exit code of the command; none when it was killed."""
    out: str = ""
    err: str = ""
    result: Any = None
    moments: tuple[Moment, ...] = ()
    meanwhile: Done | None = None

    @property
    def json(self) -> Any:
        """What a command printed with `--json`."""
        return json.loads(self.out)


class Workshop:
    """The other end of `foreman.py`."""

    def __init__(self, folder: Path) -> None:
        self._answers, self._numbers = folder, itertools.count()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._log = (folder / "foreman.log").open("w")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.life.system.foreman"],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the foreman must get ready (got: {(folder / 'foreman.log').read_text()[-2000:]})")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def command(self, run: Path, *arguments: str, who: str = "alice", **asked: Any) -> Done:
        """Do a command of `headwater` on a run.

        Args:
            who: Operator.
            asked: `kill`, the number of the moment at which the process ends; `torn`, whether it leaves a file half
                written; `pause` and `meanwhile`, a moment and a request that is done there; `copies`, `every` and
                `offset`, a folder that the run is copied to at some moments; `environment`.
        """
        return self.perform(self.request(run, arguments, who, **asked))

    def call(self, run: Path, function: str, **arguments: Any) -> Done:
        """Call a function of `made.py` with the run and these arguments."""
        return self.called(run, function, arguments)

    def called(self, run: Path, function: str, arguments: Mapping[str, Any], **asked: Any) -> Done:
        """The same, killed or copied where that is asked for, as `command`."""
        named = {name: str(each) if isinstance(each, Path) else each for name, each in arguments.items()}
        request = self.request(run, (), "alice", **asked)
        return self.perform({**request, "call": function, "arguments": {"run": str(run), **named}})

    def request(
        self,
        run: Path,
        arguments: tuple[str, ...],
        who: str,
        environment: Mapping[str, str] | None = None,
        **asked: Any,
    ) -> dict[str, Any]:
        """A command as the foreman takes it."""
        answer = str(self._answers / f"answer-{next(self._numbers)}.json")
        command = [*arguments, "--run", str(run)]
        named = {"LOGNAME": who, "USER": who, **(environment or {})}
        return {"run": str(run), "command": command, "answer": answer, "environment": named, **asked}

    def perform(self, request: dict[str, Any]) -> Done:
        """Have a request done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return _done(json.loads(self._process.stdout.readline()), request)


def _done(answer: dict[str, Any], request: dict[str, Any]) -> Done:
    status = answer["status"]
    if status == KILLED:
        return Done(killed=True, code=None, meanwhile=_meanwhile(answer, request))
    if status != 0:
        subject, why = request.get("call") or request["command"], answer.get("failed", "no traceback")
        raise AssertionError(f"the process of {subject} must end with 0 or be killed (got {status}: {why})")
    if answer["code"] not in (0, 1, 2):
        raise AssertionError(f"{request['command']} must end with 0, 1 or 2 (got {answer['code']}: {answer['err']})")
    return Done(
        killed=False,
        code=answer["code"],
        out=answer["out"],
        err=answer["err"],
        result=answer["result"],
        moments=tuple((number, kind, subject) for number, kind, subject in answer["moments"]),
        meanwhile=_meanwhile(answer, request),
    )


def _meanwhile(answer: dict[str, Any], request: dict[str, Any]) -> Done | None:
    return None if answer["meanwhile"] is None else _done(answer["meanwhile"], request["meanwhile"])
