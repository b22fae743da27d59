"""The request log of one process: a bounded queue, and a thread that turns what is in it into files.

Whoever answers only puts a reference into the queue; when that is full the answer is dropped and counted. A folder that
cannot be written makes no answer fail either: what was taken is kept up to a bound and tried again.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from serving.metrics import Metrics
from serving.monitoring.served import Served
from serving.request_log.files import write_answers
from serving.request_log.rows import LoggedAnswer, logged

logger = logging.getLogger(__name__)

KEPT_FILES = 4
"""Files' worth of rows that are kept while the folder cannot be written; older answers are dropped and counted."""
LONGEST_RETRY_S = 5.0
"""Pause before a folder that could not be written is tried again, or less where files are rolled sooner."""
STOP_PATIENCE_S = 20.0
"""How long a shutdown waits for the last file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig:
    """How a request log is written."""

    folder: Path
    share: float
    """Share of the answers that is logged, above 0, at most 1."""
    capacity: int
    """Answers that may wait for the thread."""
    roll_rows: int
    """Rows of Pins after which a file is written."""
    roll_seconds: float
    """Seconds after which a file is written, counted from its first answer."""


class RequestLog:
    """Takes answers and writes them; one per process."""

    def __init__(self, config: LogConfig, metrics: Metrics) -> None:
        self._config, self._metrics = config, metrics
        self._waiting: queue.Queue[Served | None] = queue.Queue(config.capacity)
        self._stopping = threading.Event()
        self._kept: deque[LoggedAnswer] = deque()
        self._kept_rows = 0
        self._roll_at = 0.0
        self._writer, self._number = uuid.uuid4().hex[:12], 0
        self._failed: str | None = None
        self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        logger.info("event=request_log folder=%s share=%s", self._config.folder, self._config.share)
        self._thread.start()

    def stop(self) -> None:
        """Write what was taken, then end; what cannot be written by then is dropped and counted."""
        self._stopping.set()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(STOP_PATIENCE_S)

    def offer(self, served: Served) -> None:
        """Take the share of the answers that is logged; what finds the queue full is dropped and counted."""
        if random.random() >= self._config.share:
            return
        try:
            self._waiting.put_nowait(served)
        except queue.Full:
            self._metrics.logged.labels("dropped").inc()

    def _work(self) -> None:
        while not self._stopping.is_set():
            self._take(self._next())
            self._roll_when_due()
        while not self._waiting.empty():
            self._take(self._waiting.get_nowait())
            self._roll_when_due()
        self._roll()
        if self._kept:
            self._metrics.logged.labels("dropped").inc(len(self._kept))

    def _next(self) -> Served | None:
        """What waits; none when a file is to be written first."""
        pause = self._roll_at - time.monotonic() if self._kept else None
        with suppress(queue.Empty):
            return self._waiting.get(timeout=None if pause is None else max(pause, 0.0))
        return None

    def _roll_when_due(self) -> None:
        if self._kept_rows >= self._config.roll_rows or self._due():
            self._roll()

    def _due(self) -> bool:
        return bool(self._kept) and time.monotonic() >= self._roll_at

    def _take(self, served: Served | None) -> None:
        self._metrics.log_queue.set(self._waiting.qsize())
        if served is None:
            return
        try:
            answer = logged(served, self._config.share)
        except Exception as error:
            self._metrics.logged.labels("dropped").inc()
            logger.error("event=request_log_refused request_id=%s reason=%r", served.request_id, error)
            return
        if not self._kept:
            self._roll_at = time.monotonic() + self._config.roll_seconds
        self._kept.append(answer)
        self._kept_rows += _rows(answer)
        while self._kept_rows > KEPT_FILES * self._config.roll_rows and len(self._kept) > 1:
            self._kept_rows -= _rows(self._kept.popleft())
            self._metrics.logged.labels("dropped").inc()

    def _roll(self) -> None:
        """Write what is kept; what cannot be written stays kept until the next try."""
        if self._failed is not None and not self._due() and not self._stopping.is_set():
            return
        for answers in _by_file(self._kept):
            try:
                size = write_answers(self._config.folder, answers, self._writer, self._number)
            except Exception as error:
                self._fail(error)
                return
            self._wrote(answers, size)

    def _wrote(self, answers: Sequence[LoggedAnswer], size: int) -> None:
        written = set(map(id, answers))
        self._kept = deque(each for each in self._kept if id(each) not in written)
        self._kept_rows = sum(map(_rows, self._kept))
        self._number += 1
        self._metrics.logged.labels("written").inc(len(answers))
        self._metrics.log_bytes.inc(size)
        self._metrics.log_failing.set(0)
        if self._failed is not None:
            logger.warning("event=request_log_recovered folder=%s", self._config.folder)
            self._failed = None

    def _fail(self, error: Exception) -> None:
        self._roll_at = time.monotonic() + min(self._config.roll_seconds, LONGEST_RETRY_S)
        self._metrics.log_failures.inc()
        self._metrics.log_failing.set(1)
        reason = f"{type(error).__name__}: {error}"
        if reason != self._failed:
            folder, kept = self._config.folder, len(self._kept)
            logger.error("event=request_log_failed folder=%s kept=%d reason=%s", folder, kept, reason)
            self._failed = reason


def _rows(answer: LoggedAnswer) -> int:
    """Rows that count towards a file; an answer without Pins is a row as well."""
    return max(1, int(answer.pins.num_rows))


def _by_file(answers: Sequence[LoggedAnswer]) -> Iterator[list[LoggedAnswer]]:
    """Answers of one hour and release together, in the order in which they were taken."""
    ordered = sorted(answers, key=lambda each: (each.hour, each.release))
    for _, group in groupby(ordered, key=lambda each: (each.hour, each.release)):
        yield list(group)
