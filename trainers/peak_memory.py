"""Highest resident memory of this process and its workers during one step."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_STATM = Path("/proc/self/statm")
_MEGABYTE = 1024 * 1024
SAMPLING_SHARE = 0.01
"""Share of the time that may be spent on sampling."""


def high_water_mb() -> float:
    """Highest resident memory since the process started, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MEGABYTE if sys.platform == "darwin" else peak / 1024


def resident_mb() -> float:
    """Resident memory now, workers included, in MiB; the high-water mark where the system has no /proc."""
    if not _STATM.exists():
        return high_water_mb()
    workers = _workers()
    if workers:
        return sum(_proportional_mb(process) for process in (str(os.getpid()), *workers))
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MEGABYTE


def _workers() -> list[str]:
    """Processes that this one's main thread started."""
    file = Path(f"/proc/self/task/{os.getpid()}/children")
    return file.read_text().split() if file.exists() else []


def _proportional_mb(process: str) -> float:
    """Resident memory of a process in MiB, pages shared with others counted in part: forked workers share most."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


class PeakMemory:
    """Context in which the peak is watched.

    The kernel's own mark only rises over a process's life, so it is exact for a step that sets a new record;
    the others are sampled, and a spike shorter than the interval may be missed.
    """

    def __init__(self, interval_seconds: float = 0.2) -> None:
        self._interval_seconds = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)
        self._high_water_before_mb = high_water_mb()
        self._sampled_mb = resident_mb()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sampled_mb = max(self._sampled_mb, resident_mb())

    @property
    def peak_mb(self) -> float:
        """Peak so far, in MiB."""
        high_water = high_water_mb()
        return max(high_water, self._sampled_mb) if high_water > self._high_water_before_mb else self._sampled_mb

    def _sample(self) -> None:
        pause = self._interval_seconds
        while not self._stop.wait(pause):
            started = time.perf_counter()
            self._sampled_mb = max(self._sampled_mb, resident_mb())
            # The kernel counts every page of a worker, and holds up its page faults meanwhile.
            pause = max(self._interval_seconds, (time.perf_counter() - started) / SAMPLING_SHARE)
