"""Process of one way: sets up, then repeats on command and says how long it took and how much memory it held.

`python -m tests.benchmarks.store_paths.worker PATH VARIANT SETUP REPLIES`: SETUP is JSON, REPLIES a file descriptor.
Every line on standard input is a repetition; the first reply says that the way is set up.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a way is given."""

    folder: Path
    """Its own, empty."""
    data: Path
    """Parquet files that all ways of a case read."""
    params: dict[str, Any]
    """Sizes of the case."""
    redis_port: int
    """Where a Redis-compatible server listens; 0 when the case needs none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repetition:
    """What one repetition took."""

    seconds: list[float]
    """Of the whole, or of every call."""
    answer: dict[str, float]
    """Figures of the result that all ways of a case must agree on."""
    peak_mb: float = 0.0
    """Highest resident memory of the process during it, MiB."""


class Way(Protocol):
    """One way to do the work of a case."""

    def repeat(self, number: int) -> Repetition:
        """Do it once more; what must be put in order before is not in the time."""
        ...


def main(path: str, variant: str, setup: str, replies: str) -> None:
    """Serve repetitions until standard input ends."""
    given = json.loads(setup)
    with os.fdopen(int(replies), "w") as out:
        module = importlib.import_module(f"tests.benchmarks.store_paths.{path}")
        given |= {name: Path(given[name]) for name in ("folder", "data")}
        way: Way = module.WAYS[variant](Setup(**given))
        _release()
        # A server does the same after start-up; without it the tail of every way is Python's collector.
        gc.freeze()
        _reply(out, {})
        for line in sys.stdin:
            _forget_peak()
            try:
                repetition = way.repeat(int(line))
            except Exception as error:
                traceback.print_exc()
                _reply(out, {"failed": _reason(error)})
                return
            _reply(out, {**asdict(repetition), "peak_mb": _peak_mb()})
            _release()


def _reply(out: Any, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()


def _reason(error: Exception) -> str:
    """What an error says, in one line; gRPC puts that into the middle of many."""
    details = getattr(error, "details", None)
    text = str(details() if callable(details) else error)
    return " ".join(text.split()) or type(error).__name__


def _release() -> None:
    """Give memory that is not used back to the system, so that idle processes do not hold it."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _forget_peak() -> None:
    """Let the highest resident memory be counted anew, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
