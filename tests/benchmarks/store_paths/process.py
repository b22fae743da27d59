"""Worker processes as the benchmark sees them: asked for repetitions, and stopped above a limit of memory or time."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.benchmarks.store_paths.worker import Repetition, Setup

_POLL_S = 0.05
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
_LOG_CHARACTERS = 2000
_ROOT = Path(__file__).parents[3]
_KILLED = -9


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a repetition may take."""

    memory_gb: float
    """Resident memory, GiB."""
    seconds: float


class StoppedError(RuntimeError):
    """A way did not get to the end: it went over a limit, or failed at this size; the text says which and why."""


class Worker:
    """One way in a process of its own, ready to repeat.

    Raises:
        StoppedError: Setting up went over a limit.
        RuntimeError: It failed; the text has the end of its log.
    """

    def __init__(self, path: str, variant: str, setup: Setup, limits: Limits) -> None:
        self._limits, self._log = limits, setup.folder.with_suffix(".log")
        setup.folder.mkdir(parents=True)
        read, write = os.pipe()
        given = json.dumps(asdict(setup), default=str)
        command = [sys.executable, "-m", "tests.benchmarks.store_paths.worker", path, variant, given, str(write)]
        # What libraries leave in the temporary folder goes with the files of the case.
        environment = {**os.environ, "TMPDIR": str(setup.folder)}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[write],
                cwd=_ROOT,
                env=environment,
                text=True,
            )
        os.close(write)
        self._replies = os.fdopen(read)
        self._reply()

    def repeat(self, number: int) -> Repetition:
        """One repetition.

        Raises:
            StoppedError: It went over a limit or failed, and the process is gone.
            RuntimeError: The process ended without a word.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        reply = self._reply()
        if "failed" in reply:
            self._stop(f"fails: {reply['failed']}")
        return Repetition(**reply)

    def _reply(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._limits.seconds
        while not select.select([self._replies], [], [], _POLL_S)[0]:
            if self._resident_mb() > self._limits.memory_gb * 1024:
                self._stop(f"killed at {self._limits.memory_gb:g} GB")
            if time.monotonic() > deadline:
                self._stop(f"stopped after {self._limits.seconds:g} s")
        line = self._replies.readline()
        if not line:
            self._raise_for_end()
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _stop(self, reason: str) -> None:
        self._process.kill()
        self._process.wait()
        raise StoppedError(reason)

    def _raise_for_end(self) -> None:
        code = self._process.wait()
        if code == _KILLED:
            raise StoppedError("killed by the system, out of memory")
        raise RuntimeError(f"a way must end well (got exit code {code}):\n{_told(self._log.read_text())}")

    def _resident_mb(self) -> float:
        try:
            return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * _PAGE_MB
        except (OSError, IndexError):
            return 0.0

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._replies.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _told(log: str) -> str:
    """The end of what a process said, without the lists of leaks by which extension modules take their leave."""
    lines = [line for line in log.splitlines() if not line.startswith(("nanobind:", " - leaked", " - ... skipped"))]
    return "\n".join(lines)[-_LOG_CHARACTERS:]
