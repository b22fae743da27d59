"""What a person sees while a command works: steps, progress with time left, and messages, all on standard error.

On a terminal stages are bars; elsewhere they are plain lines, the first after two seconds and then one every ten.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trainers.markers import Marker
from trainers.progress import Progress, SilentProgress, Stage

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

FIRST_LINE_SECONDS = 2.0
NEXT_LINE_SECONDS = 10.0


def duration(seconds: float) -> str:
    """A duration as people say it: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def write_line(text: str) -> None:
    """Write one line on standard error, whatever stands for it now."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


class _PlainStage:
    def __init__(self, name: str, total: int | None, say: Callable[[str], None]) -> None:
        self._name = name
        self._total = total
        self._say = say
        self._num_done = 0
        self._started = time.monotonic()
        self._next_line = self._started + FIRST_LINE_SECONDS

    def advance(self, num_done: int = 1) -> None:
        self._num_done += num_done
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + NEXT_LINE_SECONDS
            self._say(f"  {self._name}: {self._state(now - self._started)}")

    def _state(self, seconds: float) -> str:
        if not self._total:
            return f"{self._num_done:,} in {duration(seconds)}"
        left = seconds / max(self._num_done, 1) * max(self._total - self._num_done, 0)
        return f"{self._num_done:,} of {self._total:,}, {duration(left)} left"


class PlainProgress:
    """Progress as lines, for logs and pipes."""

    def __init__(self, say: Callable[[str], None] = write_line) -> None:
        self._say = say

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage; nothing is written when it ends within two seconds."""
        yield _PlainStage(name, total, self._say)


class _BarStage:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def advance(self, num_done: int = 1) -> None:
        self._bars.advance(self._task, num_done)


class BarProgress:
    """Progress as bars on a terminal; stages inside stages stand below each other."""

    def __init__(self) -> None:
        self._bars: RichProgress | None = None

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage; its bar goes when it ends."""
        outermost = self._bars is None
        bars = self._bars = self._bars or _new_bars()
        if outermost:
            bars.start()
        task = bars.add_task(name, total=total)
        try:
            yield _BarStage(bars, task)
        finally:
            bars.remove_task(task)
            if outermost:
                bars.stop()
                self._bars = None


def _new_bars() -> RichProgress:
    from rich.console import Console as RichConsole
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(compact=True),
    )
    return RichProgress(*columns, console=RichConsole(stderr=True), transient=True)


class Console:
    """Standard error of one command."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._progress: Progress = SilentProgress() if quiet else _progress_for_stderr()

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Show a stage of a step."""
        with self._progress.stage(name, total) as stage:
            yield stage

    def say(self, text: str) -> None:
        """Show a line, unless the command is quiet."""
        if not self._quiet:
            write_line(text)

    def step_started(self, name: str, reason: str, position: int, num_steps: int) -> None:
        """Show that a step begins, and why it has to run."""
        self.say(f"[{position}/{num_steps}] {name} ({reason})")

    def step_finished(self, marker: Marker, *, ran: bool, position: int, num_steps: int) -> None:
        """Show what a step cost, or that it was complete already."""
        cost = f"done in {duration(marker.seconds)}, {marker.peak_mb:,.0f} MB" if ran else "up to date"
        self.say(f"[{position}/{num_steps}] {marker.step} {cost}")


def _progress_for_stderr() -> Progress:
    return BarProgress() if sys.stderr.isatty() else PlainProgress()


class _LineHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        write_line(self.format(record))


def configure_logging(*, debug: bool) -> None:
    """Send log records to standard error: warnings and worse, or everything of ours with `debug`."""
    handler = _LineHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("trainers", "feature_repo"):
        logging.getLogger(name).setLevel(logging.DEBUG if debug else logging.WARNING)
