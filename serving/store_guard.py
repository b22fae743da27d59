"""Reads of the online store that end in time, and a store that failed left alone for a moment.

Without that, every request would wait for a store that hangs, and none would be left to answer from what the process
has in memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Literal, TypeVar

from feature_repo.stores.online.deadline import seconds_left

logger = logging.getLogger(__name__)

T = TypeVar("T")
Reason = Literal["deadline", "store_timeout", "store_unavailable"]

PAUSE_S = 0.2
"""For which a store that failed is not asked; then one read tries it."""
LONGEST_TRY_S = 1.0
"""After which another read tries, though the one before has not ended."""
PATIENCE_S = 0.05
"""A store that had less time than this is not to blame for a timeout."""
MOST_ABANDONED = 32
"""Reads of a store without deadlines that may still hang in threads of their own."""


class StoreDownError(Exception):
    """Features could not be read, or not in time."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason


class StoreGuard:
    """Guards one store; safe to use from many threads.

    Args:
        keeps_deadlines: Whether the store itself ends its reads in time; those of others are abandoned.
    """

    def __init__(self, *, keeps_deadlines: bool) -> None:
        self._keeps_deadlines = keeps_deadlines
        self._changing = threading.Lock()
        self._failed: StoreDownError | None = None
        self._next_try = 0.0
        self._threads = threading.BoundedSemaphore(MOST_ABANDONED)

    def __call__(self, read: Callable[[], T]) -> T:
        """What a read gives.

        Raises:
            StoreDownError: It failed, was not over in time, or the store failed a moment ago.
        """
        self._enter()
        allowed = seconds_left()
        try:
            found = read() if self._keeps_deadlines or allowed is None else self._in_thread(read, allowed)
        except (ValueError, TypeError, KeyError):
            # A fault of the request or of ours, which says nothing about the store.
            raise
        except Exception as error:
            raise self._down(error, allowed) from error
        self._failed = None
        return found

    def _enter(self) -> None:
        failed = self._failed
        if failed is None:
            return
        with self._changing:
            now = time.monotonic()
            if self._failed is not None and now < self._next_try:
                raise StoreDownError(failed.reason, str(failed))
            # Nobody else tries while this read does, unless its caller has patience for more than others should need.
            self._next_try = now + max(PAUSE_S, min(seconds_left() or 0.0, LONGEST_TRY_S))

    def _down(self, error: Exception, allowed: float | None) -> StoreDownError:
        slow = isinstance(error, TimeoutError) or type(error).__name__ == "OnlineStoreTimeoutError"
        text = f"{type(error).__name__}: {error}"
        if slow and allowed is not None and allowed < PATIENCE_S:
            return StoreDownError("deadline", text)
        down = StoreDownError("store_timeout" if slow else "store_unavailable", text)
        with self._changing:
            if self._failed is None:
                logger.error("event=store_failed reason=%s error=%s", down.reason, text)
            self._failed, self._next_try = down, time.monotonic() + PAUSE_S
        return down

    def _in_thread(self, read: Callable[[], T], allowed: float) -> T:
        if not self._threads.acquire(blocking=False):
            raise TimeoutError(f"{MOST_ABANDONED} earlier reads hang")
        outcome: list[T | BaseException] = []
        context, done = copy_context(), threading.Event()

        def run() -> None:
            try:
                outcome.append(context.run(read))
            except BaseException as error:
                outcome.append(error)
            finally:
                self._threads.release()
                done.set()

        threading.Thread(target=run, name="store-read", daemon=True).start()
        if not done.wait(allowed):
            raise TimeoutError(f"the store did not answer within {allowed * 1000:.0f} ms")
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]
