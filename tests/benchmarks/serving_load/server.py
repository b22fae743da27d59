"""A server of several processes, and what they hold: memory, file handles, mapped files."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
START_PATIENCE_S, STOP_PATIENCE_S = 150.0, 60.0
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_COMMAND = """
import sys
from trainers.cli import main
main()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What one process holds."""

    resident_mb: float
    handles: int
    """Open files and sockets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A running `headwater serve`."""

    port: int
    supervisor: int
    """Process id of the one that was started."""

    def workers(self) -> list[int]:
        """Process ids of those that answer: the started one itself where it has no children that do."""
        children = [pid for pid in _children(self.supervisor) if "resource_tracker" not in _command_line(pid)]
        return children or [self.supervisor]

    def held(self) -> dict[int, Held]:
        """What each worker holds now, by process id."""
        return {pid: _held(pid) for pid in self.workers()}

    def cpu_s(self) -> float:
        """Seconds of CPU that all workers have taken so far."""
        return sum(_cpu_s(pid) for pid in self.workers())


@contextmanager
def serving(run: Path, port: int, *, workers: int, settings: Mapping[str, str], log: Path) -> Iterator[Server]:
    """`headwater serve` on a run, once every process of it is ready.

    Args:
        settings: Environment variables of the server.
        log: File for what it says.

    Raises:
        RuntimeError: It did not become ready; the text has the end of its log.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    command = [sys.executable, "-c", _COMMAND, "serve", "--run", str(run), "--port", str(port)]
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--workers", str(workers)], env=environment, stdout=file, stderr=file)
    try:
        _wait_for(process, port, log, workers)
        yield Server(port=port, supervisor=process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path, workers: int) -> None:
    """Until each process has said that it is up, and one answers."""
    deadline = time.monotonic() + START_PATIENCE_S
    while log.read_text().count("Application startup complete") < workers or not _ready(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server must become ready (it did not); its log ends:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def _ready(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


def _held(pid: int) -> Held:
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_MB
    return Held(resident_mb=resident, handles=len(list(Path(f"/proc/{pid}/fd").iterdir())))


def _cpu_s(pid: int) -> float:
    # The second field, a name in brackets, may hold blanks; user and system time are the 14th and 15th.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S
